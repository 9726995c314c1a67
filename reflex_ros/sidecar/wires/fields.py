# SPDX-License-Identifier: Apache-2.0
"""Check the fields of a request, the same way on every wire. Lax where nothing is ambiguous, else an error."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from reflex_core.errors import ObservationError
from reflex_core.files.json_fields import is_number, is_whole
from reflex_core.metrics.episodes import ID_CHARACTERS, usable_id
from reflex_core.robot.callers import require_robot_id
from reflex_core.text.untrusted import shown
from reflex_core.values import Floats, Frame, Observation
from reflex_ros.sidecar.ignored_fields import IgnoredFields
from reflex_ros.sidecar.wires.wire import DecodedRequest, Readable

INSTRUCTION_CHARACTERS = 10_000
STATE_NUMBERS = 4096
OTHER_NAMES = (
    "prompt",
    "task",
    "text",
    "command",
    "goal",
    "language",
    "language_instruction",
    "task_description",
)
SEED_LIMIT = 2**63
MOST_ROWS = 100_000

Document = Mapping[str, Any]


def request_id(fields: Document) -> str | None:
    """Return the client's own id for this request, None where it gave none. Raises ObservationError."""
    return _identifier(fields, "request_id")


def decode_fields(
    fields: Document, frames: Mapping[str, Frame], readable: Readable, ignored: IgnoredFields
) -> DecodedRequest:
    """Return the request that these fields and pictures make.

    fields: plain values by name, as JSON has them. Raises ObservationError naming the field, what it takes and what it got.
    """
    return DecodedRequest(
        observation=Observation(
            frames=frames,
            state=_state(fields.get("state")),
            instruction=_instruction(fields.get("instruction", "")),
        ),
        episode_id=_identifier(fields, "episode_id"),
        request_id=request_id(fields),
        seed=_seed(fields.get("seed")),
        robot_id=_robot_id(fields, readable.reserved),
        elapsed_rows=_elapsed_rows(fields.get("elapsed_rows")),
        previous_request_id=_identifier(fields, "previous_request_id") or "",
        names=tuple(fields),
        ignored=ignored,
    )


def _instruction(value: object) -> str:
    if not isinstance(value, str):
        raise ObservationError(f"'instruction' must be a string, got {shown(value)}", "bad-instruction")
    if len(value) > INSTRUCTION_CHARACTERS:
        raise ObservationError(
            f"'instruction' must have at most {INSTRUCTION_CHARACTERS} characters, got {len(value)}",
            "bad-instruction",
        )
    return value


def misnamed_instruction(fields: Iterable[str]) -> str:
    """Return a hint for a request with its instruction under another name; "" where there is no such field."""
    for key in fields:
        plain = key.casefold().strip(" _-")
        if key != "instruction" and (plain in OTHER_NAMES or plain.rstrip("s") == "instruction"):
            return f"; this request has {shown(key)}"
    return ""


def _identifier(fields: Document, field: str) -> str | None:
    value = fields.get(field)
    if value is None or value == "":
        return None
    if not isinstance(value, str) or not usable_id(value):
        raise ObservationError(
            f"'{field}' must be a string of at most {ID_CHARACTERS} printable characters, got {shown(value)}",
            f"bad-{field.replace('_', '-')}",
        )
    return value


def _robot_id(fields: Document, reserved: str) -> str | None:
    name = _identifier(fields, "robot_id")
    if name is not None:
        require_robot_id(name, reserved)
    return name


def _seed(value: object) -> int | None:
    if value is None:
        return None
    if not is_whole(value, 0, SEED_LIMIT - 1):
        raise ObservationError(f"'seed' must be an integer in 0 to 2^63 - 1, got {shown(value)}", "bad-seed")
    return value


def _elapsed_rows(value: object) -> float | None:
    if value is None:
        return None
    if not is_number(value, 0, MOST_ROWS):
        raise ObservationError(
            f"'elapsed_rows' must be a number from 0 to {MOST_ROWS}, got {shown(value)}", "bad-elapsed-rows"
        )
    return float(value)


def _state(value: object) -> Floats | None:
    """Return (n,) float32; its length is checked by the policy, which knows the joints."""
    if value is None:
        return None
    if not isinstance(value, list) or len(value) > STATE_NUMBERS:
        raise ObservationError(f"'state' must be a list of numbers, got {shown(value)}", "bad-state")
    if any(not isinstance(number, int | float | str) for number in value):
        raise ObservationError(f"'state' must hold only numbers, got {shown(value)}", "bad-state")
    try:
        numbers = np.array([float(number) for number in value], dtype=np.float64)
    except (ValueError, OverflowError) as error:
        raise ObservationError(f"'state' must hold only numbers, got {shown(value)}", "bad-state") from error
    with np.errstate(over="ignore"):
        state = numbers.astype(np.float32)
    finite = np.isfinite(state)
    if not finite.all():
        first = int(np.argmin(finite))
        raise ObservationError(
            f"'state' must be finite, got {numbers[first]} at index {first}", "state-not-finite"
        )
    return state
