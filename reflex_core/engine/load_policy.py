# SPDX-License-Identifier: Apache-2.0
"""From settings to a loaded policy: the export, the robot it is for, and where and how it runs."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from reflex_core.calibration.auto import auto_calibrate
from reflex_core.calibration.cache import cold_start_ms, default_path, key_of, resolve, store_latency
from reflex_core.calibration.latency_tracker import LatencyTracker
from reflex_core.concurrency.progress import report
from reflex_core.concurrency.time_limit import OverTimeError, within
from reflex_core.engine.load_remote import ConnectRemote, load_remote
from reflex_core.engine.which_exports import is_address
from reflex_core.errors import SettingError
from reflex_core.export.export import Export, open_export
from reflex_core.files.share import EMBEDDED, export_path
from reflex_core.metrics.metrics import BatchFigures, CudaGraphMetrics, Metrics
from reflex_core.policy.base import Policy, reads_state
from reflex_core.policy.engine_cache import TensorRT
from reflex_core.policy.load import load_policy
from reflex_core.policy.providers import LoadOptions
from reflex_core.policy.remote_contract import require_robot
from reflex_core.robot.embodiment import Embodiment
from reflex_core.robot.presets import load_embodiment, load_preset
from reflex_core.settings.table import TABLE, Settings

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LoadedPolicy:
    """A policy as it was loaded.

    first_latency_s: expected latency before the first chunk. tracker: learns it for the next start.
    settings: with what --auto-calibrate chose where the user gave no other value.
    """

    policy: Policy
    settings: Settings
    first_latency_s: float
    tracker: LatencyTracker | None
    close: Callable[[], None] = lambda: None


def load(settings: Settings, metrics: Metrics, connect: ConnectRemote | None = None) -> LoadedPolicy:
    """Read the export, choose how to run it, and load it; or connect to the server that runs it.

    connect: to the server of a URL in place of an export; None where there is no way to.
    Raises ConfigurationError, also where it takes longer than the setting load_timeout_s.
    """
    if is_address(settings.export_dir):
        return _connected(settings, metrics, connect)
    try:
        return within(settings.load_timeout_s, lambda: _load(settings, metrics), "load")
    except OverTimeError as error:
        raise SettingError(
            f"{export_path(settings.export_dir)}: not loaded within {settings.load_timeout_s:g} s: look whether its disk and"
            " device answer, or give it more time with load_timeout_s (0: no limit)",
            "load-timeout",
        ) from error


def _connected(settings: Settings, metrics: Metrics, connect: ConnectRemote | None) -> LoadedPolicy:
    """Return the policy that the server of `export_dir` runs."""
    if connect is None:
        raise SettingError(f"{settings.export_dir}: this program has no connection to other servers")
    if settings.max_batch > 1:
        raise SettingError(
            f"{settings.export_dir}: --max-batch is its server's own setting: leave it out here"
        )
    robot = require_robot(robot_of(settings))
    policy = load_remote(settings, robot, connect, metrics)
    _log_load(policy)
    return LoadedPolicy(policy, settings, cold_start_ms(robot.name) * 1e-3, None, policy.close)


def _load(settings: Settings, metrics: Metrics) -> LoadedPolicy:
    if settings.calibrate_force and not settings.auto_calibrate:
        raise SettingError("--calibrate-force measures again what --auto-calibrate chooses: give both")
    path = export_path(settings.export_dir)
    named = settings.export_dir
    if named in EMBEDDED and Path(named).is_dir():
        log.warning("'%s' is the embedded policy; the directory of that name is ./%s", named, named)
    report(0.0, "loading", f"the files of {path}")
    export = open_export(path)
    embodiment = embodiment_of(settings, path)
    name = embodiment.name if embodiment else "none"
    first_ms, keep = cold_start_ms(name), None
    if settings.auto_calibrate:
        settings, first_ms, keep = _calibrated(settings, export, embodiment)
    options = LoadOptions(
        providers=settings.providers,
        allow_cpu_fallback=settings.allow_cpu_fallback,
        cuda_graphs=settings.cuda_graphs,
        graph_metrics=CudaGraphMetrics(metrics, name, export.model_id),
        variant=settings.variant,
        denoise_steps=settings.denoise_steps,
        chunk_size=settings.chunk_size,
        pass_constant_state=settings.constant_state == "pass",
        tensorrt=tensorrt_of(
            settings, lambda state: metrics.tensorrt_engines.labels(export.model_id, state).inc()
        ),
        max_batch=settings.max_batch,
        batch_metrics=BatchFigures(metrics, name, export.model_id),
    )
    report(0.5, "loading", f"the graphs of {export.model_version}")
    policy = load_policy(
        export, embodiment, settings.device, settings.intra_op_threads, settings.joint_names, options
    )
    if policy.fell_back:
        metrics.provider_fallbacks.labels(export.model_id).inc()
    _log_load(policy)
    report(1.0, "loading")
    return LoadedPolicy(policy, settings, first_ms * 1e-3, LatencyTracker(first_ms, keep) if keep else None)


def _calibrated(
    settings: Settings, export: Export, embodiment: Embodiment | None
) -> tuple[Settings, float, Callable[[float], None]]:
    """Return the calibrated settings where the user gave none, the latency to expect, and where to store a better one."""
    path = Path(settings.calibration_cache) if settings.calibration_cache else default_path()
    calibration, messages = auto_calibrate(
        export,
        embodiment,
        settings.joint_names,
        path=path,
        force=settings.calibrate_force,
        tensorrt=tensorrt_of(settings),
    )
    given = {row.name for row in TABLE if getattr(settings, row.name) != row.default}
    used, overrides = resolve(dataclasses.asdict(settings), given, calibration)
    for sentence in (*messages, *overrides):
        log.info("calibration: %s", sentence)
    key = key_of(embodiment.name if embodiment else "", export.model_hash)
    chosen = dataclasses.replace(settings, **used)  # type: ignore[arg-type]
    return chosen, calibration.latency_compensation_ms, partial(store_latency, path, key)


def tensorrt_of(settings: Settings, count: Callable[[str], None] | None = None) -> TensorRT:
    """Return what the settings say about TensorRT. count: called at each load with whether its engines are there."""
    return TensorRT(settings.tensorrt_fp16, settings.tensorrt_engine_dir, settings.tensorrt_engines, count)


def embodiment_of(settings: Settings, export_path: Path) -> Embodiment | None:
    """Return the robot that the settings name, else the export's own; None where there is none. Raises ConfigurationError."""
    if (named := robot_of(settings)) is not None:
        return named
    own = export_path / "embodiment.json"
    # what is there and no file is refused there: without its ranges a robot would be driven unguarded
    if not own.exists():
        if settings.lerobot_calibration:
            raise SettingError(
                "setting 'lerobot_calibration': must be left out where no embodiment says what the arm's joints are, got"
                f" {settings.lerobot_calibration}"
            )
        return None
    return load_embodiment(own, settings.lerobot_calibration)


def robot_of(settings: Settings) -> Embodiment | None:
    """Return the robot that the settings name, None where they name none. Raises ConfigurationError."""
    if settings.custom_embodiment_config:
        if settings.embodiment:
            log.warning("--custom-embodiment-config overrides --embodiment %s", settings.embodiment)
        return load_embodiment(Path(settings.custom_embodiment_config), settings.lerobot_calibration)
    if settings.embodiment:
        return load_preset(settings.embodiment, settings.lerobot_calibration)
    return None


def _log_load(policy: Policy) -> None:
    embodiment, path = policy.binding.embodiment, policy.export.where
    log.info(
        "loaded %s on %s for embodiment %s; cameras %s",
        policy.export.model_version, ", ".join(policy.providers),
        embodiment.name if embodiment else "none (raw actions, no joint ranges)", dict(policy.binding.cameras),
    )  # fmt: skip
    for note in policy.notes:
        log.warning("%s: %s", path, note)
    if not reads_state(policy):
        log.warning("%s: this policy does not read the robot state", path)
    if policy.binding.action_statistics is None and policy.binding.tool is None and not policy.export.address:
        log.warning("%s: no statistics: actions are served without un-normalisation", path)
