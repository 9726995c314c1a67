# SPDX-License-Identifier: Apache-2.0
"""One JSON object per line, exact and readable by strict readers: what the trace and the audit log are written with."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from datetime import datetime, timezone
from math import isinf, isnan
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

_OPTIONS = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS
_NOT_ASCII = re.compile(r"[^\x00-\x7f]")


def json_line(record: Mapping[str, Any]) -> bytes:
    """Return compact ASCII JSON in the mapping's order, without the newline.

    float32 arrays become their shortest decimal form, which reads back to the same float32. What JSON has no form for
    becomes its text, so that one odd value in an optional block never loses the record.
    """
    try:
        line = orjson.dumps(record, default=_plain, option=_OPTIONS)
    except TypeError:  # lone surrogates, integers beyond 64 bits, deep nesting: the slow encoder knows them
        return json.dumps(_strict(record), separators=(",", ":"), default=_plain_slow).encode()
    return line if line.isascii() else _NOT_ASCII.sub(_escaped, line.decode()).encode()


def _escaped(match: re.Match[str]) -> str:
    return json.dumps(match.group())[1:-1]


def exact(array: NDArray[Any] | None) -> Any:
    """Return an array as `json_line` takes it; with NaN or Inf inside, nested lists that spell them "NaN", "Infinity"."""
    if array is None:
        return None
    if np.isfinite(array).all():
        return np.ascontiguousarray(array)
    return _spelled(np.asarray(array).tolist() if array.dtype == np.float64 else _shortest(array))


def _shortest(array: NDArray[Any]) -> Any:
    """Return nested lists of the float64 whose text is the shortest that identifies each float32."""
    return np.array([float(str(value)) for value in array.ravel()]).reshape(array.shape).tolist()


def _spelled(value: Any) -> Any:
    if isinstance(value, list):
        return [_spelled(item) for item in value]
    if isnan(value):
        return "NaN"
    if isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return value


def floats(value: Any) -> NDArray[np.float32]:
    """Return the float32 array that `exact` wrote, bit for bit. Raises ValueError or TypeError for anything else."""
    try:
        with np.errstate(over="ignore"):
            return np.asarray(value, dtype=np.float64).astype(np.float32)
    except (ValueError, TypeError):
        return np.asarray(_unspelled(value), dtype=np.float64).astype(np.float32)


def _unspelled(value: Any) -> Any:
    if isinstance(value, list):
        return [_unspelled(item) for item in value]
    return float(value)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, np.ndarray):
        return exact(value) if value.dtype.kind == "f" else value.tolist()
    if isinstance(value, (set, frozenset)):
        return sorted(value, key=str)
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


def _plain_slow(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    try:
        return _plain(value)
    except TypeError:
        return str(value)


def _strict(value: Any) -> Any:
    r"""Replace NaN by null and lone surrogates by `\ud800`: the slow encoder writes them bare, which strict readers refuse."""
    if isinstance(value, Mapping):
        return {str(key): _strict(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_strict(item) for item in value]
    if isinstance(value, np.ndarray):
        return _strict(value.tolist())
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


def utc_text(time_ns: int | None = None) -> str:
    """Return `YYYY-MM-DDTHH:MM:SS.mmmZ` of a wall clock reading, of now when none is given."""
    now_ns = time.time_ns() if time_ns is None else time_ns
    seconds, rest_ns = divmod(now_ns, 1_000_000_000)
    moment = datetime.fromtimestamp(seconds, timezone.utc)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{rest_ns // 1_000_000:03d}Z"
