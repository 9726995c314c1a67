# SPDX-License-Identifier: Apache-2.0
"""What leaves this process about an answer is the same to the byte, however the answer is kept inside."""

from __future__ import annotations

import json

import pytest
from repository import FIXTURES
from served_cases import cases, outside

from reflex_ros.sidecar.wires.reply_fields import FIELDS

EXPECTED = json.loads((FIXTURES / "served" / "outside.json").read_text())


@pytest.mark.parametrize("name", sorted(cases()))
def test_reply_trace_audit_span_and_page_say_what_they_always_said(name: str) -> None:
    outcome = outside(*cases()[name])
    before_the_block, _, _ = outcome["reply"].partition(',"reflex":')
    assert outcome | {"reply": f"{before_the_block}}}"} == EXPECTED[name]


@pytest.mark.parametrize("name", sorted(cases()))
def test_the_block_of_a_reply_has_in_groups_what_the_reply_has(name: str) -> None:
    reply = json.loads(outside(*cases()[name])["reply"])
    block = reply["reflex"]
    placed = [field for field in FIELDS if field.place]
    assert len(placed) > 40
    for field in placed:
        group, _, inside = field.place.partition(".")
        assert (block[group][inside] if inside else block[group]) == reply[field.name], field.name
    assert block["guard"]["clamp_count"] == reply["guard_summary"]["clamp_count"]
    for whole in ("history", "temporal_ensemble"):
        assert block.get(whole) == reply.get(whole)


def test_every_recorded_answer_is_compared() -> None:
    assert set(cases()) == set(EXPECTED)
