# SPDX-License-Identifier: Apache-2.0
"""Write schema version 1 of the trace: the only place, with notes.py, that names trace fields.

Fields stand in the order in which readers of version 1 know them; what this package adds comes after. Added fields do
not change the version: readers ignore what they do not know.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from reflex_core import __version__
from reflex_core.files.json_lines import exact
from reflex_core.records.trace.hashing import base64_text, bytes_hash, encoded, text_hash
from reflex_core.records.trace.recent_images import RecentImages
from reflex_core.reports import Fallback
from reflex_core.robot.callers import caller_of
from reflex_core.values import NOTHING, Frame, Observation, Request, Served

SCHEMA_VERSION = 1
PREPROCESSING = 2  # version of how observations are preprocessed; traces of the first version lack the field
HEADER, REQUEST, FOOTER = "header", "request", "footer"
FULL, HASH_ONLY, NONE = "full", "hash_only", "none"
IMAGE_MODES = (FULL, HASH_ONLY, NONE)
UNKNOWN_HASH = "unknownhash"
MESSAGE_LENGTH = 500
# how version 1 calls what an inference says of its denoise loop
DENOISE = {
    "denoise_steps": "steps_used",
    "denoise_steps_configured": "steps_configured",
    "adaptive_enabled": "adaptive",
    "adaptive_threshold": "threshold",
}

Record = dict[str, Any]


class Block(Protocol):
    """A block of an answer that may be empty."""

    @property
    def present(self) -> bool:
        """False where the block is empty."""
        ...

    def document(self) -> Record:
        """Return its fields."""
        ...


@dataclass(frozen=True, slots=True)
class Session:
    """What does not change from request to request. `noise`: how the start noise is made from a seed.

    hardware: gpu, cuda, ort, jetpack as far as known. policies: one mapping per slot where there is more than one.
    settings: what the server was started with, without secrets. limits: those that the guard enforced, empty without any.
    """

    model_hash: str
    config_hash: str
    export_dir: str
    model_type: str = "smolvla"
    export_kind: str = "decomposed"
    embodiment: str | None = None
    hardware: Mapping[str, str] = field(default_factory=lambda: NOTHING)
    providers: tuple[str, ...] = ()
    notes: str = ""
    policies: tuple[Mapping[str, Any], ...] = ()
    vlm_conditioning: str = "real"
    robot_id: str = ""
    versions: Mapping[str, str] = field(default_factory=lambda: NOTHING)
    noise: Mapping[str, Any] = field(default_factory=lambda: NOTHING)
    action_names: tuple[str, ...] = ()
    state_names: tuple[str, ...] = ()
    observation_steps: int = 1
    settings: Mapping[str, Any] = field(default_factory=lambda: NOTHING)
    limits: Mapping[str, Any] = field(default_factory=lambda: NOTHING)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a request got no answer."""

    slug: str
    message: str


def header_record(
    session: Session, *, session_id: str, started_at: str, images: str, part: int, dropped: int
) -> Record:
    """Return the first line of a file. part: 0 for the first file of a session; dropped: requests lost before this file."""
    record: Record = {
        "kind": HEADER,
        "schema_version": SCHEMA_VERSION,
        "session_id": session_id,
        "started_at": started_at,
        "model_hash": session.model_hash,
        "config_hash": session.config_hash,
        "export_dir": session.export_dir,
        "model_type": session.model_type,
        "export_kind": session.export_kind,
        "embodiment": session.embodiment,
        "hardware": {"gpu": "", "cuda": "", "ort": ""} | dict(session.hardware),
        "providers": session.providers,
        "sample_rate": 1.0,
        "redaction": {"image": images, "instruction": "full"},
        "notes": session.notes,
        "reflex_version": __version__,
    }
    if session.policies:
        record["policies"] = session.policies
    if session.observation_steps > 1:
        record["observation_steps"] = session.observation_steps
    if session.limits:
        record["limits"] = dict(session.limits)
    added = {
        "part": part,
        "dropped": dropped,
        "robot_id": session.robot_id,
        "versions": session.versions,
        "noise": session.noise,
        "action_names": session.action_names,
        "state_names": session.state_names,
        "settings": session.settings,
        "preprocessing": PREPROCESSING,
    }
    return record | added


def footer_record(*, ended_at: str, total_requests: int, records: int, errors: int, dropped: int) -> Record:
    """Return the last line after an orderly stop. total_requests: the next `seq`; records: requests in this file."""
    return {
        "kind": FOOTER,
        "schema_version": SCHEMA_VERSION,
        "ended_at": ended_at,
        "total_requests": total_requests,
        "records": records,
        "total_errors": errors,
        "dropped": dropped,
    }


def request_record(
    request: Request,
    outcome: Served | Failure,
    *,
    seq: int,
    timestamp: str,
    images: str,
    vlm_conditioning: str,
    recent: RecentImages | None = None,
) -> Record:
    """Return the record of one request and its outcome. recent: images that the file has already; None: nothing is kept."""
    record: Record = {
        "kind": REQUEST,
        "schema_version": SCHEMA_VERSION,
        "seq": seq,
        "chunk_id": seq,
        "timestamp": timestamp,
        "request": _request(request, images, recent),
    }
    if isinstance(outcome, Failure):
        return record | {
            "response": {"actions": [], "num_actions": 0, "action_dim": 0},
            "latency": {"total_ms": 0.0},
            "denoise": {"steps_used": 0, "steps_configured": 0, "adaptive": False},
            "mode": "",
            "vlm_conditioning": vlm_conditioning,
            "error": {"slug": outcome.slug, "message": outcome.message[:MESSAGE_LENGTH]},
        }
    inference = outcome.inference.document() | outcome.inference.replay_document()
    denoise = {short: inference.pop(name) for name, short in DENOISE.items()}
    record |= {
        "response": _response(outcome),
        "latency": _latency(outcome),
        "denoise": {name: value for name, value in denoise.items() if value is not None},
        "mode": inference.pop("inference_mode"),
        "vlm_conditioning": vlm_conditioning,
    }
    blocks = {
        "cache": _optional(outcome.cache),
        "guard": outcome.guard.document(),
        "deadline": _deadline(request, outcome.fallback),
        "rtc": _optional(outcome.rtc, **outcome.rtc.replay_document()),
        "temporal_ensemble": _optional(outcome.ensemble, **outcome.ensemble.replay_document()),
        "routing": _optional(outcome.routing),
        "history": outcome.history.document() if outcome.history.present else None,
        "a2c2": _optional(outcome.a2c2),
        "noise": {"seed": outcome.seed},
        "slot": outcome.slot,
        "model_version": outcome.model_version,
        "tokens_cut": inference.pop("instruction_tokens_cut") or None,
        "injected_latency_ms": _ms(outcome.injected_latency_ms) or None,
        **inference,
    }
    return record | {name: block for name, block in blocks.items() if block is not None}


def _request(request: Request, images: str, recent: RecentImages | None) -> Record:
    observation = request.observation
    made: Record = {"instruction": observation.instruction, "state": exact(observation.state)}
    if images != NONE:
        made |= _images(observation, recent, with_bytes=images == FULL)
    made |= {
        "episode_id": request.episode_id,
        "request_id": request.request_id,
        "stamp_ns": observation.stamp_ns,
        "age_ms": _ms(observation.age_ms),
        "caller": caller_of(request),
        "wire": request.wire,
    }
    if observation.history:
        made["history"] = [_earlier(one, images, recent) for one in observation.history]
    return made


def _earlier(observation: Observation, images: str, recent: RecentImages | None) -> Record:
    """Return one of the observations before a request's own; an image that the file has already is its hash."""
    made: Record = {"state": exact(observation.state), "stamp_ns": observation.stamp_ns}
    cameras: Record = {}
    for camera, frame in observation.frames.items() if images != NONE else ():
        kept, described = _image(frame, recent, with_bytes=images == FULL, again=False)
        cameras[camera] = described | kept
    return made | ({"cameras": cameras} if cameras else {})


def _images(observation: Observation, recent: RecentImages | None, *, with_bytes: bool) -> Record:
    """Return the first camera as version 1 has it, then every camera by name; no image is written twice."""
    primary: Record = {}
    cameras: Record = {}
    for number, (camera, frame) in enumerate(observation.frames.items()):
        kept, described = _image(frame, recent, with_bytes=with_bytes, again=True)
        cameras[camera] = described
        if number == 0:
            primary = kept | {"camera": camera}
        else:
            cameras[camera] |= kept
    return primary | ({"cameras": cameras} if cameras else {})


def _image(
    frame: Frame, recent: RecentImages | None, *, with_bytes: bool, again: bool
) -> tuple[Record, Record]:
    """Return hash and text of an image, and what describes it. again: the text also where the file has it already."""
    data = encoded(frame)
    text = base64_text(data)
    digest = text_hash(text)
    known = not again and recent is not None and digest in recent
    if recent is not None and with_bytes:
        recent.put(digest)
    kept = {"image_sha256": digest} | ({"image_b64": text} if with_bytes and not known else {})
    return kept, {"bytes_sha256": bytes_hash(data), "encoding": frame.encoding}


def _response(served: Served) -> Record:
    chunk = served.chunk
    rows, columns = chunk.actions.shape
    made: Record = {"actions": exact(chunk.actions), "num_actions": rows, "action_dim": columns}
    raw = served.raw_actions
    if raw.shape != chunk.actions.shape or raw.tobytes() != chunk.actions.tobytes():
        made["raw_actions"] = exact(raw)
    return made | {
        "names": chunk.names,
        "dt_s": chunk.dt_s,
        "source": chunk.source,
        "start_index": chunk.start_index,
        "hold_reason": served.hold_reason,
    }


def _latency(served: Served) -> Record:
    stages = {name: _ms(value) for name, value in served.inference.stages_ms.items()}
    return {"total_ms": _ms(served.latency_ms), "stages": stages}


def _ms(value: float) -> float | None:
    """Round milliseconds to the microsecond: the rest is noise of the clock."""
    return round(float(value), 3) if np.isfinite(value) else None


def _deadline(request: Request, fallback: Fallback) -> Record | None:
    if request.deadline_ns is None and not fallback.deadline_exceeded:
        return None
    budget = None if request.deadline_ns is None else _ms((request.deadline_ns - request.received_ns) * 1e-6)
    document = _rounded(fallback.document())
    return {"exceeded": document.pop("deadline_exceeded"), "budget_ms": budget, **document}


def _optional(block: Block, **more: Any) -> Record | None:
    """Return a block's document, None where it is empty: it is then left out of the record."""
    return _rounded(block.document()) | more if block.present else None


def _rounded(document: Record) -> Record:
    return {name: _ms(value) if name.endswith("_ms") else value for name, value in document.items()}
