# SPDX-License-Identifier: Apache-2.0
"""JSON that people read and edit: an object over several lines, a list of numbers or texts on one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

INDENT = "  "
MOST_COLUMNS = 110  # a longer list of texts has a line for each


def readable(value: Any, depth: int = 0) -> str:
    """Return the JSON text of a value. Raises ValueError for NaN and Infinity, which JSON does not have."""
    within, behind = INDENT * (depth + 1), INDENT * depth
    if isinstance(value, Mapping) and value:
        rows = [f"{within}{json.dumps(key)}: {readable(item, depth + 1)}" for key, item in value.items()]
        return "{\n" + ",\n".join(rows) + f"\n{behind}}}"
    text = json.dumps(value, allow_nan=False)
    if not isinstance(value, list) or not value:
        return text
    plain = not any(isinstance(item, Mapping | list) for item in value)
    if plain and (len(text) <= MOST_COLUMNS or not isinstance(value[0], str)):
        return text
    return "[\n" + ",\n".join(within + readable(item, depth + 1) for item in value) + f"\n{behind}]"
