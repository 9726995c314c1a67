# SPDX-License-Identifier: Apache-2.0
"""The bounded mapping: what is forgotten, and what keeps something alive."""

from __future__ import annotations

import pytest

from reflex_core.concurrency.lru import Lru


def filled(*keys: str, most: int = 3) -> Lru[str, int]:
    lru: Lru[str, int] = Lru(most)
    for number, key in enumerate(keys):
        lru.put(key, number)
    return lru


def test_what_was_longest_not_renewed_is_forgotten_and_handed_back() -> None:
    lru = filled("a", "b", "c")
    assert lru.put("d", 3) == ("a", 0)
    assert lru.put("c", 4) is None
    assert (list(lru), list(lru.values())) == (["b", "d", "c"], [1, 3, 4])
    assert ("a" in lru, lru.get("a"), len(lru)) == (False, None, 3)


def test_touching_renews_and_reading_does_not() -> None:
    lru = filled("a", "b", "c")
    assert (lru.get("a"), lru.get("b")) == (0, 1)
    lru.touch("b")
    assert lru.put("d", 3) == ("a", 0)
    assert lru.put("e", 4) == ("c", 2)
    with pytest.raises(KeyError):
        lru.touch("a")


def test_items_are_forgotten_by_name_and_by_age() -> None:
    lru = filled("a", "b", "c")
    assert (lru.pop("b"), lru.pop("b")) == (1, None)
    assert (lru.oldest(), lru.pop_oldest(), lru.oldest()) == (0, ("a", 0), 2)
    lru.clear()
    assert (lru.oldest(), len(lru)) == (None, 0)
    with pytest.raises(KeyError):
        lru.pop_oldest()


def test_a_memory_without_room_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 item, got 0"):
        Lru(0)
