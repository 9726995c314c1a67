# SPDX-License-Identifier: Apache-2.0
"""Code speaks the terms of the field: no word of the old dialect in names, docstrings, comments, messages and help."""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest
from repository import ROOT

# words that a stranger cannot search for, as regular expressions, with the field's term
EVERYWHERE = {
    "onion": "middleware chain", "spool": "batch queue", "headline": "status summary", "baked": "fused denoise loop",
    "well_known": "model families", "drivable": "preflight", "whoever": "the caller, the thread, ...",
    "makes of it": "the result", "spoken of": "reported, logged", "surroundings": "engine context",
}  # fmt: skip
CORE = {
    "told": "commanded", "stands? in for": "is a fallback for", "stand-?ins?": "fallback", "doors?": "endpoint, interface",
    "nobody": "no client, no caller, unknown", "somebody": "a client, a person, a thread", "anybody": "any caller",
    "hears": "is notified",
}  # fmt: skip
# slugs, names of fields and of verdicts that programs read
ALLOWED = ("adaptive-baked", "slo-degrade-baked", "undrivable", "undrivability")
PACKAGES = {"reflex_core": EVERYWHERE | CORE, "reflex_export": EVERYWHERE | CORE, "reflex_ros": EVERYWHERE}
FILES = [(package, path) for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


@pytest.mark.parametrize(("package", "path"), FILES, ids=lambda value: str(value).removeprefix(f"{ROOT}/"))
def test_code_speaks_the_terms_of_the_field(package: str, path: Path) -> None:
    found = {
        f"line {line}: {word}": term
        for line, text in texts(path)
        for word, term in PACKAGES[package].items()
        if re.search(rf"(?<![a-z]){word}(?![a-z])", text)
    }
    assert found == {}


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line, lower-case words) of every name, string and comment; names in parts: `OnionLayer` is `onion_layer`."""
    for token in tokenize.generate_tokens(io.StringIO(path.read_text(encoding="utf-8")).readline):
        text = token.string
        for allowed in ALLOWED:
            text = text.replace(allowed, "")
        if token.type == tokenize.NAME:
            text = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", text)
        yield token.start[0], " ".join(text.lower().split())
