# SPDX-License-Identifier: Apache-2.0
"""Decode and encode base64 as Python's base64 module does, with the vector instructions of pybase64 where it is installed."""

from __future__ import annotations

import base64
from typing import Any

pybase64: Any
try:
    import pybase64
except ModuleNotFoundError:  # a workspace without wheels: the same bytes, slower
    pybase64 = None


def decoded(text: str | bytes) -> bytes:
    """Return what `base64.b64decode(text, validate=True)` does. Raises ValueError for what that refuses."""
    if pybase64 is not None:
        try:
            found: bytes = pybase64.b64decode(text, validate=True)
            return found
        except ValueError:
            pass  # rare: base64 takes some spellings that pybase64 refuses
    return base64.b64decode(text, validate=True)


def encoded(data: bytes | bytearray | memoryview) -> str:
    """Return standard base64 with padding, without line breaks."""
    made: bytes = base64.b64encode(data) if pybase64 is None else pybase64.b64encode(data)
    return made.decode("ascii")
