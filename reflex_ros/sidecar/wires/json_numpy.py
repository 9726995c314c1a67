# SPDX-License-Identifier: Apache-2.0
"""json_numpy in the bodies of POST /act: OpenVLA, OpenVLA-OFT, MolmoAct2 and their forks, whose path and verb are ours.

An image is a string in our own requests and a map with a tag in theirs, so that each field says what it is. The reply has
the form that the client reads: our object for MolmoAct2 and every other client that sends arrays, one bare row for OpenVLA, bare rows
for OFT. `?format=` says it where the keys do not. A client of one row executes it until it asks again: `?hz=` says how often,
and the row is the one that is due then.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import orjson

from reflex_core.errors import ObservationError
from reflex_core.text.untrusted import shown
from reflex_core.values import Frame
from reflex_ros.sidecar.problems import BodyError
from reflex_ros.sidecar.wires.foreign import decode_foreign, own_fields
from reflex_ros.sidecar.wires.numpy_tags import tagged_json, with_arrays
from reflex_ros.sidecar.wires.request_fields import KNOWN
from reflex_ros.sidecar.wires.rows import rows_of
from reflex_ros.sidecar.wires.wire import Answered, DecodedRequest, Readable

NAME = "json_numpy"
MARKS = (b'"__numpy__"', b'"__ndarray__"', b'"__numpy_array__"')
MOST_TRIED = 64
ENCODED = "encoded"  # OpenVLA's double encoding: the only key, its value the body as text
OBJECT, ROW, ROWS = "reflex", "openvla", "oft"
FORMS = (OBJECT, ROW, ROWS)
MIN_HZ, MAX_HZ = 0.1, 1000.0
OPENVLA_KEYS = frozenset(("image", "instruction", "unnorm_key"))

_NUMBER = re.compile(r"[0-9]{1,4}(?:\.[0-9]{1,4})?")


def has_arrays(data: bytes | bytearray) -> bool:
    """Return whether a body may hold tagged arrays, or a body in a string."""
    return _marked(data) or data[:64].lstrip().removeprefix(b"{").lstrip().startswith(b'"encoded"')


def _marked(data: bytes | bytearray) -> bool:
    """Return whether a mark is in a body. Its second byte is in no base64, and one byte is found thirty times as fast as several."""
    at = data.find(b"_")
    for _ in range(MOST_TRIED):
        if at < 0:
            return False
        if data.startswith(MARKS, max(at - 1, 0)):
            return True
        at = data.find(b"_", at + 1)
    return any(mark in data for mark in MARKS)


def unwrapped(found: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the object of a body that holds nothing but it as a string, any other as it is. Raises BodyError."""
    if list(found) != [ENCODED] or not isinstance(found[ENCODED], str):
        return found
    try:
        inner = orjson.loads(found[ENCODED])
    except orjson.JSONDecodeError as error:
        raise BodyError(f"'{ENCODED}' is not JSON: {error.msg} at byte {error.pos}") from error
    if not isinstance(inner, dict):
        raise ObservationError(f"'{ENCODED}' must hold a JSON object, got {shown(inner)}", "bad-body")
    return inner


def parted(found: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the fields that are as in our own requests, and those with arrays or of other names."""
    arrays = {key: with_arrays(value) for key, value in found.items()}
    own = {key: found[key] for key, value in arrays.items() if key in KNOWN and not holds_arrays(value)}
    return own, {key: value for key, value in arrays.items() if key not in own}


def decode(
    own: Mapping[str, Any],
    tagged: Mapping[str, Any],
    frames: Mapping[str, Frame],
    readable: Readable,
    *,
    packed: bool,
) -> DecodedRequest:
    """Return the request of a body with arrays. frames: of its own images; packed: it came as a string."""
    form = _form(own, tagged, readable)
    known = {key: value for key, value in own.items() if key not in ("image", "image_wrist", "images")}
    decoded = decode_foreign(tagged, readable, NAME, frames, known | own_fields(tagged, ""))
    return replace(decoded, form=form_of(form, packed=packed), wire=NAME, names=(*own, *tagged))


def form_of(form: str, *, packed: bool) -> str:
    """Return the form of a reply; packed: in a JSON string, as the request came."""
    return f"{form} {ENCODED}" if packed else form


def encode(answered: Answered, fields: dict[str, Any]) -> bytes:
    """Return the reply in the client's form. fields: of our own reply."""
    form, _, packed = answered.form.partition(" ")
    made = orjson.dumps(_in_form(form, answered, fields), option=orjson.OPT_SERIALIZE_NUMPY)
    return orjson.dumps(made.decode()) if packed else made


def _in_form(form: str, answered: Answered, fields: dict[str, Any]) -> Any:
    rows = rows_of(answered)
    kind, _, hz = form.partition("@")
    if kind == ROW:
        return tagged_json(rows[_due(hz, answered.served.chunk.dt_s, len(rows))].astype(np.float64))
    if form == ROWS:
        return [tagged_json(row) for row in rows]
    return fields | {
        "actions": rows,
        "num_actions": len(rows),
        "start_index": 0,
        "dt_ms": round(answered.served.chunk.dt_s * 1e3, 6) or None,
        "keys": dict(answered.keys),
    }


def _due(hz: str, dt_s: float, rows: int) -> int:
    """Return the row that is due when a client of this rate asks again; the first where a rate is not known."""
    if not hz or dt_s <= 0.0:
        return 0
    return min(max(round(1.0 / (float(hz) * dt_s)) - 1, 0), rows - 1)


def _rate(options: Mapping[str, str]) -> str:
    """Return the client's rate as a suffix of the form, "" where the URL does not say it. Raises ObservationError."""
    text = options.get("hz")
    if text is None:
        return ""
    if not _NUMBER.fullmatch(text) or not MIN_HZ <= float(text) <= MAX_HZ:
        raise ObservationError(
            f"'hz' must be a number from {MIN_HZ:g} to {MAX_HZ:g}, got {shown(text)}", "bad-hz"
        )
    return f"@{text}"


def _form(own: Mapping[str, Any], tagged: Mapping[str, Any], readable: Readable) -> str:
    chosen = readable.options.get("format")
    if chosen is not None:
        if chosen not in FORMS:
            raise ObservationError(
                f"'format' must be one of {', '.join(FORMS)}, got {shown(chosen)}", "bad-format"
            )
        return f"{ROW}{_rate(readable.options)}" if chosen == ROW else chosen
    if "full_image" in tagged:
        return ROWS
    image_alone = {*own, *tagged} <= OPENVLA_KEYS and "image" in tagged
    return f"{ROW}{_rate(readable.options)}" if image_alone else OBJECT


def holds_arrays(value: Any) -> bool:
    """Return whether there is an array in this value."""
    if isinstance(value, np.ndarray):
        return True
    if isinstance(value, dict):
        return any(map(holds_arrays, value.values()))
    return isinstance(value, list) and any(
        isinstance(item, dict | list | np.ndarray) and holds_arrays(item) for item in value
    )
