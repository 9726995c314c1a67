# SPDX-License-Identifier: Apache-2.0
"""Checks of what would be served: export, robot and limits fit each other, and the network answers."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reflex_core.doctor.finding import FAIL, OK, WARN, Finding
from reflex_core.errors import ConfigurationError, EmbodimentError, ReflexError
from reflex_core.settings.table import Settings

if TYPE_CHECKING:
    from reflex_core.engine.load_remote import ConnectRemote
    from reflex_core.engine.serving_state import ServingState

# what would write files, ask other machines or measure for minutes; none of it changes whether the parts fit
QUIET = {
    "record": "", "audit_log": "", "record_bag": "", "cloud_fallback": "", "otel_endpoint": "", "auto_calibrate": False,
    "calibrate_force": False,
}  # fmt: skip
ANOTHER = "correct what the sentence names, or take another export or embodiment"


def safety(path: str) -> Finding:
    """Check that the safety configuration can be read; `policy` checks that it is this robot's."""
    from reflex_core.robot.limits.safety_config import load_safety_config

    if not path:
        return Finding("safety", OK, "no --safety-config: the joint ranges of the embodiment are the limits")
    try:
        found = load_safety_config(Path(path))
    except ConfigurationError as error:
        return Finding("safety", FAIL, str(error), "correct the file; `reflex guard init` writes a good one")
    limited = ", ".join(found.joint_names) or "no joint"
    message = f"{path}: limits of {limited}; mode {found.mode}"
    if found.notes:
        return Finding(
            "safety", WARN, "; ".join(found.notes), "leave it out, or check it where the robot is driven"
        )
    return Finding("safety", OK, message)


def policy(
    settings: Settings, drives: bool, connect_remote: ConnectRemote | None = None
) -> Iterator[Finding]:
    """Load what the settings name, match it with the robot, let it answer, and compare it with its fixture.

    drives: it is to drive a robot over ROS, and not only to answer over HTTP. connect_remote: as for an engine.
    """
    from reflex_core.doctor.parity import parity
    from reflex_core.engine.engine import Engine
    from reflex_core.robot.limits.safety_config import SafetyConfigError

    # log lines of loading are reported here; without a handler Python prints warnings on its own
    logging.getLogger("reflex_core").addHandler(logging.NullHandler())
    engine = Engine(replace(settings, **QUIET), connect_remote=connect_remote)  # type: ignore[arg-type]
    try:
        engine.load()
    except ConfigurationError as error:
        names = {EmbodimentError: "embodiment", SafetyConfigError: "safety limits"}
        name = next((name for kind, name in names.items() if isinstance(error, kind)), "policy")
        yield Finding(name, FAIL, str(error), ANOTHER)
        return
    try:
        loaded = engine.loaded
        assert loaded is not None
        yield _shapes(engine.description())
        yield from _statistics(loaded)
        yield from _unfed(loaded)
        yield _robot(loaded, settings, drives)
        yield from _tool(loaded)
        try:
            engine.warm_up()
        except ReflexError as error:
            yield Finding(
                "canary", FAIL, str(error), "the graphs load but do not run: export the policy again"
            )
            return
        yield Finding("canary", OK, f"answered twice on {loaded.policy.providers[0]}")
        for slot in loaded.slots.values():
            name = "parity" if len(loaded.slots) == 1 else f"parity {slot.name}"
            if settings.denoise_steps or settings.chunk_size or settings.variant:
                message = "not compared: steps, chunk size or variant are not the export's own"
                yield Finding(name, OK, message)
            else:
                yield replace(parity(slot.policy), name=name)
    finally:
        engine.unload()


def _shapes(config: Mapping[str, Any]) -> Finding:
    cameras = ", ".join(config["cameras"].values()) or "none"
    state = f"a state of {config['state_dim']}" if config["state_used"] else "no state"
    versions = ", ".join(slot["model_version"] for slot in config["policies"]["slots"].values())
    actions = f"{config['action_horizon']} x {len(config['action_names'])} actions"
    return Finding("policy", OK, f"{versions}: cameras {cameras}, {state} -> {actions}")


def _statistics(loaded: ServingState) -> Iterator[Finding]:
    """Yield warnings about the statistics of each policy."""
    for slot in loaded.slots.values():
        if slot.policy.statistics_notes:
            yield Finding(
                "statistics" if len(loaded.slots) == 1 else f"statistics {slot.name}",
                WARN,
                "; ".join(slot.policy.statistics_notes),
                "compare with how the policy was trained (docs/reference/normalisation.md)",
            )


def _unfed(loaded: ServingState) -> Iterator[Finding]:
    """Yield the cameras of each policy that the robot does not have."""
    for slot in loaded.slots.values():
        names = ", ".join(slot.policy.binding.unfed_cameras)
        if names:
            yield Finding(
                "cameras" if len(loaded.slots) == 1 else f"cameras {slot.name}",
                WARN,
                f"no camera of the robot feeds {names}: masked in every chunk, as if covered",
                "name them under `cameras` of the embodiment if the robot has them; else take an export without them",
            )


def _tool(loaded: ServingState) -> Iterator[Finding]:
    """Yield what is checked of tool and bodies, and what is not."""
    from reflex_core.robot.limits.tool_limits import described, unchecked

    limits, missing = loaded.guard.limits, unchecked(loaded.embodiment)
    if limits is not None and limits.tool is not None:
        yield Finding("tool", OK, "; ".join(described(limits.tool)))
    if missing:
        yield Finding("not checked", OK, f"{missing} (docs/reference/kinematics.md)")


def _robot(loaded: ServingState, settings: Settings, drives: bool) -> Finding:
    """Check what the node checks: an undrivable policy answers requests, unless the settings require more than that."""
    from reflex_core.engine.preflight import is_embedded_by_omission, require_requests_suffice, why_undrivable

    name = "--embodiment NAME or --custom-embodiment-config FILE"
    why = why_undrivable(loaded, settings) if drives else ""
    if why:
        do = "name an export, or `demo`" if is_embedded_by_omission(settings) else name
        try:
            require_requests_suffice(settings, why)
        except ConfigurationError as error:
            return Finding("embodiment", FAIL, str(error), f"{do}; or --no-ros, which drives no robot")
        return Finding("embodiment", WARN, f"{why}; requests over HTTP are answered", do)
    if loaded.embodiment is None:
        message = "none: actions are served raw and joint ranges are not checked"
        return Finding("embodiment", WARN, message, name)
    return Finding(
        "embodiment", OK, f"{loaded.embodiment.name}: {', '.join(loaded.policy.binding.action_names)}"
    )
