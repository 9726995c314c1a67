# SPDX-License-Identifier: Apache-2.0
"""`reflex calibrate-prefix`: which pictures are compared, what threshold comes of it, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from servers import ExportDir

from reflex_core.calibration.prefix_threshold import Measured, threshold
from reflex_core.errors import ConfigurationError
from reflex_core.export.export import open_export
from reflex_core.files.observations import named_observations
from reflex_core.policy.load import load_policy
from reflex_core.policy.prefix_cache import HIT, MISS
from reflex_core.policy.sampler import PLAIN
from reflex_ros.cli.main import main as reflex

Output = pytest.CaptureFixture[str]
SIZE = 32  # of the pictures, as the networks of the test take them: a cell is 2 x 2 pixels


@pytest.fixture
def split(export_copy: ExportDir) -> Path:
    """An export whose prefix can be kept, and that was never calibrated."""
    return export_copy("decomposed_state_per_step")


def picture(folder: Path, name: str, level: int, spot: int | None = None, **document: Any) -> None:
    """An observation of one grey, with one cell of another."""
    folder.mkdir(exist_ok=True)
    pixels = np.full((SIZE, SIZE, 3), level, np.uint8)
    if spot is not None:
        pixels[8:10, 8:10] = spot
    assert cv2.imwrite(str(folder / f"{name}.png"), pixels)
    values = {"instruction": "reach the red cube", "state": [0.0] * 7, "images": {"base": f"{name}.png"}}
    (folder / f"{name}.json").write_text(json.dumps(values | document))


def still(folder: Path, count: int = 4) -> Path:
    """A scene whose camera flickers by 0, 1, 2, ... grey levels."""
    for number in range(1, count + 1):
        picture(folder, f"desk-{number}", 100 + sum(range(number)))
    return folder


def after(folder: Path, count: int = 4, by: int = 60) -> Path:
    """The same with one cell of another grey."""
    for number in range(1, count + 1):
        level = 100 + sum(range(number))
        picture(folder, f"desk-{number}", level, level + by)
    return folder


def calibrated(path: Path, seen: Path, *more: str) -> int:
    return reflex(["calibrate-prefix", str(path), "--observations", str(seen), *more])


def block_of(path: Path) -> dict[str, Any] | None:
    document: dict[str, Any] = json.loads((path / "reflex_config.json").read_text())
    return document.get("prefix_cache")


def test_of_an_unchanged_scene_the_noise_is_the_threshold(
    split: Path, tmp_path: Path, capsys: Output
) -> None:
    assert calibrated(split, still(tmp_path / "seen"), "--write") == 0
    block = block_of(split)
    assert block is not None
    # flickers of 1, 2 and 3 levels of 255: 95 % of them lie below 2.9
    assert block["image_threshold"] == 0.012
    assert block["max_age_ms"] == 1000.0
    measured = block["measured"]
    assert measured["noise"] == pytest.approx(2.9 / 255, abs=1e-4)
    assert measured["model_hash"] == open_export(split).model_hash
    output = capsys.readouterr().out
    assert "3 recorded pairs of an unchanged scene" in output
    assert "saves only while nothing in the picture moves" in output


def test_of_moves_what_nearly_all_exceed_is_the_threshold(
    split: Path, tmp_path: Path, capsys: Output
) -> None:
    seen, moved = still(tmp_path / "seen"), after(tmp_path / "moved")
    assert calibrated(split, seen, "--moved", str(moved), "--max-age-ms", "500", "--write") == 0
    block = block_of(split)
    assert block is not None
    assert (block["image_threshold"], block["max_age_ms"]) == (0.235, 500.0)
    assert block["measured"]["least_change"] == block["measured"]["median_change"] == 0.2353
    output = capsys.readouterr().out
    assert "4 before and after a move" in output
    assert "what 95 % of the moves exceed" in output
    assert "of fewer than 20" in output


def test_what_is_written_is_what_the_cache_goes_by(split: Path, tmp_path: Path) -> None:
    """A flicker is a hit, the move is a miss."""
    seen, moved = still(tmp_path / "seen"), after(tmp_path / "moved")
    assert calibrated(split, seen, "--moved", str(moved), "--write") == 0
    policy = load_policy(open_export(split), None, "cpu", 1)
    cache = policy.prefix_cache()
    before, flickers = named_observations(seen), named_observations(moved)
    requested = [before["desk-1"], before["desk-2"], flickers["desk-1"]]
    answers = [
        policy.predict(replace(one, stamp_ns=10**9 + at), 1, PLAIN, None, "pick", cache)
        for at, one in enumerate(requested)
    ]
    assert [one.cache.status for one in answers] == [MISS, HIT, MISS]


def test_without_write_nothing_is_changed(split: Path, tmp_path: Path, capsys: Output) -> None:
    assert calibrated(split, still(tmp_path / "seen")) == 0
    assert block_of(split) is None
    assert "nothing was written" in capsys.readouterr().out


def test_measuring_again_replaces_the_block_of_other_weights(split: Path, tmp_path: Path) -> None:
    file = split / "reflex_config.json"
    stale = {"image_threshold": 0.9, "max_age_ms": 1, "measured": {"model_hash": "0123456789abcdef"}}
    file.write_text(json.dumps(json.loads(file.read_text()) | {"prefix_cache": stale}))
    assert calibrated(split, still(tmp_path / "seen"), "--write") == 0
    assert load_policy(open_export(split), None, "cpu", 1).prefix_cache().rule.image_threshold < 0.9


def test_two_scenes_are_not_compared_with_each_other(split: Path, tmp_path: Path, capsys: Output) -> None:
    seen = tmp_path / "seen"
    for name, level in (("desk-9", 100), ("desk-10", 101), ("shelf-1", 200), ("shelf-2", 202)):
        picture(seen, name, level)
    assert calibrated(split, seen, "--write") == 0
    assert "2 recorded pairs" in capsys.readouterr().out
    block = block_of(split)
    assert block is not None
    assert block["image_threshold"] == 0.008


def refused(arguments: list[str], capsys: Output) -> str:
    assert reflex(["calibrate-prefix", *arguments]) == 1
    output = capsys.readouterr().err
    assert output.startswith("reflex calibrate-prefix: ")
    assert len(output.splitlines()) == 1
    return output


def test_moves_that_drown_in_the_noise_are_refused(split: Path, tmp_path: Path, capsys: Output) -> None:
    seen, moved = still(tmp_path / "seen"), after(tmp_path / "moved", by=3)
    message = refused([str(split), "--observations", str(seen), "--moved", str(moved), "--write"], capsys)
    assert "no threshold tells them apart" in message
    assert block_of(split) is None


def test_a_move_needs_its_picture_before(split: Path, tmp_path: Path, capsys: Output) -> None:
    seen, moved = still(tmp_path / "seen", 2), after(tmp_path / "moved", 3)
    message = refused([str(split), "--observations", str(seen), "--moved", str(moved)], capsys)
    assert "without a partner: desk-3" in message


def test_one_picture_is_not_enough(split: Path, tmp_path: Path, capsys: Output) -> None:
    message = refused([str(split), "--observations", str(still(tmp_path / "seen", 1))], capsys)
    assert "no two pictures of one scene" in message


def test_other_words_are_no_pair(split: Path, tmp_path: Path, capsys: Output) -> None:
    seen = still(tmp_path / "seen", 2)
    picture(seen, "desk-2", 100, instruction="push the green ball")
    message = refused([str(split), "--observations", str(seen)], capsys)
    assert "desk-1 and desk-2: the instructions differ" in message


def test_an_observation_that_the_policy_does_not_take_is_named(
    split: Path, tmp_path: Path, capsys: Output
) -> None:
    seen = still(tmp_path / "seen", 2)
    picture(seen, "desk-2", 100, images={})
    assert "desk-2: " in refused([str(split), "--observations", str(seen)], capsys)


@pytest.mark.parametrize(
    ("name", "says"), [("mono_pi0_7", "the whole network is one graph"), ("vlm_stack", "the state enters")]
)
def test_an_export_whose_prefix_cannot_be_kept_is_refused(
    export_dir: ExportDir, tmp_path: Path, name: str, says: str, capsys: Output
) -> None:
    seen = still(tmp_path / "seen", 2)
    assert says in refused([str(export_dir(name)), "--observations", str(seen)], capsys)


@pytest.mark.parametrize("age", ["0", "60001", "nan", "soon"])
def test_an_age_that_is_none_is_status_2(split: Path, tmp_path: Path, age: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        calibrated(split, tmp_path, "--max-age-ms", age)
    assert stopped.value.code == 2


@pytest.mark.parametrize(
    ("still_pairs", "moved_pairs", "expected"),
    [((0.0,), (), 0.0), ((0.0101,), (), 0.011), ((0.01,), (0.1172,), 0.117), ((), (0.5, 0.1), 0.12)],
)
def test_a_threshold_is_rounded_to_the_careful_side(
    still_pairs: tuple[float, ...], moved_pairs: tuple[float, ...], expected: float
) -> None:
    """Up where it must cover noise, down where it must not hide a move."""
    assert threshold(Measured(still_pairs, moved_pairs)) == pytest.approx(expected)


def test_pictures_that_never_change_tell_no_move() -> None:
    with pytest.raises(ConfigurationError, match="no threshold tells them apart"):
        threshold(Measured((), (0.0, 0.0)))
