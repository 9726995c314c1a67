# SPDX-License-Identifier: Apache-2.0
"""`--auto-calibrate`: read this machine's, robot's and export's entry from the cache, or measure and store it."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

import onnxruntime as ort

from reflex_core.calibration import cache as kept
from reflex_core.calibration.cache import Calibration
from reflex_core.calibration.choice import Candidate, calibrate
from reflex_core.calibration.fingerprint import Fingerprint, physical_cores, this_machine
from reflex_core.calibration.measure import USUAL, Effort, Run
from reflex_core.errors import ConfigurationError
from reflex_core.export.export import Export
from reflex_core.policy.base import Policy
from reflex_core.policy.engine_cache import BUILD, PLAIN_TENSORRT, TensorRT
from reflex_core.policy.load import load_policy
from reflex_core.policy.load_options import variants
from reflex_core.policy.providers import LoadOptions
from reflex_core.robot.embodiment import Embodiment

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PolicyUnderTest:
    """A loaded policy as calibration sees it."""

    policy: Policy

    @property
    def denoise_steps(self) -> int:
        """Those of its loop."""
        return self.policy.contract.flow.steps

    @property
    def chunk_size(self) -> int:
        """Rows that its graphs make."""
        return self.policy.contract.horizon

    @property
    def chunk_s(self) -> float:
        """How long the rows that are served last."""
        return self.policy.binding.horizon * self.policy.binding.dt_s

    @property
    def stepped(self) -> bool:
        """False where it takes no other number of steps."""
        return not self.policy.capabilities.fewer_steps

    @property
    def free_chunk(self) -> bool:
        """True where the graphs take a chunk of any length."""
        return self.policy.free_horizon

    def run(self) -> Run:
        """Run one inference on a plain observation; time spent waiting for the lock does not count."""
        stages = self.policy.predict(self.policy.canary(), seed=0).stages_ms
        total_ms = sum(taken for name, taken in stages.items() if name != "queue_ms")
        return Run(total_ms, stages["expert_denoise_ms"])


def auto_calibrate(
    export: Export,
    embodiment: Embodiment | None,
    joint_names: tuple[str, ...] = (),
    *,
    path: Path | None = None,
    force: bool = False,
    effort: Effort = USUAL,
    machine: Fingerprint | None = None,
    now: datetime | None = None,
    tensorrt: TensorRT = PLAIN_TENSORRT,
) -> tuple[Calibration, tuple[str, ...]]:
    """Return the calibration to serve with and messages for the log; measured where the cache has none.

    Measuring takes seconds to minutes, the cache makes it a look-up. It builds and keeps the engines of TensorRT where
    onnxruntime has that provider, whatever `tensorrt` says about missing ones.

    Raises:
        ConfigurationError: The cache cannot be written, or the policy cannot be run at all.
    """
    path, machine = path or kept.default_path(), machine or this_machine()
    now = now or datetime.now(timezone.utc)
    name = embodiment.name if embodiment else ""
    key = kept.key_of(name, export.model_hash)
    kept.require_writable(path)
    taken = not force and _taken_over(path, key, kept.key_of(name, export.weights_hash), machine, now)
    found, reason = kept.look_up(path, key, machine, now)
    if found is not None and not force:
        where = f"{path}, where its model_hash covered only the weights" if taken else f"{path}"
        return found, (f"calibration of {found.timestamp} taken from {where}",)
    log.warning(
        "calibrating %s: %s", export.model_version, "forced by --calibrate-force" if force else reason
    )

    def load(candidate: Candidate) -> PolicyUnderTest:
        options = LoadOptions(
            providers=(candidate.provider,),
            variant=candidate.variant,
            denoise_steps=candidate.denoise_steps,
            chunk_size=candidate.chunk_size,
            tensorrt=replace(tensorrt, when_missing=BUILD),
        )
        threads = candidate.intra_op_threads
        return PolicyUnderTest(load_policy(export, embodiment, "auto", threads, joint_names, options))

    made, sentences = calibrate(
        load,
        variants=variants(export),
        providers=ort.get_available_providers(),
        cores=physical_cores(),
        compensation_ms=kept.cold_start_ms(name),
        effort=effort,
        now=lambda: now,
    )
    try:
        kept.store(path, key, made, machine)
    except OSError as error:
        raise _not_kept(path, error) from error
    return made, (f"measured {made.quality.measurement_iters} runs, kept in {path}", *sentences)


def _taken_over(path: Path, key: str, earlier_key: str, machine: Fingerprint, now: datetime) -> bool:
    try:
        return kept.take_over(path, key, earlier_key, machine, now)
    except OSError as error:
        raise _not_kept(path, error) from error


def _not_kept(path: Path, error: OSError) -> ConfigurationError:
    return ConfigurationError(
        f"{path}: the calibration cannot be kept there: {error.strerror or error}", "calibration-not-writable"
    )
