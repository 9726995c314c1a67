# SPDX-License-Identifier: Apache-2.0
"""Values that no reader of a JSON document expects, and every place to put them."""

from __future__ import annotations

import copy
from typing import Any

ODD: list[Any] = [
    None, True, False, -1, 0, 1, 7, 3.5, 1e308, 10**30, "", "x", "é\n\x1b[31m", "..", [], [1], [1, 2], [0, 0], ["a", "a"],
    [None], {}, {"a": 1}, [[[[]]]], "a" * 500, "a\0b",
]  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a JSON document."""
    found = [path] if path else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        found += places(item, (*path, key))
    return found


def put(document: Any, path: tuple[Any, ...], value: Any) -> None:
    """Put a value there; `...` takes out what is there."""
    for key in path[:-1]:
        document = document[key]
    if value is ...:
        del document[path[-1]]
    else:
        document[path[-1]] = copy.deepcopy(value)
