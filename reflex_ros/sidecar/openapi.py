# SPDX-License-Identifier: Apache-2.0
"""The OpenAPI 3.1 document at /openapi.json, made from the routes and from the fields that requests and replies declare."""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from reflex_core import __version__
from reflex_ros.sidecar.problems import Problem
from reflex_ros.sidecar.wires.reply_fields import observed_schema, reply_schema
from reflex_ros.sidecar.wires.request_fields import request_schema
from reflex_ros.sidecar.wires.schema import OBJECT, TEXT, Schema, object_of, schema_of
from reflex_ros.sidecar.wires.table import USUAL
from reflex_ros.sidecar.wires.wire import Wire

PATH = "/openapi.json"
JSON = "application/json"
_ACT_REQUEST, _ACT_REPLY, _OBSERVED, _PROBLEM = "ActRequest", "ActReply", "Observed", "Problem"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Operation:
    """One route, and what its document holds beside the first line of the handler's docstring.

    body: fields of the JSON object that it takes, and no others; None where it takes none. required: those that must be there.
    one_of: exactly one of these must be there.
    replies: by status, the schema of the JSON object that it answers with; every other status is a problem.
    text: it answers with plain text.
    """

    method: str
    path: str
    handler: Handler
    body: dict[str, Schema] | None = None
    required: tuple[str, ...] = ()
    one_of: tuple[str, ...] = ()
    replies: dict[int, Schema] = field(default_factory=lambda: {200: OBJECT})
    text: bool = False

    @property
    def name(self) -> str:
        """The name of its handler, unique among the operations."""
        return str(getattr(self.handler, "__name__", self.path))

    @property
    def summary(self) -> str:
        """The first line of the handler's docstring, less the route."""
        line = (inspect.getdoc(self.handler) or self.path).partition("\n")[0]
        return re.sub(r"^(?:GET|POST) [^:]*: ", "", line)


def add_operations(app: web.Application, operations: Iterable[Operation]) -> None:
    """Add the route of each operation; a GET answers HEAD too."""
    for operation in operations:
        add = app.router.add_get if operation.method == "GET" else app.router.add_post
        add(operation.path, operation.handler)


def document(
    operations: Iterable[Operation], wires: Sequence[Wire], *, open_paths: Sequence[str], has_key: bool
) -> dict[str, Any]:
    """Return the document. open_paths: of operations that take no key; has_key: the others take one."""
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        path = re.sub(r"\{(\w+):[^}]*\}", r"{\1}", operation.path)
        described = _operation(operation)
        if has_key and operation.path not in open_paths:
            described["security"] = [{"bearer": []}, {"key": []}]
        paths.setdefault(path, {})[operation.method.lower()] = described
    for route in dict.fromkeys(wire.route for wire in wires):
        described = _act([wire for wire in wires if wire.route == route])
        if has_key:
            described["security"] = [{"bearer": []}, {"key": []}]
        paths.setdefault(route, {})["post"] = described
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "reflex_ros",
            "version": __version__,
            "summary": "Action chunks of a robot policy, and how they were made.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": {
                _ACT_REQUEST: request_schema(),
                _ACT_REPLY: reply_schema(),
                _OBSERVED: observed_schema(),
                _PROBLEM: problem_schema(),
            },
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "key": {"type": "apiKey", "in": "header", "name": "X-Reflex-Key"},
            },
        },
    }


def problem_schema() -> Schema:
    """Return the schema of a refusal or a failure."""
    fields = Problem(422, "slug", "sentence", "id").document()
    return object_of({name: schema_of(value) for name, value in fields.items()}, tuple(fields))


def _operation(operation: Operation) -> dict[str, Any]:
    described: dict[str, Any] = {"operationId": operation.name, "summary": operation.summary}
    parameters = re.findall(r"\{(\w+)", operation.path)
    if parameters:
        described["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {**TEXT, "minLength": 1}}
            for name in parameters
        ]
    if operation.body is not None:
        schema = {**object_of(operation.body, operation.required), "additionalProperties": False}
        if operation.one_of:
            schema["oneOf"] = [{"required": [name]} for name in operation.one_of]
        described["requestBody"] = {
            "required": bool(operation.required or operation.one_of),
            "content": {JSON: {"schema": schema}},
        }
    media = "text/plain" if operation.text else JSON
    described["responses"] = {
        str(status): {"description": "the answer", "content": {media: {"schema": schema}}}
        for status, schema in operation.replies.items()
    }
    described["responses"]["default"] = _problem_response()
    return described


def _act(wires: Sequence[Wire]) -> dict[str, Any]:
    """Return the operation of wires that share a route. Only that of JSON has a schema: the others are bytes."""
    requests: dict[str, Any] = {}
    replies: dict[str, Any] = {}
    for wire in wires:
        usual = wire is USUAL
        for content_type in wire.content_types:
            requests.setdefault(content_type, {"schema": _reference(_ACT_REQUEST)} if usual else {})
        either = {"anyOf": [_reference(_ACT_REPLY), _reference(_OBSERVED)]}
        replies.setdefault(wire.content_type, {"schema": either} if usual else {})
    return {
        "operationId": f"act{re.sub(r'[^a-z0-9]+', '_', wires[0].route.lower())}",
        "summary": "one observation in, one action chunk out",
        "requestBody": {"required": True, "content": requests},
        "responses": {
            "200": {"description": "the action chunk, or how many observations are kept", "content": replies},
            "default": _problem_response(),
        },
    }


def _problem_response() -> dict[str, Any]:
    return {
        "description": "a refusal or a failure: slug and one sentence",
        "headers": {
            "Retry-After": {
                "description": "seconds, where it is worth trying again",
                "schema": {"type": "integer"},
            }
        },
        "content": {JSON: {"schema": _reference(_PROBLEM)}},
    }


def _reference(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}
