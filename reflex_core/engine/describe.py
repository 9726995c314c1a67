# SPDX-License-Identifier: Apache-2.0
"""Describe what is loaded: for /config, /policies and the diagnostics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from reflex_core.engine.serving_state import PolicySlot, ServingState
from reflex_core.export.binding import Binding
from reflex_core.policy.base import Policy, reads_state
from reflex_core.policy.remote import RemotePolicy
from reflex_core.robot.limits.tool_limits import unchecked


def effective(loaded: ServingState) -> dict[str, Any]:
    """Return the values really in effect; of two policies the shared ones, and the first one's own."""
    policy, cache = loaded.policy, loaded.first.cache
    return {
        "model_version": policy.export.model_version,
        "config_hash": policy.export.config_hash,
        "inference_mode": policy.inference_mode,
        "kind": policy.kind,
        "cannot": policy.capabilities.lacking(),
        "active_providers": list(policy.providers),
        "remote": _remote(policy),
        "embodiment": loaded.embodiment.name if loaded.embodiment else None,
        "action_names": list(policy.binding.action_names),
        "state_names": list(policy.binding.state_names),
        "state_dim": policy.binding.state_dim,
        "cameras": dict(policy.binding.cameras),
        "unfed_cameras": list(policy.binding.unfed_cameras),
        "action_horizon": policy.binding.horizon,
        "n_action_steps": policy.contract.n_action_steps,
        "execution_horizon": loaded.first.settings.execution_horizon or loaded.execution_horizon,
        "dt_s": policy.binding.dt_s,
        "actions_denormalised": _denormalised(policy.binding),
        "normalization": {
            "state": policy.export.normalization.state_mode or None,
            "action": policy.export.normalization.action_mode or None,
        },
        **_counting(policy),
        "state_used": reads_state(policy),
        "instruction_used": policy.contract.language is not None,
        "observation_steps": policy.contract.observation_steps,
        "batch": list(policy.contract.batch),
        "batching": None if policy.batching is None else asdict(policy.batching),
        "notes": list(policy.notes),
        "not_checked": unchecked(loaded.embodiment),
        "wedges": list(loaded.wedges),
        "slo": _slo(loaded),
        "rtc": _rtc(loaded.first),
        "temporal_ensemble": _ensemble(loaded.first),
        "prefix_cache": None if cache is None else dict(cache.counts),
        "motion": loaded.motion.figures().document(),
    }


def groups(loaded: ServingState, output: str, addresses: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the groups of the robot: their joints, in the order of the actions, and which robot interface commands them where.

    output: of groups that name none. addresses: the topic or action of each group, by its name; without one it is None.
    """
    binding = loaded.policy.binding
    return [
        {
            "name": group.name,
            "joints": [binding.action_names[column] for column in group.columns],
            "output": group.output or output,
            "address": addresses.get(group.name),
        }
        for group in binding.groups
    ]


def _remote(policy: Policy) -> dict[str, Any] | None:
    """Return where a policy runs that another server serves, and whether it answers; None for one that runs here."""
    if not isinstance(policy, RemotePolicy):
        return None
    return {"url": policy.url, "dialect": policy.dialect, "reachable": policy.reachable}


def _counting(policy: Policy) -> dict[str, Any]:
    """Return how a policy counts its actions and its state, before they become rad and m."""
    return {
        "relative_actions": _relative(policy.binding),
        "action_modes": action_modes(policy),
        "tool": _tool(policy.binding),
        "policy_units": _units(policy.binding),
    }


def _relative(binding: Binding) -> list[str]:
    """Return the actions that the network gives as offsets from the state."""
    if binding.relative is None:
        return []
    starts = binding.relative.state_columns.tolist()
    return [name for name, start in zip(binding.action_names, starts, strict=True) if start >= 0]


def _denormalised(binding: Binding) -> bool:
    return (binding.action_statistics if binding.tool is None else binding.tool.statistics) is not None


def _tool(binding: Binding) -> dict[str, Any] | None:
    """Return which tool's pose the network gives, and how; None where it gives none."""
    if binding.tool is None:
        return None
    space = binding.tool.space
    return {"link": binding.tool.link, "mode": space.mode, "frame": space.frame, "rotation": space.rotation}


def action_modes(policy: Policy) -> dict[str, str]:
    """Return how the export itself says that it counts each action, where it does, by the robot's names."""
    space, binding = policy.contract.action_space, policy.binding
    if not space or binding.tool is not None:
        return {}
    modes = {
        name: space[column].mode
        for name, column in zip(binding.action_names, binding.columns.tolist(), strict=True)
    }
    return {name: mode for name, mode in modes.items() if mode}


def _units(binding: Binding) -> dict[str, list[str]] | None:
    """Return what the policy counts in, where that is not rad and m: of each action and of each number of the state."""
    units = binding.units
    return None if units is None else {"action": list(units.action_units), "state": list(units.state_units)}


def _slo(loaded: ServingState) -> dict[str, Any] | None:
    """Return the objective, and what is done while it is missed, with `auto` resolved; None without one."""
    admission = loaded.admission
    if admission.window is None:
        return None
    slo = admission.window.slo
    return {"objective": f"{slo.name}={slo.threshold_ms:g}ms", "mode": admission.mode}


def policies(loaded: ServingState) -> dict[str, Any]:
    """Describe every slot, and where there are two the split, its history and the monitor."""
    tally = loaded.outcomes.tally()
    slots = {
        name: slot.document()
        | _counting(slot.policy)
        | dict(zip(("successes", "episodes"), tally.get(name, (0, 0)), strict=True))
        for name, slot in loaded.slots.items()
    }
    document = {
        "mode": "single" if loaded.pair is None else "two",
        "verdict": loaded.verdict,
        "slots": slots,
        "shadow": _shadow(loaded),
    }
    return document | (loaded.pair.document() if loaded.pair is not None else {})


def _rtc(slot: PolicySlot) -> dict[str, Any] | None:
    """Return the mode really in effect, why it is off where it cannot work, and how many chunks it guided."""
    rtc = slot.rtc
    return None if rtc is None else {"mode": rtc.mode, "note": rtc.note, **rtc.counts}


def _ensemble(slot: PolicySlot) -> dict[str, Any] | None:
    """Return the weights' coefficient, and how many chunks went on with a mean or began one, by reason."""
    ensemble = slot.ensemble
    return None if ensemble is None else {"coefficient": ensemble.coefficient, **ensemble.counts}


def _shadow(loaded: ServingState) -> dict[str, Any] | None:
    shadow, policy = loaded.shadow, loaded.shadow_policy
    if shadow is None or policy is None:
        return None
    return {
        "model_version": policy.export.model_version,
        "compared": shadow.compared,
        "dropped": shadow.dropped,
        "failed": shadow.failed,
    }
