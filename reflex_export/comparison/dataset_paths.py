# SPDX-License-Identifier: Apache-2.0
"""Files that a data set names: inside its folder, regular, and by patterns that only put names and numbers together."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from reflex_core.errors import ExportError
from reflex_core.files.regular_file import unreadable
from reflex_core.text.untrusted import shown

# {video_key}, {chunk_index:03d}: a format of Python can read attributes, or fill gigabytes
_FIELD = re.compile(r"\{(?P<name>\w+)(?::0?\d{1,2}d)?\}")


def dataset_file(folder: Path, name: object) -> Path:
    """Return a file that a data set names. Raises ExportError where it is no regular file in its folder.

    Links are followed: the cache of the Hugging Face hub consists of them.
    """
    parts = PurePosixPath(name) if isinstance(name, str) else None
    if parts is None or parts.is_absolute() or ".." in parts.parts or "\0" in str(parts):
        raise ExportError(f"names the file {shown(name)}, which is not in its folder")
    file = folder / parts
    if why := unreadable(file):
        raise ExportError(f"its file {shown(name)} is {why}")
    return file


def filled_in(pattern: str, values: Mapping[str, object]) -> str:
    """Return a pattern of file names, `videos/{video_key}/file-{file_index:03d}.mp4`, with its values.

    Raises ExportError for fields that are not those of a data set.
    """
    rest = _FIELD.sub("", pattern)
    if "{" in rest or "}" in rest or any(found["name"] not in values for found in _FIELD.finditer(pattern)):
        raise ExportError(
            f"names its files by {shown(pattern)}: known are {', '.join(sorted(values))}, as {{name}} or {{name:03d}}"
        )
    return pattern.format(**values)
