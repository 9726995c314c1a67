# SPDX-License-Identifier: Apache-2.0
"""The headers of W3C Trace Context: what is valid is passed on as it came, the rest is as if it were not there."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy
from otlp import CALLER, SAMPLED, TRACE

from reflex_ros.sidecar.trace_context import NO_PARENT, TraceContext, trace_context


def headers(*pairs: tuple[str, str]) -> CIMultiDictProxy[str]:
    return CIMultiDictProxy(CIMultiDict(pairs))


def context(parent: str, *states: str) -> TraceContext:
    return trace_context(headers(("traceparent", parent), *[("tracestate", state) for state in states]))


def test_without_a_header_there_is_no_parent() -> None:
    assert trace_context(headers(("tracestate", "a=1"))) == NO_PARENT


@pytest.mark.parametrize(
    "parent",
    [
        SAMPLED,
        f"00-{TRACE}-{CALLER}-00",
        f"00-{TRACE}-{CALLER}-ff",
        f"01-{TRACE}-{CALLER}-01",
        f"cc-{TRACE}-{CALLER}-01-what-the-future-brings",
    ],
)
def test_a_valid_parent_is_passed_on(parent: str) -> None:
    assert context(parent) == TraceContext(parent, "")
    assert trace_context(headers(("Traceparent", f" {parent}\t"))).traceparent == parent


@pytest.mark.parametrize(
    "parent",
    [
        "",
        "garbage",
        SAMPLED.upper(),
        SAMPLED[:-1],
        SAMPLED + "0",
        SAMPLED + "-more",
        f"ff-{TRACE}-{CALLER}-01",
        f"00-{'0' * 32}-{CALLER}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE[:-1]}g-{CALLER}-01",
        f"cc-{TRACE}-{CALLER}-01.what",
        f"cc-{TRACE}-{CALLER}-01-{'x' * 300}",
        f"{SAMPLED}\n",
        f"{SAMPLED},{SAMPLED}",
    ],
)
def test_what_breaks_the_grammar_is_ignored(parent: str) -> None:
    assert context(parent, "a=1") == NO_PARENT


def test_two_parents_are_none() -> None:
    assert trace_context(headers(("traceparent", SAMPLED), ("traceparent", SAMPLED))) == NO_PARENT


@pytest.mark.parametrize(
    ("states", "kept"),
    [
        (["vendor=value"], "vendor=value"),
        (["a=1, b=2"], "a=1,b=2"),
        (["a=1", "b=2"], "a=1,b=2"),
        (["1tenant@vendor=x y"], "1tenant@vendor=x y"),
        (["a=1,,b=2,"], "a=1,b=2"),
        ([], ""),
        (["A=1"], ""),
        (["a=1,a=2"], ""),
        (["a=b=c"], ""),
        (["a="], ""),
        (["nothing"], ""),
        ([f"a={'x' * 257}"], ""),
        (
            [",".join(f"k{number}=1" for number in range(32))],
            ",".join(f"k{number}=1" for number in range(32)),
        ),
        ([",".join(f"k{number}=1" for number in range(33))], ""),
        ([",".join(f"k{number}={'x' * 200}" for number in range(20))], ""),
    ],
)
def test_a_bad_state_is_dropped_and_the_parent_stays(states: list[str], kept: str) -> None:
    assert context(SAMPLED, *states) == TraceContext(SAMPLED, kept)


@given(st.text(), st.text())
def test_no_header_raises(parent: str, state: str) -> None:
    found = context(parent, state)
    assert found.traceparent in ("", parent.strip(" \t"))
    assert context(SAMPLED, state).traceparent == SAMPLED
