# SPDX-License-Identifier: Apache-2.0
"""Check the fields of a request, the same way on every wire. Lax where nothing is ambiguous, else an error."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from reflex_core.errors import ObservationError
from reflex_core.files.json_fields import is_number, is_whole
from reflex_core.metrics.episodes import ID_RULE, usable_id
from reflex_core.robot.callers import require_robot_id
from reflex_core.text.untrusted import shown
from reflex_core.values import Floats, Frame, Observation
from reflex_ros.sidecar.ignored_fields import IgnoredFields
from reflex_ros.sidecar.wires.request_fields import (
    INSTRUCTION_CHARACTERS,
    MOST_ROWS,
    SEED_LIMIT,
    STATE_NUMBERS,
)
from reflex_ros.sidecar.wires.wire import DecodedRequest, Readable

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

Document = Mapping[str, Any]

_PLAIN = frozenset((int, float))
_LARGEST = float(np.finfo(np.float32).max)


def request_id(fields: Document) -> str | None:
    """Return the client's own id for this request, None where it gave none. Raises ObservationError."""
    return _identifier(fields, "request_id")


def decode_fields(
    fields: Document,
    frames: Mapping[str, Frame],
    readable: Readable,
    ignored: IgnoredFields,
    earlier: Sequence[Mapping[str, Frame]] = (),
) -> DecodedRequest:
    """Return the request that these fields and images make.

    fields: plain values by name, as JSON has them. earlier: images of each entry of its `history`. Raises ObservationError
    naming the field, what it takes and what it got.
    """
    instruction = _instruction(fields.get("instruction", ""))
    history = tuple(
        Observation(images, _state(entry.get("state"), f"history[{number}].state"), instruction)
        for number, (entry, images) in enumerate(
            zip(history_of(fields, readable.observation_steps), earlier, strict=True)
        )
    )
    return DecodedRequest(
        observation=Observation(
            frames=frames,
            state=_state(fields.get("state")),
            instruction=instruction,
            history=history,
        ),
        episode_id=_identifier(fields, "episode_id"),
        request_id=request_id(fields),
        seed=_seed(fields.get("seed")),
        robot_id=_robot_id(fields, readable.reserved),
        elapsed_rows=_elapsed_rows(fields.get("elapsed_rows")),
        previous_request_id=_identifier(fields, "previous_request_id") or "",
        names=tuple(fields),
        ignored=ignored,
        observe_only=_truth(fields, "observe_only"),
    )


def history_of(fields: Document, observation_steps: int) -> Sequence[Document]:
    """Return the entries of `history`, oldest first; none where the request has none. Raises ObservationError."""
    value = fields.get("history") or []
    most = observation_steps - 1
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise ObservationError(f"'history' must be a list of objects, got {shown(value)}", "bad-history")
    if len(value) > most:
        expected = (
            f"at most the {most} observations before this one"
            if most
            else "left out: the policy sees one observation"
        )
        raise ObservationError(
            f"'history' must be {expected} (observation_steps {observation_steps}), got {len(value)}",
            "bad-history",
        )
    return value


def _truth(fields: Document, field: str) -> bool:
    value = fields.get(field, False)
    if not isinstance(value, bool):
        raise ObservationError(
            f"'{field}' must be true or false, got {shown(value)}", f"bad-{field.replace('_', '-')}"
        )
    return value


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
            f"'{field}' must be a string of {ID_RULE}, got {shown(value)}",
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


def _state(value: object, field: str = "state") -> Floats | None:
    """Return (n,) float32; its length is checked by the policy, which knows the joints."""
    if value is None:
        return None
    if not isinstance(value, list) or len(value) > STATE_NUMBERS:
        raise ObservationError(f"'{field}' must be a list of numbers, got {shown(value)}", "bad-state")
    if _PLAIN.issuperset(map(type, value)) and all(map(_LARGEST.__ge__, map(abs, value))):
        return np.array(value, dtype=np.float32)  # as usual; NaN is not below anything
    if any(not isinstance(number, int | float | str) for number in value):
        raise ObservationError(f"'{field}' must hold only numbers, got {shown(value)}", "bad-state")
    try:
        numbers = np.array([float(number) for number in value], dtype=np.float64)
    except (ValueError, OverflowError) as error:
        raise ObservationError(
            f"'{field}' must hold only numbers, got {shown(value)}", "bad-state"
        ) from error
    with np.errstate(over="ignore"):
        state = numbers.astype(np.float32)
    finite = np.isfinite(state)
    if not finite.all():
        first = int(np.argmin(finite))
        raise ObservationError(
            f"'{field}' must be finite, got {numbers[first]} at index {first}", "state-not-finite"
        )
    return state
