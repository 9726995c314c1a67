# SPDX-License-Identifier: Apache-2.0
"""~/action_chunk says of an answer what it always said, field by field: what pads them is whatever was in memory."""

from __future__ import annotations

import json
from typing import Any

import pytest
from repository import FIXTURES
from served_cases import cases

from reflex_ros.messages.chunks import chunk_message

EXPECTED = json.loads((FIXTURES / "served" / "messages.json").read_text())


def fields(message: Any) -> Any:
    """A message as JSON has it."""
    if hasattr(message, "get_fields_and_field_types"):
        return {name: fields(getattr(message, name)) for name in message.get_fields_and_field_types()}
    return message if isinstance(message, str | bool | int | float) else [fields(item) for item in message]


def sent(name: str) -> Any:
    request, served = cases()[name]
    observation = request.observation
    return fields(chunk_message(served, observation.stamp_ns, observation.age_ms, chunk_id=3, start=1))


@pytest.mark.parametrize("name", sorted(cases()))
def test_the_message_is_what_it_always_was(name: str) -> None:
    assert sent(name) == EXPECTED[name]
