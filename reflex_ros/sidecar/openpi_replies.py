# SPDX-License-Identifier: Apache-2.0
"""What openpi's servers send: metadata, chunks and refusals, checked before anything is made of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from reflex_core.errors import ReflexError
from reflex_core.files.json_fields import is_number, is_whole
from reflex_core.policy.cloud_server import INVALID, STATUS, CloudAnswer, CloudError
from reflex_core.policy.remote_server import RemoteAbout
from reflex_core.settings.wire_keys import unmarked
from reflex_core.text.untrusted import escaped
from reflex_core.values import CLOUD, NOTHING, POLICY, Floats, Inference
from reflex_ros.sidecar.wires.msgpack_codec import unpack

NOT_NOW = ("not-ready", "server-degraded", "too-many-requests", "queue-full")  # refusals that pass


def refused(text: str) -> CloudError:
    """Return the error of a text frame: a refusal of one request, or the traceback of a server that failed."""
    last = escaped(text.strip().rpartition("\n")[2], 300)
    return CloudError(STATUS, f"it refused: {last}", 503 if text.startswith(NOT_NOW) else 422)


def read(data: bytes) -> Any:
    """Return the value of a message. Raises CloudError."""
    try:
        return unpack(data).value
    except ReflexError as error:
        raise CloudError(INVALID, f"the reply is no msgpack of this kind: {error}") from error


def read_metadata(data: bytes) -> Mapping[Any, Any]:
    """Return the first message of a connection. Raises CloudError."""
    found = read(data)
    if not isinstance(found, dict):
        raise CloudError(INVALID, "its first message is no map")
    return found


def about_of(metadata: Mapping[Any, Any], dialect: str) -> RemoteAbout:
    """Return what the metadata say; what is not in our words, or not of their kind, they do not say."""
    ours = metadata.get("server") == "reflex"
    names = _names(metadata.get("action_names"))
    rate, dt_s = metadata.get("control_hz"), metadata.get("dt_s")
    seconds = (
        float(dt_s) if is_number(dt_s) and dt_s != 0 else 1.0 / rate if is_number(rate) and rate > 0 else None
    )
    space = metadata.get("action_space")
    return RemoteAbout(
        dialect=dialect,
        model_version=text
        if isinstance(text := metadata.get("model_version"), str) and text.isprintable()
        else "",
        action_names=names,
        action_dim=_whole(metadata.get("action_dim")) or len(names),
        horizon=_whole(metadata.get("action_horizon")),
        dt_s=seconds,
        cameras=_names(metadata.get("cameras")) if ours else None,
        state_names=_names(metadata.get("state_names")) if ours and metadata.get("needs_state") else (),
        state_dim=_whole(metadata.get("state_dim")),
        reads_state=metadata.get("needs_state") is not False,
        reads_language=metadata.get("needs_instruction") is not False,
        # a gripper in shares of its way is no position of its joint
        action_space=space if isinstance(space, str) and not _counts_shares(metadata) else "",
    )


def _counts_shares(metadata: Mapping[Any, Any]) -> bool:
    """Return whether a server of ours has keys of the state, and so columns of its rows, that are a gripper's share of its way."""
    entries = _names(metadata.get("wire_keys"))
    return any(unmarked(part) != part for entry in entries for part in entry.split("+"))


def answer_of(reply: Any, metadata: Mapping[Any, Any]) -> CloudAnswer:
    """Return the chunk of a reply: a map with `actions`, or the array itself. Raises CloudError.

    What the reply does not say of its rows, joints and rate, the metadata of its connection do.
    """
    found, own = reply, NOTHING
    if isinstance(reply, dict):
        if reply.get("type") == "error":
            raise refused(str(reply.get("message")))
        arrays = {key: value for key, value in reply.items() if isinstance(value, np.ndarray)}
        found = reply.get("actions")
        if found is None and len(arrays) == 1:
            [found] = arrays.values()
        if found is None:
            keys = ", ".join(sorted(str(key) for key in reply))[:200]
            raise CloudError(INVALID, f"the reply has no 'actions' (it has {keys or 'nothing'})")
        own = _mapping(reply, "reflex")
    chunk, policy = _mapping(own, "chunk"), _mapping(own, "policy")
    about, dt_s, source = about_of(metadata, ""), chunk.get("dt_s"), chunk.get("source")
    version = policy.get("model_version") or metadata.get("model_version")
    return CloudAnswer(
        actions=_rows(found),
        names=about.action_names,
        dt_s=float(dt_s) if is_number(dt_s) else about.dt_s,
        source=source if isinstance(source, str) else POLICY,
        model_version=version[:128] if isinstance(version, str) and version.isprintable() else "unknown",
        inference=Inference(CLOUD, denoise_steps_configured=0),
    )


def _rows(found: Any) -> Floats:
    """Return (n, m) float32; values beyond float32 become Inf. Raises CloudError."""
    if not isinstance(found, np.ndarray) or found.dtype.kind not in "fiu":
        raise CloudError(INVALID, f"'actions' is no array of numbers but {type(found).__name__}")
    rows = found[0] if found.ndim == 3 and len(found) == 1 else found
    if rows.ndim != 2:
        raise CloudError(INVALID, f"'actions' has the shape {found.shape}, expected rows and columns")
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(rows, dtype=np.float32)


def _mapping(found: Mapping[Any, Any], key: str) -> Mapping[Any, Any]:
    value = found.get(key)
    return value if isinstance(value, dict) else {}


def _names(value: object) -> tuple[str, ...]:
    return tuple(value) if isinstance(value, list) and all(isinstance(name, str) for name in value) else ()


def _whole(value: object) -> int:
    return value if is_whole(value, 0, 2**31) else 0
