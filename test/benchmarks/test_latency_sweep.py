# SPDX-License-Identifier: Apache-2.0
"""The latency sweep: the same scenes for every condition, the same table every time, and delays that really delay."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from benchmarks import latency_sweep
from benchmarks.latency_sweep import (
    BOTH,
    CONDITIONS,
    CORRECTED,
    EVERY_STEP,
    RTC,
    SKIP,
    STREAMED,
    Kept,
    Task,
    cell,
    sweep,
)
from benchmarks.moving_target import Followed, World, straight_path
from benchmarks.sweep_report import Cell, Outcome, bootstrap, draw, markdown, read
from reflex_core.chunks.a2c2.correction import Correction, load_correction
from reflex_core.export.export import open_export
from reflex_core.files.share import embedded_policy
from reflex_core.policy.base import Policy
from reflex_core.policy.load import load_policy
from reflex_core.robot.presets import load_embodiment
from reflex_ros.demo.arm import Arm
from reflex_ros.demo.scene import BLOCK_AREA_M, BLOCK_SPACING_M, make_scene

SEED, DT_S, DELAY = 10_000, 0.05, 8
SHORT = Task(steps=latency_sweep.QUICK_STEPS)


@dataclass(frozen=True)
class Rig:
    policy: Policy
    correction: Correction
    arm: Arm

    def cell(self, condition: str, delay: int, task: Task = SHORT) -> Cell:
        return cell(self.policy, self.correction, self.arm, task, [SEED], condition, delay)


@dataclass(frozen=True)
class Ran:
    printed: str
    cells: tuple[Cell, ...]
    picture: Path


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    path = embedded_policy()
    policy = load_policy(open_export(path), load_embodiment(path / "embodiment.json"), "cpu", 1)
    arm = Arm()
    yield Rig(policy, load_correction(path / "a2c2.npz", policy.binding), arm)
    arm.close()


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    folder = tmp_path_factory.mktemp("sweep")
    output, picture = folder / "sweep.json", folder / "sweep.png"
    with pytest.MonkeyPatch.context() as patch:
        printed: list[str] = []
        patch.setattr("builtins.print", lambda *words, **_: printed.append(" ".join(map(str, words))))
        arguments = ["--quick", "--delays", str(DELAY), "--output", str(output), "--picture", str(picture)]
        assert latency_sweep.main(arguments) == 0
    assert json.loads(output.read_text())["benchmark"] == "latency_sweep"
    return Ran("\n".join(printed), tuple(read(output)), picture)


def test_the_table_has_a_line_for_every_condition(ran: Ran) -> None:
    lines = [line.split(" | ") for line in ran.printed.splitlines() if line.startswith(f"| {DELAY} ")]
    assert [line[1] for line in lines] == list(CONDITIONS)
    assert all(line[2].endswith("/2") for line in lines)
    assert len({len(line) for line in lines}) == 1


def test_every_condition_gets_the_same_scenes_and_asks_as_often(ran: Ran) -> None:
    assert {tuple(one.seed for one in cell.outcomes) for cell in ran.cells} == {(SEED, SEED + 1)}
    assert len({one.chunks for cell in ran.cells for one in cell.outcomes}) == 1


def test_each_condition_does_what_it_is_named_for(ran: Ran) -> None:
    for found in ran.cells:
        for one in found.outcomes:
            assert one.guided == (one.chunks - 1 if found.condition in (RTC, BOTH) else 0)
            assert one.corrected == (one.chunks if found.condition in (CORRECTED, *STREAMED) else 0)


def test_late_chunks_fit_better_with_each_remedy(ran: Ran) -> None:
    jumps = {found.condition: found.values("jump_rad").mean() for found in ran.cells}
    assert jumps[RTC] < 0.2 * jumps[SKIP]
    assert max(jumps[CORRECTED], jumps[EVERY_STEP], jumps[BOTH]) < jumps[SKIP]
    distances = {found.condition: found.values("distance_m").mean() for found in ran.cells}
    assert distances[EVERY_STEP] < distances[SKIP]


def test_the_picture_is_drawn(ran: Ran) -> None:
    pixels = cv2.imread(str(ran.picture))
    assert pixels is not None
    assert pixels.std() > 5  # not an empty page


def test_a_second_run_gives_the_same_numbers(ran: Ran, rig: Rig) -> None:
    first = next(found for found in ran.cells if found.condition == BOTH)
    again = rig.cell(BOTH, DELAY)
    assert asdict(again.outcomes[0]) == asdict(first.outcomes[0])


def test_without_delay_there_is_nothing_to_skip_and_nothing_to_correct(rig: Rig) -> None:
    plain, *others = (rig.cell(condition, 0, Task(steps=40)).outcomes for condition in (SKIP, CORRECTED))
    assert others == [plain]


def test_a_sweep_goes_on_where_it_was_stopped_unless_the_task_is_another(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[int] = []

    def drive(*arguments: Any) -> Outcome:
        ran.append(arguments[4])
        return outcome(arguments[4], followed=True)

    monkeypatch.setattr(latency_sweep, "drive", drive)

    def swept(task: Task, *seeds: int) -> Cell:
        (found,) = sweep(rig.policy, rig.correction, task, seeds, [DELAY], [SKIP], Kept(tmp_path, task))
        return found

    swept(SHORT, 1, 2)
    assert [one.seed for one in swept(SHORT, 1, 2, 3).outcomes] == [1, 2, 3]
    assert ran == [1, 2, 3]
    swept(Task(steps=40), 3)
    assert ran == [1, 2, 3, 3]


@pytest.mark.parametrize("delays", [["-1"], ["4", "26"]])
def test_delays_that_the_chunk_cannot_bridge_are_refused(
    delays: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert latency_sweep.main(["--delays", *delays]) == 2
    assert "expected 0 to 25 control steps" in capsys.readouterr().err


def test_the_block_goes_straight_on_and_meets_no_other() -> None:
    low, high = np.transpose(BLOCK_AREA_M)
    for seed in range(SEED, SEED + 40):
        scene = make_scene(seed)
        path_m = straight_path(scene, 120, 0.003)
        strides_m = np.linalg.norm(np.diff(path_m, axis=0), axis=1)
        assert np.quantile(strides_m, 0.1) == pytest.approx(0.003)  # shorter only where it is reflected
        assert ((path_m >= low) & (path_m <= high)).all()
        block = scene.blocks[scene.target_index]
        assert path_m[0].tolist() == pytest.approx([block.x_m, block.y_m])
        others = [[other.x_m, other.y_m] for other in scene.blocks if other is not block]
        assert np.linalg.norm(path_m[:, None] - others, axis=-1).min() > 0.8 * BLOCK_SPACING_M


def test_the_arm_plays_the_rows_in_turn_and_keeps_the_last(rig: Rig) -> None:
    scene = make_scene(SEED)
    world = World(rig.arm, scene, straight_path(scene, 6, 0.003), DT_S, "camera")
    rest = world.command()
    rows = rest + np.arange(1, 4, dtype=np.float32)[:, None] * 0.01
    world.run(2)
    world.followed = Followed(rows, 1)  # asked for one step ago: row 0 is over
    world.run(3)
    assert not world.over
    np.testing.assert_array_equal(world.commands, [rest, rest, rows[1], rows[2], rows[2]])
    world.run(9)
    assert (world.over, world.step, len(world.distances_m)) == (True, 6, 6)


def test_time_in_the_world_is_that_of_its_steps(rig: Rig) -> None:
    scene = make_scene(SEED)
    world = World(rig.arm, scene, straight_path(scene, 6, 0.003), DT_S, "camera")
    before = world.look()
    world.run(4)
    after = world.look()
    assert after.stamp_ns - before.stamp_ns == 200_000_000
    assert 0 < world.clock_ns() - after.stamp_ns < 1_000_000
    assert (before.frames["camera"].data != after.frames["camera"].data).any()


def outcome(seed: int, followed: bool) -> Outcome:
    return Outcome(seed, followed, 0.02, 0.01, 0.01, 50.0, 0.0, 10, 0, 0)


def cells(first: int, second: int) -> tuple[Cell, Cell]:
    """20 episodes of two conditions, the first ones of each followed."""
    return (
        Cell(4, SKIP, tuple(outcome(seed, seed < first) for seed in range(20))),
        Cell(4, CORRECTED, tuple(outcome(seed, seed < second) for seed in range(20))),
    )


def test_a_difference_is_bold_only_where_the_intervals_are_apart() -> None:
    assert "**+75 " in markdown(cells(3, 18), SKIP).splitlines()[-1]
    line = markdown(cells(14, 18), SKIP).splitlines()[-1]
    assert "+20 (+" in line
    assert "**" not in line


def test_other_scenes_are_not_compared() -> None:
    base, other = cells(3, 18)
    moved = replace(other, outcomes=tuple(replace(one, seed=one.seed + 1) for one in other.outcomes))
    with pytest.raises(ValueError, match="had other scenes"):
        markdown((base, moved), SKIP)


def test_the_bootstrap_holds_the_mean_and_repeats_itself() -> None:
    values = np.random.default_rng(1).normal(3.0, 1.0, 200)
    low, high = bootstrap(values)
    assert low < values.mean() < high
    assert high - low == pytest.approx(2 * 1.96 / np.sqrt(200), rel=0.2)
    assert bootstrap(values) == (low, high)


def test_without_matplotlib_the_sentence_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(SystemExit, match=r"pip install 'reflex_ros\[plot\]'"):
        draw(cells(3, 18), tmp_path / "none.png")
