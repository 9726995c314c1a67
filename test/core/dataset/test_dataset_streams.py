# SPDX-License-Identifier: Apache-2.0
"""Frames at a fixed rate from events alone: which reading, which command, where a stretch ends, and what is never made up."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from reflex_core.dataset.streams import (
    NO_IMAGE,
    NO_STATE,
    NOT_EXECUTED,
    OTHER_JOINTS,
    Commanded,
    Event,
    Inferred,
    Moment,
    Reading,
    Sampler,
    Split,
    led_to,
)
from reflex_core.records.trace.executed import ExecutedRows
from reflex_core.values import Frame

MS = 1_000_000
START_NS = 1_700_000_000_000 * MS
NAMES = ("a", "b")
PERIOD_MS, HORIZON = 100, 10
AGE_NS = 300 * MS
YEAR_MS = 365 * 24 * 3600 * 1000


def at(ms: float) -> int:
    return START_NS + round(ms * MS)


def state(ms: int, heard_ms: int | None = None, oldest_ms: int | None = None) -> Reading:
    """The moment of its stamp, in ms, as the position of both joints."""
    heard = ms if heard_ms is None else heard_ms
    oldest = ms if oldest_ms is None else oldest_ms
    return Reading(at(heard), at(ms), None, np.full(2, ms, np.float32), at(oldest))


def image(ms: int, heard_ms: int | None = None) -> Reading:
    return Reading(
        at(ms if heard_ms is None else heard_ms), at(ms), "base", Frame(b"", "rgb8", ms, 1), at(ms)
    )


def command(ms: int, *, held: bool = False, episode: str = "one", **changes: Any) -> Commanded:
    """Rows that are the moments at which they are due, in ms."""
    names = changes.pop("names", NAMES)
    due = ms + PERIOD_MS * (np.arange(HORIZON) + 1.0)
    rows = np.repeat(due[:, None], len(names), 1).astype(np.float32)
    fields = {"control": "policy", "start": 0, "rows": rows, "episode_id": episode} | changes
    return Commanded(
        at(ms), ExecutedRows(began_ns=at(ms), stamp_ns=at(ms), dt_s=PERIOD_MS / 1000, names=names, **fields), held
    )  # fmt: skip


def inferred(ms: int, instruction: str = "pick") -> Inferred:
    return Inferred(at(ms), at(ms), instruction)


def sensed(first_ms: int, last_ms: int, step_ms: int = 20) -> list[Event]:
    return [make(ms) for ms in range(first_ms, last_ms, step_ms) for make in (state, image)]


def sampled(events: list[Event]) -> tuple[list[Moment], Sampler]:
    return run(sorted(events, key=lambda event: event.heard_ns))


def run(events: list[Event]) -> tuple[list[Moment], Sampler]:
    """The frames of events in this order."""
    made = Sampler(("base",), NAMES, 1000 / PERIOD_MS, AGE_NS)
    frames = [frame for event in events for frame in made.put(event)]
    return [*frames, *made.finish()], made


def times(frames: list[Moment]) -> list[float]:
    return [(frame.time_ns - START_NS) / MS for frame in frames]


def test_a_frame_has_the_newest_of_each_stream_by_its_stamp_however_late_it_came() -> None:
    late = [state(ms, ms + 150) for ms in range(0, 1500, 20)] + [
        image(ms, ms + 80) for ms in range(0, 1500, 33)
    ]
    frames, _ = sampled([*late, inferred(0), command(100), command(500)])
    assert times(frames) == [100.0 + PERIOD_MS * number for number in range(len(frames))]
    assert len(frames) > 10
    for frame, now in zip(frames, times(frames), strict=True):
        assert frame.state[0] == min(now // 20 * 20, 1480)
        assert frame.frames["base"].height == min(now // 33 * 33, 1485)
        assert frame.action[0] == pytest.approx(min(now + PERIOD_MS, 1500.0), abs=0.01)


def test_an_action_lies_on_the_line_between_the_rows_and_never_before_the_first_one_that_is_executed() -> (
    None
):
    rows = command(0, start=4).rows
    assert led_to(rows, at(650))[0] == pytest.approx(650.0)
    assert led_to(rows, at(120))[0] == pytest.approx(500.0)
    assert led_to(rows, at(9000))[0] == pytest.approx(1000.0)


def test_a_stale_stream_ends_the_stretch_and_another_begins_when_it_is_back() -> None:
    events = [
        *sensed(0, 700),
        *(state(ms) for ms in range(700, 2000, 20)),
        *(image(ms) for ms in range(1400, 2000, 20)),
    ]
    frames, made = sampled([*events, inferred(0), *(command(ms) for ms in range(0, 2000, 500))])
    assert [frame.part for frame in frames] == sorted(frame.part for frame in frames)
    before = [now for frame, now in zip(frames, times(frames), strict=True) if frame.part == 0]
    after = [now for frame, now in zip(frames, times(frames), strict=True) if frame.part == 1]
    assert (before[0], before[-1]) == (0.0, 900.0)  # 680 ms is 300 ms old at most until then
    assert 1400.0 <= after[0] < 1500.0
    assert made.left_out == {NO_IMAGE: 1}
    assert [frame.time_s for frame in frames if frame.part == 1][:2] == [0.0, pytest.approx(0.1)]


def test_a_stretch_of_the_same_episode_names_the_stream_that_was_missing_from_when_on_and_for_how_long() -> (
    None
):
    both = [make(ms) for ms in [*range(0, 700, 20), *range(1640, 2400, 20)] for make in (state, image)]
    cameras = [make for make in both if isinstance(make, Reading) and make.camera]
    states = [state(ms) for ms in range(0, 2400, 20)]
    commands = [inferred(0), command(100), command(900), command(1500)]
    _, made = sampled([*cameras, *states, *commands])
    assert made.splits == [Split("one", "camera 'base'", at(680), 960 * MS, pytest.approx(0.58))]
    images = [image(ms) for ms in range(0, 2400, 20)]
    gone = [each for each in both if isinstance(each, Reading) and each.camera is None]
    _, made = sampled([*images, *gone, *commands])
    assert [(split.what, split.gap_ns) for split in made.splits] == [("joint states", 960 * MS)]


def test_a_command_that_ran_out_is_a_reason_too_and_another_episode_is_none() -> None:
    _, made = sampled([*sensed(0, 4000), inferred(0), command(100), command(2500)])
    (split,) = made.splits
    assert (split.episode_id, split.what) == ("one", "commands")
    assert split.since_ns + split.gap_ns == at(2500)
    assert (
        sampled([*sensed(0, 4000), inferred(0), command(100), command(2500, episode="two")])[1].splits == []
    )


def test_a_state_whose_oldest_part_is_stale_is_none() -> None:
    events = [image(ms) for ms in range(0, 1000, 20)] + [
        state(ms, oldest_ms=min(ms, 300)) for ms in range(0, 1000, 20)
    ]
    frames, made = sampled([*events, inferred(0), command(0)])
    assert times(frames)[-1] == 600.0
    assert set(made.left_out) == {NO_STATE}


def test_holds_begin_no_stretch_and_are_marked_inside_of_one() -> None:
    held = command(500, held=True, rows=np.full((1, 1), -1.0, np.float32), names=("b",))
    events = [*sensed(0, 1400), inferred(0), command(0, held=True), command(200), held, command(800)]
    frames, _ = sampled(events)
    found = dict(zip(times(frames), frames, strict=True))
    assert min(found) == 200.0
    assert [found[now].held for now in (400.0, 500.0, 700.0, 800.0)] == [False, True, True, False]
    assert [found[now].control for now in (400.0, 500.0)] == ["policy", "hold"]
    assert found[600.0].action.tolist() == [500.0, -1.0]  # what the hold does not command keeps its value


def test_another_episode_is_another_stretch() -> None:
    frames, _ = sampled([*sensed(0, 1000), inferred(0), command(0), command(450, episode="two")])
    assert [(frame.part, frame.episode_id) for frame in frames][3:7] == [
        (0, "one"), (0, "one"), (1, "two"), (1, "two"),
    ]  # fmt: skip
    assert times(frames)[5] == 450.0


def test_what_was_not_executed_or_is_of_other_joints_makes_no_frame() -> None:
    events = [*sensed(0, 500), inferred(0), command(0, control=""), command(100, names=("a", "c"))]
    frames, made = sampled(events)
    assert frames == []
    assert made.left_out == {NOT_EXECUTED: 1, OTHER_JOINTS: 1}


def test_after_its_last_row_a_command_is_over() -> None:
    frames, _ = sampled([*sensed(0, 4000), inferred(0), command(0), command(3000)])
    parts = {frame.part: now for frame, now in zip(frames, times(frames), strict=True)}
    assert parts[0] == 1100.0  # the last row is due at 1000 ms
    assert next(now for frame, now in zip(frames, times(frames), strict=True) if frame.part == 1) == 3000.0


def test_a_clock_that_goes_back_begins_anew() -> None:
    events = [*sensed(10_000, 11_000), inferred(10_000), command(10_000)]
    again = [*sensed(0, 1000), inferred(0), command(0, episode="two")]
    first = sorted(events, key=lambda event: event.heard_ns)
    second = sorted(again, key=lambda event: event.heard_ns)
    frames, _ = run([*first, *second])
    assert [frame.episode_id for frame in frames] == ["one"] * 10 + ["two"] * 10


def test_a_clock_that_was_set_forward_by_years_takes_no_time() -> None:
    later = 50 * YEAR_MS
    events = [*sensed(0, 500), inferred(0), command(0), command(400, held=True)]
    events += [*sensed(later, later + 600), command(later)]
    frames, made = sampled(events)
    assert {frame.part for frame in frames} == {0, 1}
    assert times(frames)[-1] > later
    assert made.left_out[NO_STATE] < 5


def test_hours_without_a_command_take_no_memory() -> None:
    made = Sampler(("base",), NAMES, 1000 / PERIOD_MS, AGE_NS)
    for event in sensed(0, 100_000):
        assert list(made.put(event)) == []
    assert sum(len(readings) for readings in made._readings.values()) < 100


def test_the_instruction_is_the_newest_inference_s() -> None:
    events = [*sensed(0, 1000), inferred(0), command(0), inferred(450, "place"), command(500)]
    frames, _ = sampled(events)
    assert [frame.instruction for frame in frames[:8]] == ["pick"] * 5 + ["place"] * 3
