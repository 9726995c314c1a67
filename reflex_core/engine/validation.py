# SPDX-License-Identifier: Apache-2.0
"""What is wrong with settings, as far as it can be known before a model is loaded: paths, syntax, combinations."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from reflex_core.calibration.cache import default_path
from reflex_core.chunks.a2c2.checkpoint import read_checkpoint
from reflex_core.engine.which_exports import chosen
from reflex_core.errors import ConfigurationError, SettingError
from reflex_core.export.export import read_description
from reflex_core.files.directories import unwritable
from reflex_core.metrics.slo import parse_slo
from reflex_core.policy.layouts import graph_files
from reflex_core.policy.providers import require_provider
from reflex_core.robot.client_units import client_units
from reflex_core.robot.limits.safety_config import load_safety_config
from reflex_core.robot.presets import load_embodiment, load_preset
from reflex_core.settings.table import Settings
from reflex_core.settings.wire_keys import key_map

Check = Callable[[Settings], None]


def require_sound(settings: Settings) -> None:
    """Raise the first ConfigurationError of the checks."""
    for check in CHECKS.values():
        check(settings)


def problems(settings: Settings, checks: Mapping[str, Check]) -> Iterator[tuple[str, ConfigurationError]]:
    """Yield (name of the check, its error) of every check that fails."""
    for name, check in checks.items():
        try:
            check(settings)
        except ConfigurationError as error:
            yield name, error


def _combinations(settings: Settings) -> None:
    chosen(settings)
    if settings.calibrate_force and not settings.auto_calibrate:
        raise SettingError("--calibrate-force measures again what --auto-calibrate chooses: give both")


def _objective(settings: Settings) -> None:
    if settings.slo:
        parse_slo(settings.slo)


def _wire_keys(settings: Settings) -> None:
    key_map(settings.wire_keys)
    client_units(settings.lerobot_units)
    for name in ("lerobot_port", "groot_port"):
        if getattr(settings, name) >= 0 and not settings.http:
            raise SettingError(f"setting '{name}': needs --http: it is served by the same process as /act")


def _exports(settings: Settings) -> None:
    for path in chosen(settings).paths:
        graph_files(read_description(path), settings.variant)


def _preset(settings: Settings) -> None:
    if settings.embodiment and not settings.custom_embodiment_config:
        load_preset(settings.embodiment, settings.lerobot_calibration)


def _embodiment(settings: Settings) -> None:
    if settings.custom_embodiment_config:
        load_embodiment(Path(settings.custom_embodiment_config), settings.lerobot_calibration)
    elif not settings.embodiment:
        for path in chosen(settings).paths:
            if (own := path / "embodiment.json").is_file():
                load_embodiment(own, settings.lerobot_calibration)


def _safety(settings: Settings) -> None:
    if settings.safety_config:
        load_safety_config(Path(settings.safety_config))


def _providers(settings: Settings) -> None:
    if not settings.allow_cpu_fallback:
        require_provider(settings.device, settings.providers)


def _correction(settings: Settings) -> None:
    if settings.a2c2_every_step and not settings.a2c2_checkpoint:
        raise SettingError(
            "setting 'a2c2_every_step': needs a head that corrects: name its file by --a2c2-checkpoint, or leave --a2c2-every-step out"
        )
    if settings.a2c2_checkpoint:
        read_checkpoint(Path(settings.a2c2_checkpoint))


def _directories(settings: Settings) -> None:
    for name, directory in written_to(settings).items():
        if why := unwritable(Path(directory)):
            raise SettingError(f"setting '{name}': {directory}: {why}")
    if settings.auto_calibrate and settings.calibration_cache:
        _calibration_file(Path(settings.calibration_cache))


def _calibration_file(cache: Path) -> None:
    try:
        there = stat.S_ISREG(cache.stat().st_mode)
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        raise SettingError(
            f"setting 'calibration_cache': {cache}: {getattr(error, 'strerror', None) or error}"
        ) from error
    if not there:
        what = "a directory" if cache.is_dir() else "no regular file"
        raise SettingError(f"setting 'calibration_cache': {cache}: is {what}, the calibration needs a file")


def written_to(settings: Settings) -> dict[str, str]:
    """Return the directories that serving would write to, by the setting that names them."""
    cache = str(Path(settings.calibration_cache or default_path()).parent) if settings.auto_calibrate else ""
    every = {
        "record": settings.record,
        "record_bag": settings.record_bag,
        "audit_log": settings.audit_log,
        "calibration_cache": cache,
    }
    return {name: directory for name, directory in every.items() if directory}


# what the values alone show, on whichever machine
VALUE_CHECKS: dict[str, Check] = {
    "combinations": _combinations,
    "objective": _objective,
    "wire keys": _wire_keys,
    "preset": _preset,
}
CHECKS: dict[str, Check] = {
    **VALUE_CHECKS,
    "exports": _exports,
    "embodiment": _embodiment,
    "safety": _safety,
    "providers": _providers,
    "correction": _correction,
    "directories": _directories,
}
