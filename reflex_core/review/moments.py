# SPDX-License-Identifier: Apache-2.0
"""One request of a recording as a person looks at it: what the policy saw, what it made, what was served and why."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reflex_core.errors import ReflexError
from reflex_core.files.json_fields import is_number
from reflex_core.images.thumbnail import thumbnail
from reflex_core.records.trace.fields import timestamp_ns
from reflex_core.records.trace.parse import Recorded, RecordedImage
from reflex_core.records.trace.verdicts import Verdict, verdict_of
from reflex_core.replay.recorded_images import ImageFiles
from reflex_core.values import Floats

NOT_RECORDED = "only its hash was recorded (--record-images full keeps the image)"
MOST_JOINTS = 64
LAST_NS = 1 << 62  # in the year 2116: what comes later is no clock
MOST_DT_S = 60.0
STAGES_KEPT = 16

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Moment:
    """One request. observed_ns, answered_ns: since 1970, by the clock of the machine that recorded; 0 where unknown.

    raw, served: (rows, len(names)) float32 before and after the guard. changed: the same shape, True where they differ.
    measured: position by joint. images: small JPEG by camera. without: sentence by camera whose image is not there.
    budget_ms: of the deadline, None without one. document: the record as it was written.
    """

    seq: int
    episode_id: str
    instruction: str
    observed_ns: int
    answered_ns: int
    names: tuple[str, ...]
    raw: Floats
    served: Floats
    changed: Mask
    measured: Mapping[str, float]
    images: Mapping[str, bytes]
    without: Mapping[str, str]
    verdict: Verdict
    total_ms: float
    stages_ms: Mapping[str, float]
    budget_ms: float | None
    dt_s: float
    document: Mapping[str, Any]


def moments(
    records: Iterable[Recorded], header: Mapping[str, Any], longest_side: int, files: ImageFiles | None = None
) -> Iterator[Moment]:
    """Yield the requests of a recording with that header, with images of at most `longest_side`. Raises TraceError."""
    names = header.get("state_names")
    state_names = tuple(str(name) for name in names) if isinstance(names, list) else ()
    for record in records:
        yield moment_of(record, state_names, longest_side, files)


def moment_of(
    record: Recorded, state_names: tuple[str, ...], longest_side: int, files: ImageFiles | None = None
) -> Moment:
    """Return one request. state_names: of the columns of its state; where there are none, those of its actions are taken."""
    served = record.actions[:, :MOST_JOINTS]
    raw = record.raw_actions[:, :MOST_JOINTS]
    count = served.shape[1]
    names = (
        record.names[:count] if len(record.names) >= count else tuple(f"action {at}" for at in range(count))
    )
    if raw.shape != served.shape:  # the guard held a chunk of another length: there is no row to compare with
        changed: Mask = np.ones(served.shape, np.bool_)
    else:
        changed = (raw != served) & ~(np.isnan(raw) & np.isnan(served))
    images, without = _images(record, longest_side, files)
    answered_ns = timestamp_ns(record.timestamp) or 0
    answered_ns = answered_ns if 0 < answered_ns < LAST_NS else 0
    age_ms = record.document["request"].get("age_ms")
    before_ms = max(record.total_ms, 0.0) + (age_ms if is_number(age_ms, 0, 60_000) else 0.0)
    budget_ms = record.document.get("deadline")
    budget_ms = budget_ms.get("budget_ms") if isinstance(budget_ms, dict) else None
    stages = {
        str(name)[:40]: float(ms) for name, ms in [*record.stages_ms.items()][:STAGES_KEPT] if is_number(ms)
    }
    return Moment(
        record.seq, record.episode_id or "", record.instruction, max(answered_ns - round(before_ms * 1e6), 0),
        answered_ns, names, raw, served, changed, _measured(record, state_names or names), images, without,
        verdict_of(record.document), record.total_ms, stages, float(budget_ms) if is_number(budget_ms) else None,
        record.dt_s if record.dt_s and 0 < record.dt_s <= MOST_DT_S else 0.0, record.document,
    )  # fmt: skip


def spans(changed: Mask) -> list[tuple[int, int]]:
    """Return (first, last) of every run of changed rows of one column."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], changed, [False]]).astype(np.int8)))
    return [(int(first), int(last) - 1) for first, last in zip(edges[::2], edges[1::2], strict=True)]


def _measured(record: Recorded, names: tuple[str, ...]) -> dict[str, float]:
    if record.state is None:
        return {}
    return {
        name: float(value)
        for name, value in zip(names[:MOST_JOINTS], record.state, strict=False)
        if np.isfinite(value)
    }


def _images(
    record: Recorded, longest_side: int, files: ImageFiles | None
) -> tuple[dict[str, bytes], dict[str, str]]:
    images: dict[str, bytes] = {}
    without: dict[str, str] = {}
    for camera, image in record.images.items():
        try:
            frame = image.frame() or _found(image, files)
            if frame is None:
                without[camera] = NOT_RECORDED
                continue
            images[camera] = thumbnail(frame, longest_side)
        except ReflexError as error:
            without[camera] = str(error)
        except ValueError as error:  # the encoder refuses shapes that no camera has
            without[camera] = f"the image of camera '{camera}' cannot be shown: {error}"
    return images, without


def _found(image: RecordedImage, files: ImageFiles | None) -> Any:
    return None if files is None else files.frame(image.sha256)
