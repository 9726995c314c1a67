# SPDX-License-Identifier: Apache-2.0
"""How well chunks fit together, in numbers."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from reflex_core.chunks.smoothness import (
    EPISODES_KEPT,
    Border,
    Smoothness,
    border_jump,
    is_late,
    jerk_rms,
    overlap_disagreement,
)
from reflex_core.values import ActionChunk, Floats, Inference, Observation, Request, Served

DT_S = 0.1
SECOND_NS = 1_000_000_000


def line(start: float, slope: float, horizon: int = 10, joints: int = 2) -> Floats:
    """Every joint goes from `start` by `slope` per row."""
    return np.repeat((start + slope * np.arange(horizon))[:, None], joints, 1).astype(np.float32)


def feed(
    quality: Smoothness, actions: Floats, *, stamp_s: float, latency_s: float = 0.0, **other: object
) -> None:
    values: dict[str, object] = {"episode": "pick", "age_s": 0.0, "start_index": 0} | other
    observation = Observation({}, None, "", round(stamp_s * SECOND_NS), float(values["age_s"]) * 1e3)  # type: ignore[arg-type]
    request = Request(observation, 0, "request", values["episode"])  # type: ignore[arg-type]
    names = tuple(f"joint{number}" for number in range(actions.shape[1]))
    chunk = ActionChunk(actions, names, DT_S, start_index=values["start_index"])  # type: ignore[arg-type]
    served = Served(
        chunk, actions, "request", request.episode_id, 0, "prod", "model", Inference("onnx_cpu", 10, 10), latency_ms=latency_s * 1e3
    )  # fmt: skip
    quality(request, served)


def test_the_same_motion_seen_later_has_no_jump_and_no_disagreement() -> None:
    old, new = line(0, 0.1), line(0.4, 0.1)
    assert border_jump(old, new, shift=4, first=2) == pytest.approx(0, abs=1e-6)
    assert overlap_disagreement(old, new, shift=4) == pytest.approx(0, abs=1e-6)


def test_a_jump_is_the_largest_of_any_joint_for_the_same_moment() -> None:
    old, new = line(0, 0.1), line(0.4, 0.1)
    new[3] += [0.2, -0.5]
    assert border_jump(old, new, shift=4, first=3) == pytest.approx(0.5, abs=1e-6)
    assert overlap_disagreement(old, new, shift=4, first=3) == pytest.approx(0.7 / 6, abs=1e-6)


def test_chunks_that_share_no_moment_cannot_be_compared() -> None:
    old, new = line(0, 0.1), line(0.4, 0.1)
    assert math.isnan(border_jump(old, new, shift=10, first=0))
    assert math.isnan(overlap_disagreement(old, new, shift=10))
    assert math.isnan(overlap_disagreement(old, new, shift=8, first=3))


def test_jerk_is_the_third_derivative() -> None:
    seconds = np.arange(50) * DT_S
    cubic = np.stack([2 * seconds**3, 0 * seconds], axis=1)
    assert jerk_rms(cubic, DT_S) == pytest.approx(12 / math.sqrt(2))
    assert jerk_rms(line(0, 0.3), DT_S) == pytest.approx(0, abs=1e-2)
    assert math.isnan(jerk_rms(cubic[:3], DT_S))


def test_a_chunk_is_late_when_the_one_before_it_is_spent() -> None:
    assert not is_late(10, shift=6, arrival_rows=4.0)
    assert is_late(10, shift=6, arrival_rows=4.1)


def test_episodes_are_measured_from_the_row_that_is_executed() -> None:
    borders: list[Border] = []
    quality = Smoothness(on_border=borders.append)
    feed(quality, line(0, 0.1), stamp_s=1.0)
    new = line(0.4, 0.1)
    new[:2] += 9  # over when the chunk arrives
    new[2:] += 0.3
    feed(quality, new, stamp_s=1.4, latency_s=0.05, age_s=0.25)
    assert borders[0].jump == pytest.approx(0.3, abs=1e-6)
    assert borders[0].disagreement == pytest.approx(0.3, abs=1e-6)
    assert borders[0].jerk_rms == pytest.approx(0, abs=1e-2)
    assert not borders[0].late
    feed(quality, line(1.1, 0.1), stamp_s=1.8)
    assert borders[1].jerk_rms > 100  # the step of 0.3 was executed in between


def test_the_first_row_may_be_given_by_the_chunk() -> None:
    borders: list[Border] = []
    quality = Smoothness(on_border=borders.append)
    feed(quality, line(0, 0.1), stamp_s=1.0)
    new = line(0.4, 0.1)
    new[:5] += 9
    feed(quality, new, stamp_s=1.4, start_index=5)
    assert borders[0].jump == pytest.approx(0, abs=1e-6)


def test_late_chunks_are_counted() -> None:
    quality = Smoothness()
    for stamp_s, latency_s in ((1.0, 0.1), (1.5, 0.1), (2.0, 0.9)):
        feed(quality, line(0, 0.1), stamp_s=stamp_s, latency_s=latency_s)
    figures = quality.figures()
    assert (figures.chunks, figures.late_chunks, figures.borders) == (3, 1, 2)
    assert figures.late_share == 0.5


def test_episodes_are_not_compared_with_each_other() -> None:
    quality = Smoothness()
    feed(quality, line(0, 0.1), stamp_s=1.0, episode="pick")
    feed(quality, line(5, 0.1), stamp_s=1.1, episode="place")
    feed(quality, line(9, 0.1), stamp_s=1.2, episode=None)
    assert quality.figures().borders == 0
    feed(quality, line(0.2, 0.1), stamp_s=1.2, episode="pick")
    assert quality.figures().border_jump_p95 == pytest.approx(0, abs=1e-6)


def test_an_answer_to_an_older_observation_is_not_followed() -> None:
    quality = Smoothness()
    feed(quality, line(0.2, 0.1), stamp_s=1.2)
    feed(quality, line(7, 0.1), stamp_s=1.0)
    feed(quality, line(0.3, 0.1), stamp_s=1.3)
    assert quality.figures().border_jump_mean == pytest.approx(0, abs=1e-6)


def test_a_gripper_may_jump() -> None:
    quality = Smoothness(excluded=[1])
    for stamp_s, gripper in ((1.0, 0.0), (1.1, 1.0)):
        actions = line(stamp_s, 0.1)
        actions[:, 1] = gripper
        feed(quality, actions, stamp_s=stamp_s)
    assert quality.figures().border_jump_mean == pytest.approx(0, abs=1e-6)


def test_nothing_measured_is_none_in_a_reply() -> None:
    document = Smoothness().figures().document()
    assert document["chunks"] == 0
    assert document["border_jump_mean"] is None
    assert document["late_share"] is None


def test_memory_is_bounded_and_threads_are_welcome() -> None:
    quality = Smoothness()

    def drive(episode: int) -> None:
        for turn in range(3):
            feed(quality, line(0, 0.1), stamp_s=1.0 + 0.1 * turn, episode=f"episode {episode}")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(drive, range(2 * EPISODES_KEPT)))
    assert quality.figures().chunks == 6 * EPISODES_KEPT
    assert len(quality._running) == EPISODES_KEPT


def test_figures_are_the_same_whether_borders_are_computed_at_once_or_when_they_are_asked_for() -> None:
    borders: list[Border] = []
    at_once, later = Smoothness([1], borders.append), Smoothness([1])
    random = np.random.default_rng(3)
    stamp_s = 1.0
    for number in range(60):
        actions = np.cumsum(random.normal(size=(10, 2)), axis=0).astype(np.float32)
        stamp_s += random.choice([0.1, 0.3, 0.7, 1.5])
        for quality in (at_once, later):
            feed(quality, actions, stamp_s=stamp_s, latency_s=0.05, start_index=number % 3)
    assert later.figures() == at_once.figures()
    assert later.figures() == later.figures()
    assert at_once.figures().borders == len(borders) == 59
    jumps = [border.jump for border in borders if not math.isnan(border.jump)]
    assert later.figures().border_jump_mean == pytest.approx(float(np.mean(jumps)))
