# SPDX-License-Identifier: Apache-2.0
"""Whether an export's denoise loop may stop early, and at what threshold (docs/explanation/adaptive-steps.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from reflex_core.errors import ConfigurationError
from reflex_core.export.contract import Contract
from reflex_core.export.export import Export
from reflex_core.export.flow import Adaptive

FLAG = "--adaptive-steps"
FEWEST_STEPS = 3  # convergence shows after two
UNCALIBRATED = Adaptive(0.0, min_steps=3)  # what a threshold of the user's own is joined with


def require_adaptive(
    export: Export, contract: Contract, unable: str, threshold: float = 0.0, *, fresh: bool = True
) -> Adaptive:
    """Return when to stop early.

    Args:
        export: What `open_export` read.
        contract: Its contract.
        unable: Why its loop cannot be left early, empty where it can.
        threshold: The user's own; 0 takes the export's.
        fresh: Refuse one that was measured on another model_hash or at coarser steps.

    Raises:
        ConfigurationError: The loop cannot be left early, or there is no threshold.
    """
    require_stepped(export, contract, unable)
    block = contract.adaptive
    if threshold > 0:
        known = block or UNCALIBRATED
        return Adaptive(threshold, known.min_steps, known.patience)
    if block is None:
        raise ConfigurationError(
            f"{FLAG}: {export.path} brings no adaptive threshold: run `reflex calibrate-adaptive {export.path} --write`",
            "adaptive-uncalibrated",
        )
    if fresh:
        _require_fresh(export, contract)
    return block


def require_stepped(export: Export, contract: Contract, unable: str) -> None:
    """Raise ConfigurationError where the loop cannot be left early; unable: why, or empty."""
    if unable:
        few = "adaptive-too-few-steps" if contract.flow.steps < FEWEST_STEPS else "adaptive-unable"
        slug = "adaptive-baked" if contract.fused else few
        raise ConfigurationError(f"{FLAG}: {export.path}: {unable}; leave the flag out", slug)


def _require_fresh(export: Export, contract: Contract) -> None:
    """Raise where the threshold was measured on other weights, or at coarser steps.

    Finer steps change the velocity less from one to the next, so they would be left too early; coarser ones later.
    """
    measured = (export.config.get("adaptive") or {}).get("measured") or {}
    weights, steps = measured.get("model_hash"), measured.get("denoise_steps")
    again = f"run `reflex calibrate-adaptive {export.path} --write` again"
    if weights is not None and weights != export.model_hash:
        raise ConfigurationError(
            f"{FLAG}: the adaptive threshold of {export.path} {export.why_stale(str(weights))}: {again}",
            "adaptive-stale",
        )
    if isinstance(steps, int) and steps < contract.flow.steps:
        raise ConfigurationError(
            f"{FLAG}: the adaptive threshold of {export.path} was measured at {steps} denoise steps, which does not hold"
            f" for {contract.flow.steps}: {again}",
            "adaptive-stale",
        )


def adaptive_block(adaptive: Adaptive, measured: Mapping[str, Any]) -> dict[str, Any]:
    """Return the block 'adaptive' of reflex_config.json."""
    return {**asdict(adaptive), "measured": dict(measured)}
