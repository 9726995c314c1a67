# SPDX-License-Identifier: Apache-2.0
"""What leaves this process about an answer is the same to the byte, however the answer is kept inside."""

from __future__ import annotations

import json

import pytest
from repository import FIXTURES
from served_cases import cases, outside

EXPECTED = json.loads((FIXTURES / "served" / "outside.json").read_text())


@pytest.mark.parametrize("name", sorted(cases()))
def test_reply_trace_audit_span_and_page_say_what_they_always_said(name: str) -> None:
    assert outside(*cases()[name]) == EXPECTED[name]


def test_every_recorded_answer_is_compared() -> None:
    assert set(cases()) == set(EXPECTED)
