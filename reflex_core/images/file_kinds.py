# SPDX-License-Identifier: Apache-2.0
"""The kinds of image files: a new one is a file next to jpeg.py and png.py, and a row here."""

from __future__ import annotations

from collections.abc import Mapping

from reflex_core.errors import ObservationError
from reflex_core.images import jpeg, png
from reflex_core.images.file_kind import FileHeader, FileKind

KINDS: Mapping[str, FileKind] = {kind.name: kind for kind in (jpeg.KIND, png.KIND)}
NAMED = " nor ".join(kind.title for kind in KINDS.values())  # "neither JPEG nor PNG"


def kind_of(data: bytes | memoryview) -> FileKind | None:
    """Return the kind whose first bytes these are, None for no image file."""
    head = bytes(data[:32])
    for kind in KINDS.values():
        if head.startswith(kind.begins_with):
            return kind
    return None


def file_header(data: bytes | memoryview) -> FileHeader:
    """Return the header of an image file; nothing is decoded. Raises ObservationError when it is none."""
    kind = kind_of(data)
    if kind is None:
        raise ObservationError(f"the image is neither {NAMED}", "bad-image")
    return kind.header(data)
