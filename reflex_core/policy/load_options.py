# SPDX-License-Identifier: Apache-2.0
"""What LoadOptions change about an export: which files, which sessions, how many steps, how long a chunk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from reflex_core.errors import ConfigurationError, ExportError
from reflex_core.export.export import Export
from reflex_core.export.families import DETERMINISTIC, Config, kind_of
from reflex_core.policy.cuda_graph import Stage, open_static
from reflex_core.policy.providers import GraphMetrics, LoadOptions, Placement
from reflex_core.policy.session import EagerSession, Session


def variants(export: Export) -> tuple[str, ...]:
    """Return the names under `variants` in reflex_config.json, in its order; () where it lists none. Raises ExportError."""
    listed = export.config.get("variants") or {}
    if not isinstance(listed, Mapping) or not all(isinstance(entry, Mapping) for entry in listed.values()):
        raise ExportError(
            f"{export.config_path}: 'variants' must be an object of objects with 'graphs', got {listed!r}"
        )
    return tuple(map(str, listed))


def varied(export: Export, config: Config, variant: str) -> Config:
    """Return the configuration with the graphs of the variant; '' is the export as it is. Raises ConfigurationError."""
    if not variant:
        return config
    names = variants(export)
    if variant not in names:
        raise ConfigurationError(
            f"{export.config_path}: there is no variant '{variant}' (it lists {', '.join(names) or 'none'})"
        )
    graphs = config.get("graphs")
    return config | {"graphs": (graphs or {}) | dict(export.config["variants"][variant].get("graphs", {}))}


def tuned(export: Export, config: Config, options: LoadOptions, sessions: Mapping[str, Session]) -> Config:
    """Return the configuration with the requested steps and chunk size. Raises ConfigurationError where it has no steps.

    A chunk size is an input of the graphs only where their action axis is free; elsewhere the chunk is cut (`fit`).
    """
    flow = config.get("flow") or {}
    if options.denoise_steps not in (0, _steps(config)):
        if why := _why_fixed_steps(config):
            raise ConfigurationError(
                f"{export.path}: denoise_steps cannot be set to {options.denoise_steps}: {why}"
            )
        config = config | {"num_denoising_steps": options.denoise_steps}
    if options.chunk_size and free_horizon(flow, sessions):
        config = config | {"chunk_size": options.chunk_size}
    return config


def _steps(config: Config) -> object:
    """Return the steps of a configuration that may be no good yet."""
    if kind_of(config) == DETERMINISTIC:
        return 1
    sampler = config.get("sampler")
    rows = sampler.get("rows") if isinstance(sampler, Mapping) else None
    return len(rows) if isinstance(rows, list) else config.get("num_denoising_steps")


def _why_fixed_steps(config: Config) -> str:
    """Return why a configuration's steps cannot be set; empty where they can."""
    if kind_of(config) == DETERMINISTIC:
        return f"a {DETERMINISTIC} policy has none"
    if config.get("sampler"):
        return "they are the rows of its sampler table, which cannot be thinned"
    return "the loop is inside its graph" if "noise" in (config.get("flow") or {}) else ""


def free_horizon(flow: Mapping[str, object], sessions: Mapping[str, Session]) -> bool:
    """Return True when the graphs take a chunk of any length."""
    start = flow.get("noise") or flow.get("x")
    shapes = [session.inputs[str(start)].shape for session in sessions.values() if start in session.inputs]
    return any(len(shape) == 3 and shape[1] is None for shape in shapes)


def open_sessions(
    files: Mapping[str, Path], placement: Placement, metrics: GraphMetrics | None
) -> dict[str, Session]:
    """Open one session per graph, by role. Raises ExportError, or ConfigurationError for a silent CPU fallback."""
    if not placement.static:
        return {role: EagerSession(path, placement) for role, path in files.items()}
    stage = Stage(metrics)
    return {role: open_static(path, placement, role, stage) for role, path in files.items()}
