# SPDX-License-Identifier: Apache-2.0
"""A wire is added by one new file and one row, and has everything that /act has without a line for it."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from http_client import STATE, Client, good, jpeg, wait_for
from scratch import Scratch

ExportDir = Callable[[str], Path]

LINES = '''# SPDX-License-Identifier: Apache-2.0
"""A wire of a test: lines of `name: value`, the picture as base64; answers are rows of numbers."""

from __future__ import annotations

import base64

from reflex_core.images.file_kind import check_pixels
from reflex_core.images.raw_encodings import encoded_size
from reflex_core.values import Frame
from reflex_ros.sidecar.ignored_fields import NONE_IGNORED
from reflex_ros.sidecar.problems import BodyError, Problem
from reflex_ros.sidecar.wires.fields import decode_fields
from reflex_ros.sidecar.wires.wire import Answered, DecodedRequest, Observed, Readable


class LinesWire:
    name = "lines"
    content_types = ("text/x-lines",)
    content_type = "text/x-lines"

    def __init__(self, route: str) -> None:
        self.route = route

    def decode(self, data: bytearray, readable: Readable) -> DecodedRequest:
        try:
            pairs = [line.split(": ", 1) for line in bytes(data).decode("ascii").splitlines()]
            fields: dict[str, object] = {name: value for name, value in pairs}
            picture = base64.b64decode(str(fields.pop("image")), validate=True)
        except (ValueError, KeyError) as error:
            raise BodyError(f"the body is not lines: {error}", "malformed-lines") from error
        encoding, height, width = encoded_size(picture)
        check_pixels(height, width, readable.max_pixels, "'image'")
        fields |= {"state": str(fields["state"]).split(), "seed": int(str(fields["seed"]))}
        frames = {readable.cameras[0]: Frame(picture, encoding, height, width)}
        return decode_fields(fields, frames, readable, NONE_IGNORED)

    def encode(self, answered: Answered) -> bytes:
        rows = answered.served.chunk.actions
        return "\\n".join(" ".join(map(repr, row.tolist())) for row in rows).encode()

    def observed(self, observed: Observed) -> bytes:
        return f"kept: {observed.kept}".encode()

    def problem(self, problem: Problem) -> bytes:
        return f"{problem.slug}: {problem.message}".encode()
'''
ROWS = 'WIRES: tuple[Wire, ...] = (USUAL, MsgpackWire(), LinesWire("/act"), LinesWire("/lines"))'
KEY = "a key that is long enough"
TYPE = "text/x-lines"


def body(**changes: str) -> bytes:
    fields = {
        "image": jpeg(),
        "instruction": "reach",
        "state": " ".join(map(str, STATE)),
        "request_id": "r-1",
        "seed": "3",
    }
    return "\n".join(f"{name}: {value}" for name, value in (fields | changes).items()).encode()


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Scratch:
    made = Scratch(tmp_path_factory.mktemp("scratch"))
    made.add("reflex_ros/sidecar/wires/lines.py", LINES)
    table = "reflex_ros/sidecar/wires/table.py"
    made.change(table, "WIRES: tuple[Wire, ...] = (USUAL, MsgpackWire())", ROWS)
    made.change(
        table, "from reflex_ros.sidecar.wires.json import JsonWire",
        "from reflex_ros.sidecar.wires.json import JsonWire\nfrom reflex_ros.sidecar.wires.lines import LinesWire",
    )  # fmt: skip
    return made


@pytest.fixture(scope="module")
def client(
    scratch: Scratch, export_dir: ExportDir, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Client]:
    key = tmp_path_factory.mktemp("key") / "key"
    key.write_text(KEY)
    export = export_dir("mono_pi0_7")
    with scratch.serving(export, "--api-key-file", key) as process:
        assert process.stdout is not None
        lines = (re.search(r"listening on http://127\.0\.0\.1:(\d+)", line) for line in process.stdout)
        port = next((int(found[1]) for found in lines if found), 0)
        assert port, process.communicate()[1]
        found = Client(port)
        wait_for(lambda: found.get("/health").status == 200)
        yield found


def ask(client: Client, data: bytes, path: str = "/act", **headers: str) -> tuple[int, str, dict[str, str]]:
    named = {"Authorization": f"Bearer {KEY}", "Content_Type": TYPE} | headers
    answer = client.ask("POST", path, data, **named)
    return answer.status, answer.body.decode(), answer.headers


def test_it_touches_one_new_file_and_the_table(scratch: Scratch) -> None:
    assert scratch.touched == ["reflex_ros/sidecar/wires/lines.py", "reflex_ros/sidecar/wires/table.py"]


@pytest.mark.parametrize("path", ["/act", "/lines"])
def test_the_same_request_has_the_same_answer_on_both_wires(client: Client, path: str) -> None:
    in_json = client.ask(
        "POST", "/act", json.dumps(good(instruction="reach", seed=3)).encode(), Authorization=f"Bearer {KEY}"
    )
    status, text, headers = ask(client, body(), path)
    assert (in_json.status, status, headers["content-type"], headers["x-request-id"]) == (
        200,
        200,
        TYPE,
        "r-1",
    )
    rows = np.array([line.split() for line in text.splitlines()], np.float64)
    np.testing.assert_array_equal(rows.astype(np.float32), np.array(in_json.json["actions"], np.float32))


def test_what_it_refuses_is_answered_in_its_own_form_and_with_the_same_statuses(client: Client) -> None:
    status, text, headers = ask(client, b"no lines")
    assert (status, text.partition(":")[0], headers["content-type"]) == (400, "malformed-lines", TYPE)
    status, text, headers = ask(client, body(state="1 2"))
    assert (status, text.partition(":")[0], headers["x-request-id"]) == (422, "state-length", "r-1")
    status, text, _ = ask(client, body(image=base64.b64encode(b"GIF89a and so on").decode()))
    assert (status, text.partition(":")[0]) == (422, "bad-image")


@pytest.mark.parametrize("path", ["/act", "/lines"])
def test_keys_and_limits_are_those_of_every_request(client: Client, path: str) -> None:
    status, text, headers = ask(client, body(), path, Authorization="Bearer wrong")
    assert (status, headers["content-type"], text.partition(":")[0]) == (401, TYPE, "unauthorized")
    status, text, _ = ask(client, b"", path, Content_Length=str(1 << 30))
    assert (status, text.partition(":")[0]) == (413, "body-too-large")
    assert client.get(path, Authorization=f"Bearer {KEY}").status == 405


def test_what_no_wire_claims_is_json_as_ever(client: Client) -> None:
    for content_type in ("application/json", "text/plain; charset=utf-8", "nothing"):
        status, text, headers = ask(client, json.dumps(good()).encode(), Content_Type=content_type)
        assert (status, headers["content-type"]) == (200, "application/json"), text
