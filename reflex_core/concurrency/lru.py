# SPDX-License-Identifier: Apache-2.0
"""A bounded mapping that forgets what was longest not renewed: what is remembered of episodes, callers and log lines."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Kept = TypeVar("Kept")

# items of this process that were dropped because more were remembered than there is room for, by kind
forgotten: Counter[str] = Counter()


class Lru(Generic[Key, Kept]):
    """At most `most` items. Putting and touching renew an item; reading does not: a page that polls keeps nothing alive.

    Not thread-safe: a caller that shares one has a lock already, for more than this.
    """

    __slots__ = ("_items", "_kind", "_most")

    def __init__(self, most: int, kind: str = "") -> None:
        """most: items. kind: under which `forgotten` counts those that were dropped for others, "" for not at all."""
        if most < 1:
            raise ValueError(f"a memory must hold at least 1 item, got {most}")
        self._most, self._kind = most, kind
        if kind:
            forgotten.setdefault(kind, 0)  # a kind is in the metrics before the first is dropped
        self._items: OrderedDict[Key, Kept] = OrderedDict()

    def put(self, key: Key, kept: Kept) -> tuple[Key, Kept] | None:
        """Store an item as the newest; return the one that was dropped for it, None while there is room."""
        self._items[key] = kept
        self._items.move_to_end(key)
        if len(self._items) <= self._most:
            return None
        if self._kind:
            forgotten[self._kind] += 1
        return self._items.popitem(last=False)

    def touch(self, key: Key) -> None:
        """Make a known item the newest. Raises KeyError for one that is not stored."""
        self._items.move_to_end(key)

    def get(self, key: Key) -> Kept | None:
        """Return the item, None where it is not stored; its place stays."""
        return self._items.get(key)

    def pop(self, key: Key) -> Kept | None:
        """Remove an item and return it, None where it is not stored."""
        return self._items.pop(key, None)

    def pop_oldest(self) -> tuple[Key, Kept]:
        """Forget the item that was longest not renewed and return it. Raises KeyError when there is none."""
        return self._items.popitem(last=False)

    def oldest(self) -> Kept | None:
        """Return the item that would be forgotten next."""
        return next(iter(self._items.values()), None)

    def items(self) -> Iterator[tuple[Key, Kept]]:
        """Iterate from the oldest to the newest."""
        return iter(self._items.items())

    def values(self) -> Iterator[Kept]:
        """Iterate from the oldest to the newest."""
        return iter(self._items.values())

    def clear(self) -> None:
        """Forget everything."""
        self._items.clear()

    def __contains__(self, key: object) -> bool:
        return key in self._items

    def __iter__(self) -> Iterator[Key]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)
