# SPDX-License-Identifier: Apache-2.0
"""The demo's table, its summary and its verdict."""

from __future__ import annotations

import dataclasses
import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from reflex_ros.demo.episode import Episode
from reflex_ros.demo.goals import Goal

REQUIRED_SHARE = 0.95
INSTRUCTION_WIDTH = 40


@dataclass(frozen=True)
class Summary:
    """All episodes together; latencies in ms, medians over the episodes' medians."""

    episodes: int
    succeeded: int
    measure_cm: float
    latency_ms: float | None
    observation_age_ms: float | None
    chunks: int
    holds: int
    errors: int
    guard_clamped: int
    observations_refused: int
    malformed_chunks: int
    trajectories_refused: int = 0
    trajectories_not_finite: int = 0


def headings(goal: Goal) -> tuple[str, str]:
    """Return the two lines above the table."""
    return (
        f"  #  {'instruction':<{INSTRUCTION_WIDTH}}  {goal.done:<9}  {goal.measure:>8}  chunks  denoise  latency  obs. age",
        f"     {'':<{INSTRUCTION_WIDTH}}  {'':<9}  {'cm':>8}            steps       ms        ms",
    )


def row(number: int, episode: Episode) -> str:
    """Return one line of the table."""
    instruction = episode.instruction
    if len(instruction) > INSTRUCTION_WIDTH:
        instruction = instruction[: INSTRUCTION_WIDTH - 1] + "…"
    return (
        f"{number:>3}  {instruction:<{INSTRUCTION_WIDTH}}  {'yes' if episode.succeeded else 'NO':<9}"
        f"  {episode.measure_m * 100:>8.1f}  {episode.chunks:>6}  {_number(episode.denoise_steps, 7, 0)}"
        f"  {_number(episode.latency_ms, 7, 1)}  {_number(episode.observation_age_ms, 8, 1)}"
    )


def summary_lines(summary: Summary, goal: Goal) -> list[str]:
    """Return the lines below the table."""
    return [
        f"{goal.done} {summary.succeeded}/{summary.episodes}, median {goal.measure} {summary.measure_cm:.1f} cm, "
        f"median chunk latency {_number(summary.latency_ms, 0, 1)} ms, "
        f"median observation age {_number(summary.observation_age_ms, 0, 1)} ms",
        f"{summary.chunks} chunks, {summary.guard_clamped} clamped by the guard, {summary.holds} holds without an answer, "
        f"{summary.errors} errors, {summary.trajectories_refused} trajectories refused by the robot",
    ]


def shortcomings(summary: Summary, episodes: Sequence[Episode], goal: Goal) -> list[str]:
    """Return why the demo did not succeed, a sentence each; empty when it did."""
    found = []
    if summary.succeeded < REQUIRED_SHARE * summary.episodes:
        found.append(
            f"The {goal.thing} was {goal.done} in only {summary.succeeded} of {summary.episodes} episodes; "
            f"at least {REQUIRED_SHARE:.0%} are expected."
        )
    silent = [episode.seed for episode in episodes if episode.chunks == 0]
    if silent:
        seeds = ", ".join(map(str, silent))
        found.append(f"The policy sent no action chunk in the episodes of these seeds: {seeds}.")
    if summary.errors:
        found.append(f"The policy node counted {summary.errors} errors.")
    if summary.malformed_chunks:
        found.append(f"{summary.malformed_chunks} action chunks were not well-formed.")
    if summary.trajectories_not_finite:
        found.append(
            f"{summary.trajectories_not_finite} trajectories held NaN or infinity, which a real controller would have obeyed."
        )
    return found


def median_of(values: Sequence[float | None]) -> float | None:
    """Return the median of the known values; None without any."""
    known = [value for value in values if value is not None]
    return float(statistics.median(known)) if known else None


def as_json(summary: Summary, episodes: Sequence[Episode], failures: Sequence[str]) -> dict[str, object]:
    """Return the contents of demo.json."""
    return {
        "passed": not failures,
        "failures": list(failures),
        "summary": dataclasses.asdict(summary),
        "episodes": [dataclasses.asdict(episode) for episode in episodes],
    }


def _number(value: float | None, width: int, decimals: int) -> str:
    return f"{'-':>{width}}" if value is None else f"{value:>{width}.{decimals}f}"


def short(path: Path) -> str:
    """Return a path from here on, if it is below the current folder."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)
