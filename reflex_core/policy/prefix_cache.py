# SPDX-License-Identifier: Apache-2.0
"""The episode cache: reuse the prefix of an earlier observation while none of its inputs has changed."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from reflex_core.concurrency.lru import Lru
from reflex_core.errors import ConfigurationError
from reflex_core.export.config_schema import CacheRule
from reflex_core.export.contract import Contract
from reflex_core.export.export import Export
from reflex_core.export.image_slots import ImageSlot
from reflex_core.images.scaling import area_averaged
from reflex_core.policy.inputs import Arrays
from reflex_core.policy.session import Tensor
from reflex_core.reports import NOT_CACHED
from reflex_core.robot.callers import is_episode
from reflex_core.values import Floats, Observation

FLAG = "--prefix-cache"
EPISODES_KEPT = 8
MOST_BYTES = 512 * 1024 * 1024
THUMBNAIL = 16  # cells per side: each is the mean of many pixels, so that a camera's noise is not a change

ENOUGH_PIXELS = 25_000  # of a larger picture every second row is looked at, or every third

HIT, MISS = "hit", "miss"

Tensors = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class Seen:
    """The inputs of a prefix. thumbnails: (16, 16, 3) float32 per picture, each channel's range is 1.

    exact: every other input, which must be the same to the byte. at_ns: when it was seen, monotonic; stamp_ns: on the
    robot's clock, 0 when unknown.
    """

    thumbnails: tuple[Floats, ...]
    exact: tuple[bytes, ...]
    at_ns: int
    stamp_ns: int

    def older_ms(self, now: Seen) -> float:
        """Return how much older it is than `now`, in ms; negative when it is newer."""
        if self.stamp_ns and now.stamp_ns:
            return (now.stamp_ns - self.stamp_ns) * 1e-6
        return (now.at_ns - self.at_ns) * 1e-6


@dataclass(frozen=True, slots=True)
class Found:
    """Result of a look-up; `why` names what has changed when it is a miss."""

    prefix: Tensors | None
    status: str
    age_ms: float = 0.0
    why: str = ""


@dataclass(frozen=True, slots=True)
class _Kept:
    seen: Seen
    prefix: Tensors
    size_bytes: int


NOTHING_KEPT = Found(None, NOT_CACHED)


class PrefixCache:
    """The newest prefix of each episode. Bounded in episodes and bytes, thread-safe. One per policy slot.

    inputs: what the prefix reads. overwritten: the prefix's own tensors are those of the next run, too; keep copies.
    """

    def __init__(
        self,
        rule: CacheRule,
        images: Sequence[ImageSlot],
        inputs: Sequence[str],
        *,
        overwritten: bool = False,
        episodes: int = EPISODES_KEPT,
        most_bytes: int = MOST_BYTES,
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.rule = rule
        self._images = tuple(slot for slot in images if slot.input in inputs)
        pictures = {slot.input for slot in self._images}
        self._exact = tuple(sorted(name for name in inputs if name not in pictures))
        self._overwritten, self._most_bytes = overwritten, most_bytes
        self._clock_ns = clock_ns
        self._lock = threading.Lock()
        self._kept: Lru[str, _Kept] = Lru(episodes, "prefix")
        self._counts: Counter[str] = Counter()

    @property
    def counts(self) -> Mapping[str, int]:
        """How often it was a `hit`, and otherwise what was different: first, input, age, image."""
        with self._lock:
            return dict(self._counts)

    @property
    def size_bytes(self) -> int:
        """Memory of the cached prefixes."""
        with self._lock:
            return sum(kept.size_bytes for kept in self._kept.values())

    def seen(self, observation: Observation, arrays: Arrays) -> Seen:
        """Return what must not change, of the inputs made from an observation."""
        return Seen(
            tuple(
                thumbnail(picture, slot)
                for slot in self._images
                for picture in pictures(arrays[slot.input], slot)
            ),
            tuple(_content(arrays[name]) for name in self._exact if name in arrays),
            self._clock_ns() - int(observation.age_ms * 1e6),
            observation.stamp_ns,
        )

    def find(self, episode_id: str | None, seen: Seen) -> Found:
        """Return the prefix of this episode if it is still valid. Requests without an episode share nothing."""
        if episode_id is None:
            return NOTHING_KEPT
        with self._lock:
            kept = self._kept.get(episode_id)
            why = "first" if kept is None else self._changed(kept.seen, seen)
            self._counts[why or HIT] += 1
            if kept is None or why:
                return Found(None, MISS, 0.0, why)
            self._kept.touch(episode_id)
            return Found(kept.prefix, HIT, kept.seen.older_ms(seen))

    def _changed(self, before: Seen, now: Seen) -> str:
        if before.exact != now.exact:
            return "input"
        if not 0 <= before.older_ms(now) <= self.rule.max_age_ms:
            return "age"
        pairs = zip(before.thumbnails, now.thumbnails, strict=True)
        # not "greater": a NaN is a change, too
        same = all(image_change(one, other) <= self.rule.image_threshold for one, other in pairs)
        return "" if same else "image"

    def keep(self, episode_id: str | None, seen: Seen, prefix: Tensors) -> None:
        """Store a prefix that was just made; must be called before the next one is."""
        if episode_id is None:
            return
        size = sum(_size_bytes(tensor) for tensor in prefix.values())
        if size > self._most_bytes:
            return
        if self._overwritten:
            prefix = {name: _copied(tensor) for name, tensor in prefix.items()}
        with self._lock:
            self._kept.put(episode_id, _Kept(seen, prefix, size))
            total = sum(kept.size_bytes for kept in self._kept.values())
            while total > self._most_bytes:
                total -= self._kept.pop_oldest()[1].size_bytes

    def forget(self, episode_id: str | None, robot: str = "") -> None:
        """Drop the prefix of an episode that begins anew; robot: whose, "" for any."""
        with self._lock:
            for key in [key for key in self._kept if is_episode(key, episode_id, robot)]:
                self._kept.pop(key)


def image_change(before: Floats, now: Floats) -> float:
    """Return the largest change of one cell in one colour, as a share of the pixels' range.

    Not the mean: a block that moves is small in the image, and the mean of an arm that settles is larger.
    """
    return float(np.abs(now - before).max())


def pictures(array: NDArray[Any], slot: ImageSlot) -> Iterator[NDArray[Any]]:
    """Yield the pictures of one camera in an image input, (1, 3, h, w) or (1, h, w, 3) each, oldest first."""
    if slot.stack is not None:
        array = array[..., slot.stack, :, :, :]
    yield from array.reshape(-1, 1, *array.shape[-3:])


def thumbnail(picture: NDArray[Any], slot: ImageSlot) -> Floats:
    """Return (16, 16, 3) float32 means of a network input (1, 3, h, w) or (1, h, w, 3); one unit is a channel's whole range."""
    height, width = picture.shape[1:3] if slot.channels_last else picture.shape[2:4]
    stride = max(1, min(height * width // ENOUGH_PIXELS, height // (4 * THUMBNAIL)))
    if slot.channels_last:
        near = np.ascontiguousarray(picture[0, ::stride], np.float32)
        cells = area_averaged(near, THUMBNAIL, THUMBNAIL)
    else:
        planes = np.ascontiguousarray(picture[0, :, ::stride], np.float32)
        cells = np.stack([area_averaged(plane, THUMBNAIL, THUMBNAIL) for plane in planes], axis=-1)
    return np.asarray(cells / (255 * np.abs(slot.scale)), dtype=np.float32)


def refusal(contract: Contract, inputs: Sequence[str]) -> str:
    """Return why a prefix that reads `inputs` cannot be cached; empty when it can."""
    if not inputs:
        return "it has no prefix of its own: the whole network is one graph"
    state = contract.state
    if state is not None and state.input is None and state.bins:
        return "the state is part of the prompt, so that every prefix is another one"
    if state is not None and state.input in inputs:
        return "the state enters its prefix, so that every prefix is another one"
    return ""


def require_cache(
    export: Export,
    contract: Contract,
    unable: str,
    inputs: Sequence[str],
    overwritten: bool,
    max_age_ms: float = 0.0,
    clock_ns: Callable[[], int] = time.monotonic_ns,
    *,
    fresh: bool = True,
) -> PrefixCache:
    """Return a cache for this export.

    Args:
        export: What `open_export` read.
        contract: Its contract.
        unable: Why its prefix cannot be cached, empty where it can (`refusal`).
        inputs: The arrays that the prefix reads.
        overwritten: Whether its next run writes into the tensors of this one.
        max_age_ms: The user's own; 0 takes the export's.
        clock_ns: Monotonic.
        fresh: Refuse a threshold that was measured on another model_hash.

    Raises:
        ConfigurationError: Its prefix cannot be cached, or no threshold was measured.
    """
    if unable:
        raise ConfigurationError(
            f"{FLAG}: {export.path}: {unable}; leave the flag out", "prefix-cache-layout"
        )
    rule = contract.prefix_cache
    if rule is None:
        raise ConfigurationError(
            f"{FLAG}: {export.path} does not say how much a picture may change: run `reflex calibrate-prefix"
            f" {export.path} --observations FOLDER --write` (docs/how-to/measure-prefix-threshold.md), or leave the flag out",
            "prefix-cache-unmeasured",
        )
    if fresh and rule.measured_on not in ("", export.model_hash):
        raise ConfigurationError(
            f"{FLAG}: the prefix_cache threshold of {export.path} {export.why_stale(rule.measured_on)}: run"
            f" `reflex calibrate-prefix {export.path} --observations FOLDER --write`",
            "prefix-cache-stale",
        )
    if max_age_ms > 0:
        rule = CacheRule(rule.image_threshold, max_age_ms, rule.measured_on)
    return PrefixCache(rule, contract.images, inputs, overwritten=overwritten, clock_ns=clock_ns)


def _content(array: NDArray[Any]) -> bytes:
    return f"{array.dtype}{array.shape}".encode() + array.tobytes()


def _size_bytes(tensor: Tensor) -> int:
    width = {"double": 8, "int64": 8, "float16": 2, "bool": 1, "uint8": 1}
    kind = tensor.data_type().removeprefix("tensor(").removesuffix(")")
    return int(np.prod(tensor.shape(), dtype=np.int64)) * width.get(kind, 4)


def _copied(tensor: Tensor) -> Tensor:
    # by way of the host: onnxruntime's Python interface copies between device tensors only into existing ones
    return ort.OrtValue.ortvalue_from_numpy(np.array(tensor.numpy()), tensor.device_name(), 0)
