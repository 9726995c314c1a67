# SPDX-License-Identifier: Apache-2.0
"""The header of a safetensors file: what it lists, and every way in which it can be damaged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from reflex_core.errors import ExportError
from reflex_export.folder.weights import read_weights

TENSORS = {
    "a.weight": np.zeros((2, 3), np.float32),
    "b": np.zeros((), np.int64),
    "c": np.zeros((0, 4), np.float16),
}


def written(path: Path, header: Any, data: bytes = b"", length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)
    return path


def entry(start: int, end: int, shape: list[int] | None = None, dtype: str = "F32") -> dict[str, Any]:
    return {
        "dtype": dtype,
        "shape": [(end - start) // 4] if shape is None else shape,
        "data_offsets": [start, end],
    }


def test_it_lists_what_the_library_wrote(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "w.safetensors", {"format": "pt"})
    found = read_weights(tmp_path / "w.safetensors")
    assert {name: (tensor.dtype, tensor.shape) for name, tensor in found.tensors.items()} == {
        "a.weight": ("F32", (2, 3)), "b": ("I64", ()), "c": ("F16", (0, 4)),
    }  # fmt: skip
    assert found.elements == 7
    assert (tmp_path / "w.safetensors").stat().st_size - found.data_start == 32


DAMAGED: dict[str, tuple[Any, bytes, int | None, str]] = {
    "empty": (b"", b"", 0, "its first 8 bytes are not the length"),
    "a length beyond the file": ({}, b"", 1 << 40, "its first 8 bytes are not the length"),
    "no JSON": (b"{half", b"", None, "its header is not readable as JSON"),
    "a list": ([1], b"", None, "its header is no JSON object"),
    "no tensors": ({"__metadata__": {}}, b"", None, "it holds no tensors"),
    "a tensor in words": ({"a": "big"}, b"", None, "describes no tensor under 'a'"),
    "an unknown dtype": ({"a": entry(0, 4, dtype="F31")}, bytes(4), None, "describes no tensor under 'a'"),
    "a negative offset": ({"a": entry(-4, 0)}, bytes(4), None, "describes no tensor under 'a'"),
    "another shape": ({"a": entry(0, 4, [2])}, bytes(4), None, "'a' has another number of bytes than its shape"),
    "a gap": ({"a": entry(0, 4), "b": entry(8, 12)}, bytes(12), None, "its tensors overlap or leave gaps"),
    "an overlap": ({"a": entry(0, 8), "b": entry(4, 12)}, bytes(12), None, "its tensors overlap or leave gaps"),
    "too short": ({"a": entry(0, 8)}, bytes(4), None, "its tensors have 8 bytes, and 4 bytes follow its header"),
    "too long": ({"a": entry(0, 4)}, bytes(8), None, "its tensors have 4 bytes, and 8 bytes follow its header"),
}  # fmt: skip


@pytest.mark.parametrize("what", DAMAGED)
def test_damage_is_refused_with_what_is_wrong(what: str, tmp_path: Path) -> None:
    header, data, length, match = DAMAGED[what]
    with pytest.raises(ExportError, match=match) as caught:
        read_weights(written(tmp_path / "w.safetensors", header, data, length))
    assert caught.value.slug == "weights-damaged"


@given(cut=st.integers(0, 10_000))
def test_every_file_that_is_cut_short_is_refused(cut: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "cut.safetensors"
    save_file(TENSORS, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: cut % len(whole)])
    with pytest.raises(ExportError, match="is cut short or damaged"):
        read_weights(path)


@pytest.mark.parametrize("what", [what for what in DAMAGED if what != "no tensors"])
def test_what_is_refused_here_is_refused_by_the_library_of_the_format_too(what: str, tmp_path: Path) -> None:
    header, data, length, _ = DAMAGED[what]
    path = written(tmp_path / "w.safetensors", header, data, length)
    with pytest.raises(SafetensorError), safe_open(str(path), framework="np"):
        pass
