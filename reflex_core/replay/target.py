# SPDX-License-Identifier: Apache-2.0
"""The policy that recorded requests are run against, loaded as the recorded one was."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from reflex_core.engine.load_policy import load
from reflex_core.errors import ConfigurationError
from reflex_core.export.earlier import changes
from reflex_core.export.export import open_export
from reflex_core.export.flow import Adaptive
from reflex_core.files.json_fields import is_number, is_whole
from reflex_core.metrics.metrics import Metrics
from reflex_core.policy.base import Policy
from reflex_core.policy.remote import KIND as REMOTE
from reflex_core.policy.sampler import Sampling
from reflex_core.records.trace.parse import Recorded
from reflex_core.replay.carry_over import CarryOver
from reflex_core.replay.comparison import Replayed
from reflex_core.replay.recorded_images import ImageFiles, frames_of, history_of
from reflex_core.robot.presets import preset_names
from reflex_core.settings.table import settings_from
from reflex_core.values import Floats, Observation

NO_EMBODIMENT = "none"
_SERVER = re.compile(r"(https?|wss?):/")  # as a path has it, one slash is left
FALLBACK_SEED = 0  # for requests whose seed was not recorded
ROBOT_SETTINGS = ("embodiment", "custom_embodiment_config", "lerobot_calibration", "joint_names")
BEFORE = "the trace was recorded by the first version, which preprocessed observations differently"
MODEL_SETTINGS = ("variant", "denoise_steps", "chunk_size", "intra_op_threads")


@dataclass(frozen=True, slots=True)
class Wanted:
    """The caller's choices for a target; empty: as recorded. embodiment `none`: the export's own, if it has one.

    seed: the start noise of every request, None for the recorded one.
    """

    export_dir: Path
    device: str = "auto"
    embodiment: str = ""
    embodiment_file: str = ""
    seed: int | None = None
    images: ImageFiles | None = None


@dataclass(frozen=True, slots=True)
class PolicyTarget:
    """One loaded policy as a replay's target. notes: what about it differs from the recorded one."""

    policy: Policy
    wanted: Wanted
    same_model: bool
    adaptive: Adaptive | None
    carry_over: CarryOver
    notes: tuple[str, ...] = ()

    @property
    def needs_images(self) -> bool:
        """True when its answers depend on images."""
        return bool(self.policy.contract.images)

    def replay(self, record: Recorded) -> Replayed:
        """Run one record. Raises TraceError without its images, ObservationError or InferenceError."""
        policy = self.policy
        cameras = tuple(policy.binding.cameras.values())
        first = cameras[0] if cameras else ""
        frames = frames_of(record, self.wanted.images, first) if self.needs_images else {}
        history = (
            history_of(record, self.wanted.images, images=self.needs_images)
            if policy.contract.observation_steps > 1
            else ()
        )
        observation = Observation(frames, record.state, record.instruction, record.stamp_ns, history=history)
        seed = record.seed if self.wanted.seed is None else self.wanted.seed
        sampling = replace(self.sampling(record), guidance=self.carry_over.guidance(record))
        self.carry_over.at(record)
        began = time.perf_counter()
        made = policy.predict(
            observation, FALLBACK_SEED if seed is None else seed, sampling, None, record.episode_id,
            self.carry_over.cache,
        )  # fmt: skip
        total_ms = (time.perf_counter() - began) * 1e3
        self.carry_over.keep(record, made.normalised)
        actions = self.carry_over.averaged(record, made)
        actions, names = in_order(actions, policy.binding.action_names, record.names)
        return Replayed(actions, names, made.denoise_steps, total_ms, made.stages_ms, made.cache.status)

    def sampling(self, record: Recorded) -> Sampling:
        """Return how the recorded chunk was sampled; a loop inside the graph has no choice and ignores it."""
        block = record.document.get("denoise") or {}
        adaptive = bool(block.get("adaptive"))
        configured = block.get("steps_configured")
        steps = record.max_steps
        if steps is None and self.same_model:
            steps = configured if adaptive else record.denoise_steps
        elif steps is None and not adaptive and record.denoise_steps != configured:
            steps = record.denoise_steps  # a service that was degraded took fewer
        return Sampling(steps if is_whole(steps, 1) else None, self._adaptive(block) if adaptive else None)

    def _adaptive(self, block: Mapping[str, Any]) -> Adaptive | None:
        """Return the early stop with this record's threshold: it may change while serving."""
        threshold = block.get("threshold")
        if self.adaptive is None or not is_number(threshold) or threshold <= 0:
            return self.adaptive
        return replace(self.adaptive, threshold=float(threshold))


def in_order(
    actions: Floats, names: tuple[str, ...], recorded: tuple[str, ...]
) -> tuple[Floats, tuple[str, ...]]:
    """Return the columns in the recorded order where both sides name the same joints; else as they are."""
    if names == recorded or sorted(names) != sorted(recorded) or len(set(names)) != len(names):
        return actions, names
    return np.ascontiguousarray(actions[:, [names.index(name) for name in recorded]]), recorded


def load_target(wanted: Wanted, header: Mapping[str, Any], hashes: tuple[str, str]) -> PolicyTarget:
    """Load and warm up an export for the robot, and with the settings, of the trace.

    hashes: model_hash and config_hash of what was recorded; empty where unknown. Settings that belong to the recorded weights (variant, steps,
    chunk size) are taken over for those weights only. Raises ConfigurationError.
    """
    if _SERVER.match(str(wanted.export_dir)):
        raise ConfigurationError(
            f"{wanted.export_dir}: another server made the chunks of this trace, and its policy cannot be run again here: name an export"
            " with --model to compare with, or look at what was recorded with --no-replay"
        )
    export = open_export(wanted.export_dir)
    same = export.has_weights_of(hashes[0])
    kept = header.get("settings")
    recorded: Mapping[str, Any] = kept if isinstance(kept, dict) else {}
    values: dict[str, Any] = {"export_dir": str(wanted.export_dir), "device": wanted.device}
    values |= _robot(wanted, header, recorded)
    if same:
        values |= {name: recorded[name] for name in MODEL_SETTINGS if name in recorded}
    try:
        policy = load(settings_from(values), Metrics()).policy
        _warm_up(policy)
    except ConfigurationError:
        raise
    except Exception as error:  # onnxruntime has errors of its own, and a replay must end in a sentence
        raise ConfigurationError(f"{wanted.export_dir}: {type(error).__name__}: {error}") from error
    adaptive, notes = _adaptive(policy, recorded, same)
    carry_over = CarryOver(policy, recorded, same)
    notes = (*differences(policy, header, *hashes), *notes, *carry_over.notes)
    return PolicyTarget(policy, wanted, same, adaptive, carry_over, notes)


def _warm_up(policy: Policy) -> None:
    """Warm up as in service: the first runs allocate, and would be the only slow ones."""
    for seed in (0, 1):
        policy.predict(policy.canary(), seed)


def _robot(wanted: Wanted, header: Mapping[str, Any], recorded: Mapping[str, Any]) -> dict[str, Any]:
    if wanted.embodiment_file:
        return {"custom_embodiment_config": wanted.embodiment_file}
    if wanted.embodiment:
        return {} if wanted.embodiment == NO_EMBODIMENT else {"embodiment": wanted.embodiment}
    if not recorded:  # another writer's trace: its header names the robot at most
        name = header.get("embodiment")
        return {"embodiment": name} if name in preset_names() else {}
    values = {name: recorded[name] for name in ROBOT_SETTINGS if recorded.get(name)}
    file = values.get("custom_embodiment_config")
    if isinstance(file, str) and not Path(file).is_file():
        raise ConfigurationError(
            f"the trace was recorded with the embodiment file {file}, which is not here: name it with"
            " --custom-embodiment-config"
        )
    return values


def _adaptive(
    policy: Policy, recorded: Mapping[str, Any], same: bool
) -> tuple[Adaptive | None, tuple[str, ...]]:
    if not recorded.get("adaptive_steps"):
        return None, ()
    try:
        threshold = float(recorded.get("adaptive_threshold") or 0.0)
        # what was served with these weights is repeated, whatever it was measured on
        return policy.adaptive(threshold, fresh=not same), ()
    except (ConfigurationError, ValueError, TypeError) as error:
        return None, (f"it was recorded with adaptive steps; this replay takes all of them: {error}",)


def differences(
    policy: Policy, header: Mapping[str, Any], model_hash: str, config_hash: str
) -> tuple[str, ...]:
    """Return sentences about what is not as it was recorded."""
    export, notes = policy.export, []
    if header.get("model_type") == REMOTE:
        notes.append(
            f"the recorded chunks were made by the server {header.get('export_dir')!r:.200}, which cannot be run again here: they are"
            " compared with those of another policy"
        )
    if not model_hash:
        notes.append("the trace does not name the hash of the recorded model")
    elif not export.has_weights_of(model_hash):
        notes.append(f"model_hash mismatch: recorded {model_hash}, {export.path} has {export.model_hash}")
    elif config_hash not in ("", export.config_hash):
        notes.append(f"config_hash mismatch: recorded {config_hash}, {export.path} has {export.config_hash}")
    if model_hash == export.weights_hash != export.model_hash:
        notes.append(
            f"the recorded model_hash {model_hash} covers only the weights, as the first version wrote it: the weights are the"
            " same here; tokenizer, statistics and processors may differ"
        )
    # `settings` is in the traces of this program alone
    if (
        "settings" in header
        and "preprocessing" not in header
        and (others := changes(export, policy.contract))
    ):
        notes.append(f"{BEFORE}: {'; '.join(others)}")
    steps, kept = policy.contract.observation_steps, header.get("observation_steps", 1)
    if is_number(kept) and steps > kept:
        notes.append(
            f"recorded with {kept} observations a request, this policy sees {steps}: copies of the oldest recorded one stand"
            " for those before it"
        )
    providers = header.get("providers") or []
    if isinstance(providers, list) and providers and tuple(providers) != tuple(policy.providers):
        notes.append(
            f"recorded on {', '.join(map(str, providers))}, replayed on {', '.join(policy.providers)}:"
            " actions need not be the same to the bit"
        )
    return tuple(notes)
