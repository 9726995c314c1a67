# SPDX-License-Identifier: Apache-2.0
"""JSON Schema of the fields that requests and replies declare, as OpenAPI 3.1 takes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Schema = dict[str, Any]

NUMBER: Schema = {"type": "number"}
INTEGER: Schema = {"type": "integer"}
TEXT: Schema = {"type": "string"}
FLAG: Schema = {"type": "boolean"}
TEXTS: Schema = {"type": "array", "items": TEXT}
OBJECT: Schema = {"type": "object"}
TEXT_BY_NAME: Schema = {"type": "object", "additionalProperties": TEXT}
NUMBER_BY_NAME: Schema = {"type": "object", "additionalProperties": NUMBER}
ROWS: Schema = {"type": "array", "items": {"type": "array", "items": NUMBER}}

_TYPES = {str: "string", float: "number", int: "integer", list: "array", tuple: "array", dict: "object"}


def or_null(schema: Schema) -> Schema:
    """Return the schema of a value that may be null."""
    return {"anyOf": [schema, {"type": "null"}]}


def schema_of(value: object) -> Schema:
    """Return the schema of every value of the same type: of a block's field, from its value where there is nothing to report."""
    if value is None or isinstance(value, bool):
        return {} if value is None else FLAG
    return {"type": next(name for kind, name in _TYPES.items() if isinstance(value, kind))}


def object_of(properties: Mapping[str, Schema], required: tuple[str, ...] = ()) -> Schema:
    """Return the schema of an object with these properties; others may be there too."""
    return {
        "type": "object",
        "properties": dict(properties),
        **({"required": list(required)} if required else {}),
    }
