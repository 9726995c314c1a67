# SPDX-License-Identifier: Apache-2.0
"""Measures a policy on this machine and chooses, one thing after the other: variant, provider, threads, steps, chunk.

Greedy: each choice is measured with the ones before it. The fastest wins; within 5 % the earlier candidate does.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from importlib import metadata
from typing import Protocol

from reflex_core.calibration.cache import Calibration
from reflex_core.calibration.measure import USUAL, Effort, Measurement, Run, measure
from reflex_core.concurrency.progress import report
from reflex_core.errors import ConfigurationError, InferenceError
from reflex_core.policy.providers import CPU, CUDA, TENSORRT

PROVIDERS = (TENSORRT, CUDA, CPU)
STEPS = (8, 4, 2, 1)
SHARE_OF_CHUNK = 0.7  # of the time a chunk lasts: the rest is for sensors, transport and one late inference
AS_GOOD = 1.05
PACKAGES = {
    "ort_version": "onnxruntime",
    "torch_version": "torch",
    "numpy_version": "numpy",
    "onnx_version": "onnx",
}

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to load the export. intra_op_threads, denoise_steps, chunk_size: 0 is as configured."""

    provider: str
    variant: str = ""
    intra_op_threads: int = 0
    denoise_steps: int = 0
    chunk_size: int = 0


class Measurable(Protocol):
    """A loaded candidate policy.

    denoise_steps and chunk_size: its actual values. chunk_s: duration of its chunk on the robot, 0.0 where it is unknown.
    stepped: its denoise loop takes any number of steps. free_chunk: its graphs take a chunk of any length.
    """

    @property
    def denoise_steps(self) -> int: ...

    @property
    def chunk_size(self) -> int: ...

    @property
    def chunk_s(self) -> float: ...

    @property
    def stepped(self) -> bool: ...

    @property
    def free_chunk(self) -> bool: ...

    def run(self) -> Run:
        """Run one whole inference on a plain observation."""


Load = Callable[[Candidate], Measurable]


@dataclass(frozen=True, slots=True)
class _Tried:
    candidate: Candidate
    measurement: Measurement
    denoise_steps: int
    chunk_size: int
    chunk_s: float
    stepped: bool
    free_chunk: bool

    @property
    def budget_ms(self) -> float:
        return SHARE_OF_CHUNK * self.chunk_s * 1e3 if self.chunk_s > 0 else math.inf

    def with_steps_ms(self, steps: int) -> float:
        """Estimate the latency with another number of steps: the loop scales in proportion, the rest stays."""
        loop_ms = self.measurement.denoise_ms
        return self.measurement.total_ms - loop_ms + loop_ms * steps / self.denoise_steps


def calibrate(
    load: Load,
    *,
    variants: Sequence[str] = (),
    providers: Sequence[str] = (CPU,),
    cores: int = 1,
    compensation_ms: float = 0.0,
    effort: Effort = USUAL,
    now: Callable[[], datetime] = lambda: datetime.now(timezone.utc),
) -> tuple[Calibration, tuple[str, ...]]:
    """Return the best calibration for this machine and messages about what was measured.

    Args:
        load: Loads a candidate; a ConfigurationError from it rules the candidate out.
        variants: As the export lists them.
        providers: Those of the installed onnxruntime.
        cores: Of this machine, for the numbers of threads that are tried.
        compensation_ms: The first estimate, used where the measured p95 is not above it.
        effort: How often each candidate is run.
        now: The clock of the calibration's date.

    Raises:
        ConfigurationError: No candidate loads and runs.
    """
    messages: list[str] = []
    threads = thread_counts(cores)
    # one more each for fewer steps and for a shorter chunk, which are tried last and only where it is too slow
    trial = _Trial(load, effort, 1 + len(variants) + len(providers) + len(threads) + 2)
    known = [name for name in PROVIDERS if name in providers] or [CPU]
    start = trial.first(Candidate(name) for name in known)
    best = trial.best([start, *(replace(start, variant=name) for name in variants)])
    later = known[known.index(start.provider) :]  # those before it do not start
    best = trial.best(replace(best.candidate, provider=name) for name in later)
    if best.candidate.provider == CPU:
        best = trial.best(replace(best.candidate, intra_op_threads=count) for count in threads)
    best = _steps(trial, best)
    best = _chunk(trial, best)
    report(1.0, "calibrating")
    if best.measurement.total_ms > best.budget_ms:
        messages.append(
            f"an inference takes {best.measurement.total_ms:.0f} ms, more than {SHARE_OF_CHUNK:.0%} of the"
            f" {best.chunk_s * 1e3:.0f} ms that a chunk lasts: the robot may pause between chunks"
        )
    quality = best.measurement.quality
    if quality.quality_score < 1:
        messages.append(
            f"the machine was not quiet while it was measured (quality {quality.quality_score:.2f} of 1);"
            " repeat with --calibrate-force"
        )
    calibration = Calibration(
        chunk_size=best.chunk_size,
        denoise_steps=best.denoise_steps,
        provider=best.candidate.provider,
        variant=best.candidate.variant,
        intra_op_threads=best.candidate.intra_op_threads,
        latency_compensation_ms=max(compensation_ms, best.measurement.p95_ms),
        quality=quality,
        context=context(),
        timestamp=now().isoformat(timespec="seconds"),
    )
    return calibration, tuple(messages)


def thread_counts(cores: int) -> tuple[int, ...]:
    """Return the powers of two up to the physical cores, and all cores; ascending, as the smaller number wins a tie."""
    return tuple(sorted({cores, *(1 << power for power in range(cores.bit_length()) if 1 << power <= cores)}))


def context() -> dict[str, str | None]:
    """Return the versions that the measurements depend on; None for a library that is not installed."""
    return {key: _version(name) for key, name in PACKAGES.items()}


def _words(candidate: Candidate) -> str:
    parts = [candidate.provider, candidate.variant]
    parts += [f"{candidate.intra_op_threads} threads"] if candidate.intra_op_threads else []
    return ", ".join(filter(None, parts))


def _version(package: str) -> str | None:
    for name in (package, f"{package}-gpu"):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None


def _steps(trial: _Trial, best: _Tried) -> _Tried:
    """Try as many denoise steps as the time allows, at most those configured, at least one."""
    if not best.stepped or best.measurement.total_ms <= best.budget_ms:
        return best
    fewer = [steps for steps in STEPS if steps < best.denoise_steps]
    fitting = [steps for steps in fewer if best.with_steps_ms(steps) <= best.budget_ms]
    if not fewer:
        return best
    return trial.of(replace(best.candidate, denoise_steps=fitting[0] if fitting else fewer[-1])) or best


def _chunk(trial: _Trial, best: _Tried) -> _Tried:
    """Try half the chunk where the whole one is too slow and half of it is not: attention may cost the square of it."""
    half = best.chunk_size // 2
    if not best.free_chunk or half < 1 or best.measurement.total_ms <= best.budget_ms:
        return best
    shorter = trial.of(replace(best.candidate, chunk_size=half))
    if shorter is None or shorter.measurement.total_ms > shorter.budget_ms:
        return best
    return shorter


class _Trial:
    """Measures every candidate once."""

    def __init__(self, load: Load, effort: Effort, at_most: int) -> None:
        """Make an empty trial. at_most: the largest number of candidates, for progress."""
        self._load, self._effort, self._at_most = load, effort, at_most
        self._tried: dict[Candidate, _Tried | None] = {}
        self._refusal = "nothing was tried"

    def first(self, candidates: Iterable[Candidate]) -> Candidate:
        """Return the first candidate that loads and runs. Raises ConfigurationError where none does."""
        for candidate in candidates:
            if self.of(candidate) is not None:
                return candidate
        raise self._none()

    def best(self, candidates: Iterable[Candidate]) -> _Tried:
        """Return the fastest; a later one must be more than 5 % faster. Raises ConfigurationError where none runs."""
        found: _Tried | None = None
        for candidate in candidates:
            tried = self.of(candidate)
            if tried is None:
                continue
            if found is None or tried.measurement.total_ms * AS_GOOD < found.measurement.total_ms:
                found = tried
        if found is None:
            raise self._none()
        return found

    def _none(self) -> ConfigurationError:
        return ConfigurationError(f"calibration found no way to run the policy: {self._refusal}")

    def of(self, candidate: Candidate) -> _Tried | None:
        """Measure one candidate; None where it does not load or does not run."""
        if candidate not in self._tried:
            self._tried[candidate] = self._measured(candidate)
        return self._tried[candidate]

    def _measured(self, candidate: Candidate) -> _Tried | None:
        report(len(self._tried) / self._at_most, "calibrating", _words(candidate))
        try:
            policy = self._load(candidate)
            measurement = measure(policy.run, self._effort)
        except (ConfigurationError, InferenceError) as error:
            self._refusal = str(error)
            log.info("calibration: %s is not usable: %s", candidate, error)
            return None
        log.info(
            "calibration: %s takes %.1f ms (p99 %.1f, quality %.2f)", candidate, measurement.total_ms,
            measurement.quality.p99_ms, measurement.quality.quality_score,
        )  # fmt: skip
        return _Tried(
            candidate, measurement, policy.denoise_steps, policy.chunk_size, policy.chunk_s, policy.stepped,
            policy.free_chunk,
        )  # fmt: skip
