# SPDX-License-Identifier: Apache-2.0
"""What one recorded request teaches: what was seen, what the policy answered, and what was executed first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from reflex_core.errors import ObservationError
from reflex_core.images.file_kinds import KINDS
from reflex_core.images.raw_encodings import encoded_size, rgb
from reflex_core.records.trace.executed import ExecutedRows, Timeline
from reflex_core.records.trace.fields import timestamp_ns
from reflex_core.records.trace.parse import Recorded, TraceError
from reflex_core.records.trace.schema import NONE
from reflex_core.replay.recorded_images import ImageFiles, frames_of
from reflex_core.values import POLICY, TELEOP, Floats, Frame, Pixels

NO_STATE, NOT_FINITE, NO_ACTIONS, EXPIRED = "no state", "not finite", "no actions", "expired"
NOT_EXECUTED = "not executed"


@dataclass(frozen=True, slots=True)
class Example:
    """One frame of a dataset.

    state: (state_dim,). served, raw: (horizon, action_dim), the chunk after the guard and before it, all float32.
    row: the row of `served` that the robot began with. time_s: since the first frame of the episode. commanded: (action_dim,) what
    was executed instead of it, a person's command or the share of the policy's motion that was let through; None where it was that row.
    control: who commanded it.
    """

    seq: int
    time_ns: int
    time_s: float
    instruction: str
    state: Floats
    served: Floats
    raw: Floats
    row: int
    frames: Mapping[str, Frame]
    commanded: Floats | None = None
    control: str = POLICY

    @property
    def action(self) -> Floats:
        """(action_dim,) what was executed first."""
        if self.commanded is not None:
            return self.commanded
        return np.asarray(self.served[self.row])

    @property
    def place(self) -> str:
        """Where it is in its recording."""
        return f"seq {self.seq}"


def pictures(frames: Mapping[str, Frame], trace: str, place: str) -> Iterator[tuple[str, Frame, Pixels]]:
    """Yield each camera's name, frame and (height, width, 3) RGB pixels. Raises TraceError for a damaged image."""
    for camera, frame in frames.items():
        try:
            yield camera, frame, np.ascontiguousarray(rgb(frame))
        except ObservationError as error:
            raise TraceError(f"{trace}, {place}, camera '{camera}': {error}") from error


def why_unfit(record: Recorded) -> str:
    """Return why nothing can be learned from a request; empty where something can.

    Only the policy's own answers count: a hold, the last good chunk or another server's answer are not its actions.
    """
    if record.error is not None:
        return "error"
    if record.source != POLICY:
        return record.source
    if record.state is None:
        return NO_STATE
    if not record.actions.size or record.raw_actions.shape != record.actions.shape:
        return NO_ACTIONS
    if not all(np.isfinite(part).all() for part in (record.state, record.actions, record.raw_actions)):
        return NOT_FINITE
    return EXPIRED if executed_row(record) >= len(record.actions) else ""


def executed_row(record: Recorded) -> int:
    """Return the row of its chunk that was due when the answer left.

    Row i is to be reached at the observation's stamp + (i + 1) * dt_s, so the rows of the observation's age and of the
    latency are over. Without a dt_s it is the first that the answer allows.
    """
    if not record.dt_s:
        return record.start_index
    age_ms = record.document["request"].get("age_ms")
    elapsed_ms = record.total_ms + (age_ms if isinstance(age_ms, (int, float)) else 0.0)
    return max(record.start_index, int(elapsed_ms * 1e-3 / record.dt_s))


def executed_instead(record: Recorded, timeline: Timeline) -> tuple[str, ExecutedRows | None]:
    """Return why nothing can be learned from what the robot did with an answer, "" where something can, and what it did instead.

    None: it followed the answer as it was served.
    """
    own = timeline.of(record.request_id)
    if own is not None:
        return _unequal(record, own), None if own.blend >= 1.0 else own
    if not timeline.whole or record.stamp_ns <= 0:  # of another robot, over HTTP
        return "", None
    command = timeline.during(record.seq)
    if command is None or command.control != TELEOP or command.episode_id != (record.episode_id or ""):
        return NOT_EXECUTED, None
    return _unequal(record, command), command


def executed_action(record: Recorded, command: ExecutedRows) -> Floats:
    """Return (action_dim,) the row of a command that was due when an answer left, or when the command began, whichever was later."""
    age_ms = record.document["request"].get("age_ms")
    since_ms = record.total_ms + (age_ms if isinstance(age_ms, (int, float)) else 0.0)
    return command.due(max(record.stamp_ns + int(since_ms * 1e6), command.began_ns))


def _unequal(record: Recorded, command: ExecutedRows) -> str:
    fits = command.names == record.names and bool(np.isfinite(command.rows).all())
    return "" if fits else NOT_EXECUTED


def recorded_ns(record: Recorded, where: str) -> int:
    """Return when the record was written, for requests without a sensor stamp. Raises TraceError when that is no time."""
    found_ns = timestamp_ns(record.timestamp)
    if found_ns is None:
        raise TraceError(
            f"{where}, seq {record.seq}: has no stamp, and its timestamp '{record.timestamp[:40]}' is no time"
        )
    return found_ns


def frames(record: Recorded, files: ImageFiles | None, image_mode: object, where: str) -> Mapping[str, Frame]:
    """Return every camera's frame, not yet decoded. Raises TraceError where an image is missing."""
    if not record.images and image_mode == NONE:
        raise TraceError(
            f"{where}: was recorded with --record-images none, and a dataset needs the pictures: record with"
            " --record-images full"
        )
    if files is None and any(image.text is None for image in record.images.values()):
        raise TraceError(
            f"{where}, seq {record.seq}: only hashes of the pictures were recorded: name the directory that holds the"
            " pictures with --images, or record with --record-images full"
        )
    try:
        return frames_of(record, files, "")
    except TraceError as error:
        raise TraceError(f"{where}, seq {record.seq}: {error}") from error


def size_of(frame: Frame, where: str) -> tuple[int, int]:
    """Return (height, width) without decoding the frame. Raises TraceError for a damaged image."""
    if frame.encoding not in KINDS:
        return frame.height, frame.width
    try:
        return encoded_size(frame.data)[1:]
    except ObservationError as error:
        raise TraceError(f"{where}: {error}") from error
