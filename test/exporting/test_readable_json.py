# SPDX-License-Identifier: Apache-2.0
"""The JSON that an export brings is the same value, and can be read."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reflex_export.documents.readable_json import readable

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
)


@given(VALUES)
def test_it_is_the_same_value(value: Any) -> None:
    assert json.loads(readable(value)) == value


def test_numbers_stay_on_one_line_and_objects_do_not() -> None:
    assert readable({"a": [1, 2.5], "b": [{"c": []}], "d": [[0], [1]]}) == (
        '{\n  "a": [1, 2.5],\n  "b": [\n    {\n      "c": []\n    }\n  ],\n  "d": [\n    [0],\n    [1]\n  ]\n}'
    )
    assert readable(["x" * 60, "y" * 60]).count("\n") == 3


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_json_does_not_have_is_no_text(value: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        readable({"a": [value]})
