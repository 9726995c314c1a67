# SPDX-License-Identifier: Apache-2.0
"""Code speaks the terms of the field: no word of the old dialect in names, docstrings, comments, messages and help."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytest
from repository import ROOT

# words that a stranger cannot search for, as regular expressions, with the field's term
WORDS = {
    "onion": "middleware chain", "spool": "batch queue", "headline": "status summary", "baked": "fused denoise loop",
    "well_known": "model families", "drivable": "preflight", "whoever": "the caller, the thread, ...",
    "makes of it": "the result", "spoken of": "reported, logged", "surroundings": "engine context",
    "told": "commanded", "stands? in for": "is a fallback for", "stand-?ins?": "fallback", "doors?": "endpoint, interface",
    "nobody": "no client, no caller, unknown", "somebody": "a client, a person, a thread", "anybody": "any caller",
    "hears": "is notified",
}  # fmt: skip
# right in a sentence, and nothing that a function, a class or a variable is called
NAMES = {
    "said": "message, output, reply", "asked": "request, decoded", "tell": "notify, log, feed", "seal(?:ed)?": "manifest, hash",
    "company": "graph, other nodes", "stand_in": "fallback",
}  # fmt: skip
# slugs, names of fields and of verdicts that programs read
ALLOWED = ("adaptive-baked", "slo-degrade-baked", "undrivable", "undrivability")
DOCUMENT_FIELDS = ("finding.py", "judgement.py")  # `said` is a key of the doctor's JSON
PACKAGES = ("reflex_client", "reflex_core", "reflex_ros", "reflex_export")
FILES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
TESTS = [
    path
    for path in sorted((ROOT / "test").rglob("*.py"))
    if "made_by_3d37f39" not in path.parts and "msg" not in path.parts
]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_code_speaks_the_terms_of_the_field(path: Path) -> None:
    assert spoken(texts(path), WORDS) == {}


@pytest.mark.parametrize("path", TESTS, ids=name_of)
def test_tests_speak_the_terms_of_the_field(path: Path) -> None:
    """In names, docstrings and comments; other strings are data."""
    assert spoken(texts(path, data=False), WORDS) == {}


@pytest.mark.parametrize("path", [*FILES, *TESTS], ids=name_of)
def test_what_code_defines_has_the_names_of_the_field(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = (
        (line, name) for line, name in defined(tree) if not (name == "said" and path.name in DOCUMENT_FIELDS)
    )
    assert (
        spoken(((line, in_parts(name)) for line, name in names if not name.startswith("test_")), NAMES) == {}
    )


def spoken(lines: Iterable[tuple[int, str]], words: Mapping[str, str]) -> dict[str, str]:
    """Return the words of the dialect in (line, text), each with the term of the field."""
    return {
        f"line {line}: {word}": term
        for line, text in lines
        for word, term in words.items()
        if re.search(rf"(?<![a-z]){word}(?![a-z])", text)
    }


def texts(path: Path, *, data: bool = True) -> Iterator[tuple[int, str]]:
    """Yield (line, lower-case words) of every name, string and comment; names in parts: `OldName` is `old_name`.

    data: also of strings that are no docstrings.
    """
    before = tokenize.NEWLINE
    for token in tokenize.generate_tokens(io.StringIO(path.read_text(encoding="utf-8")).readline):
        text = token.string
        for allowed in ALLOWED:
            text = text.replace(allowed, "")
        begins_line = before in (tokenize.NEWLINE, tokenize.INDENT)
        if token.type not in (tokenize.NL, tokenize.COMMENT):
            before = token.type
        if token.type == tokenize.STRING and not data and not begins_line:
            continue
        yield (
            token.start[0],
            in_parts(text) if token.type == tokenize.NAME else " ".join(text.lower().split()),
        )


def in_parts(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def defined(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield (line, name) of every function, class, parameter, variable and attribute that code sets."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.lineno, node.name
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.attr


def test_the_words_are_found_where_they_are(tmp_path: Path) -> None:
    code = 'class Told:\n    """Nobody."""\n\n    def ask(self, told):  # door\n        said = "nobody"\n'
    (tmp_path / "code.py").write_text(code)
    found = [key.partition(": ") for key in spoken(texts(tmp_path / "code.py", data=False), WORDS)]
    assert [(line, word) for line, _, word in found] == [
        ("line 1", "told"), ("line 2", "nobody"), ("line 4", "told"), ("line 4", "doors?"),
    ]  # fmt: skip
    assert "line 5: nobody" in spoken(texts(tmp_path / "code.py"), WORDS)
    assert [*spoken(((line, in_parts(name)) for line, name in defined(ast.parse(code))), NAMES)] == [
        "line 5: said"
    ]
