# SPDX-License-Identifier: Apache-2.0
"""`reflex replay --plot`: which pictures are drawn and what they show, in bounded memory."""

from __future__ import annotations

import builtins
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import leading_robots as robots
import numpy as np
import pytest
from matplotlib.figure import Figure
from recordings import NAMES, tiny_disk
from replays import command, edited, record
from robots import v1
from servers import ExportDir, MakeEngine

from reflex_core.records.trace.parse import Recorded, TraceError, recorded
from reflex_core.replay.comparison import Replayed, Tolerances
from reflex_core.replay.plot_data import EPISODES_KEPT, POINTS_KEPT, WORST_KEPT, Kept, Watched, drawn_of
from reflex_core.replay.plots import (
    RATE,
    SHARE,
    draw,
    episode_figure,
    latency_figure,
    record_figure,
    units_of,
)
from reflex_core.replay.summary import KEPT
from reflex_core.robot.presets import load_embodiment

Output = pytest.CaptureFixture[str]
USUAL = Tolerances()
ROWS, JOINTS = 10, 7


def one(seq: int, episode_id: str | None = "one", **response: Any) -> Recorded:
    """A recorded chunk in which joint j goes from j to j + 1."""
    actions = np.linspace(0, 1, ROWS)[:, None] + np.arange(JOINTS)
    document = {
        "seq": seq,
        "request": {"instruction": "pick", "episode_id": episode_id},
        "response": {"actions": actions.tolist(), "names": list(NAMES), "dt_s": 0.05} | response,
        "latency": {"total_ms": 100.0},
        "slot": "a",
    }
    return recorded(document, "trace:1")


def answer(
    to: Recorded, error: float = 0.0, joint: int = 2, row: int = 4, total_ms: float = 90.0
) -> Replayed:
    """The recorded chunk again, off by `error` in one place."""
    actions = to.raw_actions.copy()
    actions[row, joint] += error
    return Replayed(actions, to.names, 10, total_ms)


@dataclass(frozen=True)
class Off:
    """A target whose n-th answer is off by n micro units."""

    step: float = 1e-6

    def replay(self, record: Recorded) -> Replayed:
        return answer(record, self.step * record.seq)


def texts(figure: Figure) -> list[str]:
    return [axes.get_title(loc="left") for axes in figure.axes if axes.get_title(loc="left")]


def series(figure: Figure, panel: int) -> list[np.ndarray[Any, Any]]:
    return [np.asarray(line.get_ydata(), np.float64) for line in figure.axes[panel].get_lines()]


def test_a_replay_draws_the_first_record_the_episode_and_the_latency(
    make_engine: MakeEngine, export_dir: ExportDir, tmp_path: Path, capsys: Output
) -> None:
    trace = record(make_engine, tmp_path / "traces", "decomposed")
    done = command(capsys, trace, "--model", export_dir("decomposed"), "--plot", tmp_path / "plots")
    assert done.status == 0, done.err
    assert "1 of 3 records (the first; no other differs), 1 of 1 episodes, latency" in done.out
    names = sorted(path.name for path in (tmp_path / "plots").iterdir())
    assert names == ["episode-01.png", "latency.png", "record-000000.png"]
    for name in names:
        pixels = cv2.imread(str(tmp_path / "plots" / name))
        assert pixels is not None
        assert pixels.std() > 5  # something is on it


def test_records_that_differ_are_drawn_and_old_pictures_are_gone(
    make_engine: MakeEngine, export_dir: ExportDir, tmp_path: Path, capsys: Output
) -> None:
    def spoil(document: dict[str, Any]) -> None:
        if document["seq"] == 2:
            document["response"]["actions"][0][0] += 0.5

    trace = edited(record(make_engine, tmp_path / "traces", "decomposed"), spoil)
    plots = tmp_path / "plots"
    draw_earlier(plots)
    for name in ("notes.png", "episode-42.png"):
        (plots / name).write_bytes(b"mine")
    arguments = (
        "--model",
        export_dir("decomposed"),
        "--plot",
        plots,
        "--fail-on",
        "actions",
        "--output",
        "-",
    )
    done = command(capsys, trace, *arguments)
    assert done.status == 3
    assert json.loads(done.out)["summary"]["n_pass_actions"] == 2  # people read standard error then
    assert "2 of 3 records (the first and those that differ most)" in done.err
    assert sorted(path.name for path in plots.glob("record-*")) == ["record-000000.png", "record-000002.png"]
    assert (plots / "notes.png").read_bytes() == (plots / "episode-42.png").read_bytes() == b"mine"


def draw_earlier(plots: Path) -> None:
    """The pictures of another replay: record-000009.png, episode-01.png and latency.png."""
    plots.mkdir()
    kept = Kept(USUAL)
    kept.add(one(9), answer(one(9)))
    draw(kept, plots, USUAL, {})


def test_a_replay_that_cannot_run_takes_no_picture_away(
    make_engine: MakeEngine, tmp_path: Path, capsys: Output
) -> None:
    trace = record(make_engine, tmp_path / "traces", "decomposed", count=1)
    plots = tmp_path / "plots"
    draw_earlier(plots)
    before = {path.name for path in plots.iterdir()}
    assert "record-000009.png" in before
    for words in (["--model", tmp_path / "nowhere"], ["--model", "x", "--embodiment", "nobody"]):
        assert command(capsys, trace, *words, "--plot", plots).status == 2
    assert {path.name for path in plots.iterdir()} == before


def test_a_picture_that_no_replay_has_drawn_is_not_drawn_over(tmp_path: Path) -> None:
    (tmp_path / "latency.png").write_bytes(b"mine")
    kept = Kept(USUAL)
    kept.add(one(0), answer(one(0)))
    with pytest.raises(TraceError, match="latency.png is there and no replay has drawn it: name another"):
        draw(kept, tmp_path, USUAL, {})
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"mine"]


def test_a_failing_joint_is_named_with_its_largest_difference() -> None:
    figure = record_figure(drawn_of(one(3), answer(one(3), 0.25), USUAL), {NAMES[6]: SHARE})
    names = texts(figure)
    assert names[0] == "panda_joint1"
    assert names[2] == "panda_joint3  FAILS: 2.5e-01"
    assert "replay DIFFERS" in figure.get_suptitle()

    before, after = series(figure, 4)  # two panels per joint
    assert after[4] - before[4] == pytest.approx(0.25)
    difference, allowed = series(figure, 5)
    assert difference.argmax() == 4
    assert difference.max() > allowed.max() == pytest.approx(1e-3)
    assert figure.axes[0].get_ylabel() == "rad or m"
    assert figure.axes[12].get_ylabel() == "0 to 1"


def test_the_title_names_what_became_of_the_recorded_answer_and_never_that_it_passed() -> None:
    document = {"guard": {"clamped": True, "violations": ["panda_joint2 velocity: 0.4 > 0.1 rad/s"]}}
    clamped = replace(one(3), document=one(3).document | document)
    title = record_figure(drawn_of(clamped, answer(clamped), USUAL), {}).get_suptitle()
    assert "record 3: replay gives the recorded actions" in title
    assert "recorded answer: CLAMPED: panda_joint2 velocity: 0.4 > 0.1 rad/s" in title
    assert "passed" not in title


def test_another_shape_and_numbers_that_are_none_are_drawn_too(tmp_path: Path) -> None:
    kept = Kept(USUAL)
    shorter = replace(answer(one(0)), actions=one(0).raw_actions[:6, :5], names=NAMES[:5])
    kept.add(one(0), shorter)
    wild = answer(one(1))
    wild.actions[0] = np.nan
    wild.actions[1] = np.inf
    kept.add(one(1), wild)
    kept.add(one(2, names=[], actions=[[1.0]]), replace(wild, actions=np.ones((1, 1), np.float32), names=()))
    kept.add(one(3, actions=[], names=[]), replace(wild, actions=np.zeros((0, 0), np.float32), names=()))
    output = draw(kept, tmp_path, USUAL, {})
    assert "3 of 4 records" in output  # the one that is the same has no picture
    titles = [texts(record_figure(drawn, {})) for drawn in kept.chosen()]
    assert titles[0][0] == "panda_joint1"  # as far as it goes
    assert titles[0][6] == "panda_joint7  FAILS: not comparable"  # it is not among the five
    assert titles[1][0] == "panda_joint1  FAILS: not comparable"
    assert titles[2] == []
    assert "recorded 10x7, replayed 6x5" in record_figure(kept.chosen()[0], {}).get_suptitle()


def test_the_worst_and_the_first_are_kept_of_a_long_trace() -> None:
    kept = Kept(USUAL)
    target = Watched(Off(), kept)
    for seq in range(2000):
        assert target.replay(one(seq)).total_ms == 90.0
    seqs = [drawn.seq for drawn in kept.chosen()]
    assert seqs == [0, *range(2000 - WORST_KEPT, 2000)]
    (track,) = kept.tracks()
    assert len(track.points) <= POINTS_KEPT
    assert track.records == 2000
    assert track.stride == 4
    assert track.points[-1].seq == 1999
    assert 999 <= track.fails <= 1000  # float32 rounds 1e-3 down
    title = episode_figure(track, {}).get_suptitle()
    assert "2000 records" in title
    assert "of each 4 records the one that differs most" in title


def test_of_neighbours_the_one_that_differs_stays_on_the_line() -> None:
    kept = Kept(USUAL)
    for seq in range(3 * POINTS_KEPT):
        kept.add(one(seq), answer(one(seq), 0.5 if seq == 777 else 0.0))
    (track,) = kept.tracks()
    assert [point.seq for point in track.points if point.badness > 0] == [777]
    assert [drawn.seq for drawn in kept.chosen()] == [0, 777]


def test_of_many_episodes_the_first_and_the_worst_stay() -> None:
    kept = Kept(USUAL)
    for number in range(100):
        to = one(number, f"episode-{number}")
        kept.add(to, answer(to, 0.5 if number == 40 else 0.0))
    names = [track.episode_id for track in kept.tracks()]
    assert len(names) == EPISODES_KEPT
    assert {"episode-0", "episode-40", "episode-99"} <= set(names)
    assert kept.episodes == 100


def test_latencies_are_a_sample_and_a_hiccup_hides_nothing() -> None:
    kept = Kept(USUAL)
    for seq in range(KEPT + 100):
        kept.add(one(seq), answer(one(seq), total_ms=9000.0 if seq == 50 else 100.0 + seq % 10))
    assert len(kept.latencies.values) == KEPT
    figure = latency_figure(kept.latencies.values, USUAL)
    both, change = figure.axes
    assert both.get_xlim()[1] < 200.0
    legend = [text.get_text() for axes in (both, change) for text in axes.get_legend().get_texts()]
    assert legend[0] == "recorded, median 100 ms"
    assert any(words.startswith("median +4") for words in legend)


def test_grippers_have_units_of_their_own() -> None:
    franka = v1("franka")
    assert units_of(franka, franka.joint_names) == {"panda_gripper": SHARE}
    assert units_of(None, NAMES) == {}


def test_what_is_commanded_by_velocity_is_drawn_per_second(tmp_path: Path) -> None:
    groups = [
        robots.joints("arm", ["a"], topic="/arm/joint_trajectory"),
        robots.base("base", {"x": "linear.x", "yaw": "angular.z"}, topic="/cmd_vel"),
    ]
    robot = load_embodiment(robots.embodiment(tmp_path / "robot.json", groups))
    assert units_of(robot, robot.joint_names) == {"x": RATE, "yaw": RATE}


def test_without_matplotlib_one_sentence_says_what_to_install(
    export_dir: ExportDir, tmp_path: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name.partition(".")[0] == "matplotlib":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    done = command(capsys, tmp_path / "trace.jsonl", "--model", "x", "--plot", tmp_path / "plots")
    assert done.status == 1
    assert "pip install 'reflex_ros[plot]'" in done.err


def test_plot_without_a_replay_is_refused(tmp_path: Path, capsys: Output) -> None:
    done = command(capsys, tmp_path / "trace.jsonl", "--no-replay", "--plot", tmp_path)
    assert done.status == 1
    assert "--plot draws a replay" in done.err


def test_a_place_that_cannot_be_written_is_said(
    make_engine: MakeEngine, export_dir: ExportDir, tmp_path: Path, capsys: Output
) -> None:
    trace = record(make_engine, tmp_path / "traces", "decomposed", count=1)
    (tmp_path / "file").write_text("")
    model = export_dir("decomposed")
    done = command(capsys, trace, "--model", model, "--plot", tmp_path / "file")
    assert done.status == 1
    assert "file: cannot be written" in done.err
    with tiny_disk(tmp_path / "tiny", 1 << 20) as disk:
        disk.fill()
        done = command(capsys, trace, "--model", model, "--plot", disk.path)
        disk.free()
    assert done.status == 1
    assert "cannot be written: " in done.err
