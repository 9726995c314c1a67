# SPDX-License-Identifier: Apache-2.0
"""Read the images of a recorded request: from the trace, or found by their hash among files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from reflex_core.errors import ObservationError
from reflex_core.records.trace.hashing import file_hash, frame_from
from reflex_core.records.trace.parse import SINGLE_CAMERA, Recorded, RecordedImage, TraceError
from reflex_core.values import Frame, Observation

LARGEST_BYTES = 64 << 20  # no camera's picture is larger; whatever else lies there is not read


class ImageFiles:
    """Every file below a directory by the `image_sha256` that a trace would have for it.

    Files are read once to be hashed and again when they are wanted, so memory holds names only. Raises TraceError
    when it is no directory or a file cannot be read.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        if not directory.is_dir():
            raise TraceError(f"--images {directory}: no such directory")
        self._paths: dict[str, Path] = {}
        try:
            for path in sorted(directory.rglob("*")):
                if path.is_file() and path.stat().st_size <= LARGEST_BYTES:
                    self._paths.setdefault(file_hash(path.read_bytes()), path)
        except OSError as error:
            raise TraceError(f"--images {directory}: {error.filename}: {error.strerror}") from error

    def __len__(self) -> int:
        return len(self._paths)

    def frame(self, sha256: str) -> Frame | None:
        """Return the image with that hash, not yet decoded; None where there is none."""
        path = self._paths.get(sha256)
        if path is None:
            return None
        try:
            return frame_from(path.read_bytes())
        except (OSError, ObservationError) as error:
            raise TraceError(f"{path}: {error}") from error


def history_of(record: Recorded, files: ImageFiles | None, *, images: bool) -> tuple[Observation, ...]:
    """Return the observations before a recorded one, oldest first. Raises TraceError for a missing image.

    images: False where the policy sees none.
    """
    return tuple(
        Observation(
            {camera: _frame(camera, image, files) for camera, image in one.images.items() if images},
            one.state, record.instruction, one.stamp_ns,
        )
        for one in record.history
    )  # fmt: skip


def frames_of(record: Recorded, files: ImageFiles | None, first_camera: str) -> Mapping[str, Frame]:
    """Return every recorded camera's frame by the robot's name for it. Raises TraceError for a missing one.

    first_camera: the camera of an image that the writer stored without a name.
    """
    frames: dict[str, Frame] = {}
    for camera, image in record.images.items():
        named = bool(record.document["request"].get("camera")) or camera != SINGLE_CAMERA
        frames[camera if named else first_camera or camera] = _frame(camera, image, files)
    return frames


def _frame(camera: str, image: RecordedImage, files: ImageFiles | None) -> Frame:
    frame = image.frame()
    if frame is None and files is not None:
        frame = files.frame(image.sha256)
    if frame is not None:
        return frame
    where = (
        "and no --images was given" if files is None else f"and none of the {len(files)} files has that hash"
    )
    raise TraceError(f"camera '{camera}': only the hash {image.sha256} was recorded, {where}")
