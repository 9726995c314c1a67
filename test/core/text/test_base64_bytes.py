# SPDX-License-Identifier: Apache-2.0
"""Base64 is read and written as Python's own module does it, with and without pybase64: every spelling, right or wrong."""

from __future__ import annotations

import base64
import random

import pytest

from reflex_core.text import base64_bytes

LETTERS = "ABCXYZabcxyz0189+/=-_ \n\té\0,"
WITH = pytest.mark.parametrize("fast", [True, False], ids=["pybase64", "without it"])


def outcome(text: str | bytes, reader: object) -> bytes | str:
    """The bytes, or that it was refused."""
    try:
        return reader(text)  # type: ignore[operator, no-any-return]
    except ValueError:
        return "refused"


def spellings() -> list[str]:
    """Right ones, right ones with one or two characters changed, cut or doubled, and short words of odd letters."""
    chooser = random.Random(20)
    made: list[str] = []
    for number in range(6000):
        text = base64.b64encode(chooser.randbytes(number % 70)).decode()
        made.append(text)
        for _ in range(chooser.randrange(1, 3)):
            at = chooser.randrange(len(text) + 1)
            text = text[:at] + chooser.choice([*LETTERS, "", "=="]) + text[at + chooser.randrange(2) :]
        made.append(text)
        made.append("".join(chooser.choices(LETTERS, k=number % 9)))
    return made


@WITH
def test_every_spelling_is_read_or_refused_as_base64_does(
    fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not fast:
        monkeypatch.setattr(base64_bytes, "pybase64", None)
    assert (base64_bytes.pybase64 is not None) == fast
    found = {"refused": 0, "read": 0}
    for text in spellings():
        expected = outcome(text, lambda text: base64.b64decode(text, validate=True))
        assert outcome(text, base64_bytes.decoded) == expected, text
        found["refused" if expected == "refused" else "read"] += 1
    assert min(found.values()) > 1000


@WITH
def test_what_is_written_is_what_base64_writes(fast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not fast:
        monkeypatch.setattr(base64_bytes, "pybase64", None)
    chooser = random.Random(3)
    for size in (0, 1, 2, 3, 1000, 65537):
        data = chooser.randbytes(size)
        for kind in (bytes, bytearray, memoryview):
            assert base64_bytes.encoded(kind(data)) == base64.b64encode(data).decode()
