# SPDX-License-Identifier: Apache-2.0
"""/openapi.json: made from what routes and fields declare, and true of what is answered."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from http_client import good
from hypothesis import given, settings
from hypothesis import strategies as st
from servers import Server

from reflex_ros.sidecar.ignored_fields import KNOWN
from reflex_ros.sidecar.wires.reply_fields import FIELDS
from reflex_ros.sidecar.wires.table import SOCKETS

Serve = Callable[..., Server]
SEEDS = {  # fields of the reply that the published example shows
    "actions", "latency_ms", "inference_mode", "guard_clamped", "guard_violations", "adaptive_enabled",
    "adaptive_steps_used", "injected_latency_ms", "robot_id",
}  # fmt: skip


@pytest.fixture
def server(serve: Serve) -> Server:
    return serve("calm")


def document_of(server: Server) -> Any:
    answer = server.client.get("/openapi.json")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    return answer.json


def schemas(server: Server) -> Any:
    return document_of(server)["components"]["schemas"]


def conforms(value: Any, schema: dict[str, Any], where: str = "") -> list[str]:
    """What in a value is not as a schema of this document has it; as much of JSON Schema as it uses."""
    if "anyOf" in schema:
        each = [conforms(value, one, where) for one in schema["anyOf"]]
        return [] if any(not found for found in each) else each[0]
    kinds: dict[str, Any] = {
        "object": dict, "array": list, "string": str, "boolean": bool, "null": type(None), "integer": int, "number": (int, float),
    }  # fmt: skip
    kind = schema.get("type")
    if kind is not None and (
        not isinstance(value, kinds[kind]) or (isinstance(value, bool) and kind != "boolean")
    ):
        return [f"{where}: {value!r} is no {kind}"]
    found = []
    if isinstance(value, dict):
        found += [f"{where}.{name} is missing" for name in schema.get("required", ()) if name not in value]
        inside, others = schema.get("properties", {}), schema.get("additionalProperties", {})
        for name, each in value.items():
            found += conforms(each, inside.get(name, others), f"{where}.{name}")
    if isinstance(value, list):
        found += [line for each in value for line in conforms(each, schema.get("items", {}), f"{where}[]")]
    return found


def test_every_route_that_programs_use_is_in_the_document(server: Server) -> None:
    paths = document_of(server)["paths"]
    assert server.sidecar.app is not None
    routed = {
        (re.sub(r":[^}]*", "", resource.canonical), route.method.lower())
        for resource in server.sidecar.app.router.resources()
        for route in resource
        if route.method != "HEAD"
    }
    page = {path for path, _ in routed if path in ("/", "/events") or path.startswith("/page/")}
    described = {(path, method) for path, methods in paths.items() for method in methods}
    assert described <= routed
    assert {path for path, _ in routed - described} <= page | set(SOCKETS)  # OpenAPI has no websockets
    names = [operation["operationId"] for methods in paths.values() for operation in methods.values()]
    assert len(names) == len(set(names)) > 10
    assert all(operation["summary"] for methods in paths.values() for operation in methods.values())


def test_the_document_has_every_field_of_a_request_and_of_a_reply(server: Server) -> None:
    found = schemas(server)
    assert tuple(found["ActRequest"]["properties"]) == KNOWN
    reply = server.client.act(episode_id="one", goal="x").json
    assert set(reply) == set(found["ActReply"]["required"])
    assert conforms(reply, found["ActReply"]) == []
    assert reply["did_you_mean"] == {"goal": "instruction"}
    assert conforms(good(), found["ActRequest"]) == []


def test_fields_that_the_block_has_too_are_deprecated_but_for_those_of_the_published_example(
    server: Server,
) -> None:
    properties = schemas(server)["ActReply"]["properties"]
    deprecated = {name for name, schema in properties.items() if schema.get("deprecated")}
    assert SEEDS & deprecated == set()
    assert {
        "num_actions",
        "hz",
        "denoising_steps",
        "provider_mode",
        "guard_summary",
        "rtc_mode",
    } <= deprecated
    for field in FIELDS:
        if field.name in deprecated:
            assert f"`reflex.{field.place}`" in properties[field.name]["description"]
    assert set(properties["reflex"]["required"]) == set(server.client.act().json["reflex"])


def test_the_example_of_a_request_is_answered(server: Server) -> None:
    properties = schemas(server)["ActRequest"]["properties"]
    example = {name: schema["examples"][0] for name, schema in properties.items() if "examples" in schema}
    assert {"image", "instruction", "state"} <= set(example)
    answer = server.client.act(example)
    assert answer.status == 200, answer.body


def test_refusals_are_as_described(server: Server) -> None:
    problem = schemas(server)["Problem"]
    for answer in (
        server.client.act({"state": "x"}),
        server.client.get("/nothing"),
        server.client.ask("POST", "/act", b"{"),
    ):
        assert answer.status >= 400
        assert conforms(answer.json, problem) == []


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text(max_size=8), inside, max_size=3),
    max_leaves=4,
)


def values(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """What a schema of this document allows, now and then what it does not."""
    if "anyOf" in schema:
        return st.one_of([values(one) for one in schema["anyOf"]])
    low, high = schema.get("minimum"), schema.get("maximum")
    kinds: dict[str, Callable[[], st.SearchStrategy[Any]]] = {
        "string": lambda: st.sampled_from(schema.get("examples", [""])) | st.text(max_size=12),
        "integer": lambda: st.integers(low, high),
        "number": lambda: st.floats(low, high, allow_nan=False),
        "boolean": st.booleans,
        "null": st.none,
        "array": lambda: (
            st.lists(values(schema.get("items", {})), max_size=8)
            | st.sampled_from(schema.get("examples", [[]]))
        ),
        "object": lambda: st.fixed_dictionaries(
            {}, optional={name: values(one) for name, one in schema.get("properties", {}).items()}
        ),
    }
    allowed = kinds[schema["type"]]() if "type" in schema else JUNK
    return st.integers(0, 19).flatmap(lambda draw: JUNK if draw == 0 else allowed)


def resolved(schema: dict[str, Any], document: Any) -> dict[str, Any]:
    name = schema.get("$ref", "").rpartition("/")[2]
    return document["components"]["schemas"][name] if name else schema


def test_whatever_the_document_allows_is_answered_or_refused_as_it_describes(server: Server) -> None:
    """`make test-clients` asks more, and more cunningly, with schemathesis."""
    document = document_of(server)
    taking = [
        (path.replace("{episode_id}", "one"), operation)
        for path, methods in document["paths"].items()
        for operation in methods.values()
        if "requestBody" in operation
    ]
    assert len(taking) == 6

    @settings(max_examples=60, deadline=None, database=None, derandomize=True)
    @given(st.data())
    def ask(data: st.DataObject) -> None:
        for path, operation in taking:
            schema = resolved(operation["requestBody"]["content"]["application/json"]["schema"], document)
            body = data.draw(values(schema))
            answer = server.client.ask("POST", path, json.dumps(body).encode())
            assert answer.status < 500, (path, body, answer.body)
            response = operation["responses"].get(str(answer.status), operation["responses"]["default"])
            described = response["content"]["application/json"]["schema"]
            if "anyOf" in described:
                described = {"anyOf": [resolved(one, document) for one in described["anyOf"]]}
            assert conforms(answer.json, resolved(described, document)) == []

    ask()


def test_it_is_read_without_a_key_and_says_which_operations_take_one(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REFLEX_API_KEY", "a key that is long enough")
    paths = document_of(serve("calm"))["paths"]
    closed = {path for path, methods in paths.items() for each in methods.values() if "security" in each}
    assert {"/act", "/config", "/policies"} <= closed
    assert closed & {"/health", "/metrics", "/openapi.json"} == set()


def test_without_a_key_no_operation_takes_one(server: Server) -> None:
    assert "security" not in json.dumps(document_of(server)["paths"])
