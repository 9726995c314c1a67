# SPDX-License-Identifier: Apache-2.0
"""The one declaration of a request's fields: what is known of them, their limits, and their part of /openapi.json."""

from __future__ import annotations

from dataclasses import dataclass, field

from reflex_core.images.raw_encodings import ENCODINGS
from reflex_core.metrics.episodes import ID_CHARACTERS
from reflex_ros.sidecar.wires.schema import FLAG, TEXT, Schema, object_of, or_null

INSTRUCTION_CHARACTERS = 10_000
STATE_NUMBERS = 4096
SEED_LIMIT = 2**63
MOST_ROWS = 100_000
MOST_PIXELS_A_SIDE = 2**31 - 1

# 16 x 16 grey pixels, so that the example is a request that is answered
EXAMPLE_PNG = (
    "iVBORw0KGgoAAAANSUhEUgAAABAAAAAQCAIAAACQkWg2AAAAFElEQVR42mNoIBEwjGoY1TB8NQAAJYSAELxv8c8AAAAASUVORK5CYII="
)


@dataclass(frozen=True, slots=True)
class RequestField:
    """One field of a request. earlier: the entries of `history` have it too. example: a value that is accepted."""

    name: str
    meaning: str
    schema: Schema
    earlier: bool = False
    example: object = field(default=None)

    @property
    def described(self) -> Schema:
        """Its schema in a document."""
        examples = {} if self.example is None else {"examples": [self.example]}
        return {**self.schema, "description": self.meaning, **examples}


def _size(meaning: str, least: int) -> Schema:
    return {"type": "integer", "minimum": least, "maximum": MOST_PIXELS_A_SIDE, "description": meaning}


# of an image as an object
PICTURE: dict[str, Schema] = {
    "data": {**TEXT, "description": "base64 of the pixels, or of a JPEG or PNG file"},
    "encoding": {
        **TEXT,
        "description": f"of raw pixels: {', '.join(ENCODINGS)}; left out for JPEG and PNG",
    },
    "height": _size("of raw pixels", 0),
    "width": _size("of raw pixels", 0),
    "step": _size("bytes of a row of raw pixels; 0: they follow each other", 0),
}
BASE64: Schema = {**TEXT, "contentEncoding": "base64"}
IMAGE: Schema = or_null({"anyOf": [BASE64, object_of(PICTURE, ("data",))]})
# a number may be written as a string, which some encoders do
STATE: Schema = or_null(
    {"type": "array", "maxItems": STATE_NUMBERS, "items": {"anyOf": [{"type": "number"}, TEXT]}}
)
ID: Schema = or_null({**TEXT, "maxLength": ID_CHARACTERS})

FIELDS: tuple[RequestField, ...] = (
    RequestField(
        "image", "JPEG or PNG of the robot's first camera", IMAGE, earlier=True, example=EXAMPLE_PNG
    ),
    RequestField("image_wrist", "JPEG or PNG of the robot's second camera", IMAGE, earlier=True),
    RequestField(
        "images",
        "by camera name: base64 of a JPEG or PNG, or an object with raw pixels",
        or_null({"type": "object", "additionalProperties": IMAGE}),
        earlier=True,
    ),
    RequestField(
        "instruction",
        "what the robot should do",
        {**TEXT, "maxLength": INSTRUCTION_CHARACTERS},
        example="reach the red block",
    ),
    RequestField(
        "state",
        "numbers in the order of /config effective.state_names; rad, m",
        STATE,
        earlier=True,
        example=[0.0, 0.2, 0.0, -2.4, 0.0, 2.6, 0.8],
    ),
    RequestField("episode_id", "what belongs together: RTC, cache and routing go by it", ID),
    RequestField("request_id", "the client's own name for this request", ID),
    RequestField(
        "seed", "of the noise", or_null({"type": "integer", "minimum": 0, "maximum": SEED_LIMIT - 1})
    ),
    RequestField("robot_id", "the calling robot, which the guard counts by itself", ID),
    RequestField(
        "elapsed_rows",
        "how many rows of the previous answer had been executed at the observation",
        or_null({"type": "number", "minimum": 0, "maximum": MOST_ROWS}),
    ),
    RequestField("previous_request_id", "the answer that `elapsed_rows` counts from; else the newest", ID),
    RequestField("history", "earlier observations, oldest first", {}),
    RequestField("observe_only", "true: keep the observation and infer nothing", FLAG),
)
KNOWN = tuple(one.name for one in FIELDS)
EARLIER = tuple(one.name for one in FIELDS if one.earlier)


def request_schema() -> Schema:
    """Return the schema of a request. Fields that it does not name are ignored and reported."""
    properties = {one.name: one.described for one in FIELDS}
    entry = object_of({name: properties[name] for name in EARLIER})
    properties["history"] = {**properties["history"], **or_null({"type": "array", "items": entry})}
    return object_of(properties)
