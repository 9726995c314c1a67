# SPDX-License-Identifier: Apache-2.0
"""Read the header of a safetensors file: which tensors it holds, and whether all of their bytes are there.

The format: 8 bytes, little endian, the length of the header; the header, a JSON object of tensors with `dtype`, `shape`
and `data_offsets`; then the bytes of the tensors without a gap (github.com/huggingface/safetensors).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType
from typing import Any

from reflex_core.errors import ExportError
from reflex_core.files.json_fields import JsonError, is_whole, parse_json
from reflex_core.files.regular_file import unreadable
from reflex_core.text.untrusted import escaped
from reflex_export.checkpoint import TensorEntry, WeightsFile

LENGTH_BYTES, MOST_HEADER = 8, 100_000_000  # the format's own limit
DTYPE_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "U16": 16, "I16": 16, "F16": 16, "BF16": 16,
    "U32": 32, "I32": 32, "F32": 32, "U64": 64, "I64": 64, "F64": 64,
}  # fmt: skip
DAMAGED = "weights-damaged"


def read_weights(file: Path) -> WeightsFile:
    """Return the tensors of a file by its header. Raises ExportError where it is no such file, or is cut short."""
    if why := unreadable(file):
        raise ExportError(f"{file}: the weights of the policy are {why}", "export-file-missing")
    size = file.stat().st_size
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(LENGTH_BYTES), "little")
            if not 2 <= length <= min(MOST_HEADER, size - LENGTH_BYTES):
                raise _damaged(file, "its first 8 bytes are not the length of a header in it")
            header = parse_json(stream.read(length))
    except JsonError as error:
        raise _damaged(file, f"its header is {error}") from error
    except OSError as error:
        raise ExportError(f"{file}: cannot be read: {error.strerror or error}", DAMAGED) from error
    if not isinstance(header, dict):
        raise _damaged(file, "its header is no JSON object")
    tensors = dict(_tensors(file, header))
    _check_bytes(file, tensors, size - LENGTH_BYTES - length)
    return WeightsFile(file, MappingProxyType(tensors), LENGTH_BYTES + length)


def _tensors(file: Path, header: dict[str, Any]) -> Iterator[tuple[str, TensorEntry]]:
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        try:
            dtype, shape, (start, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
            right = dtype in DTYPE_BITS and all(is_whole(number, 0) for number in (*shape, start, end))
        except (KeyError, TypeError, ValueError):
            right = False
        if not right:
            raise _damaged(file, f"its header describes no tensor under {escaped(name)!r}")
        tensor = TensorEntry(dtype, shape, start, end)
        if end - start != tensor.elements * DTYPE_BITS[dtype] // 8:
            raise _damaged(file, f"tensor {escaped(name)!r} has another number of bytes than its shape")
        yield name, tensor


def _check_bytes(file: Path, tensors: dict[str, TensorEntry], there: int) -> None:
    """Raise ExportError unless the tensors fill the rest of the file."""
    at = 0
    for tensor in sorted(tensors.values(), key=lambda tensor: (tensor.start, tensor.end)):
        if tensor.start != at:
            raise _damaged(file, "its tensors overlap or leave gaps")
        at = tensor.end
    if not tensors:
        raise _damaged(file, "it holds no tensors")
    if at != there:
        raise _damaged(file, f"its tensors have {at} bytes, and {there} bytes follow its header")


def _damaged(file: Path, why: str) -> ExportError:
    return ExportError(
        f"{file}: is cut short or damaged: {why}: copy or download it again (LeRobot loads such a file in silence and"
        " acts at random)",
        DAMAGED,
    )
