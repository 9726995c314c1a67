# SPDX-License-Identifier: Apache-2.0
"""Choose the records of an episode that a report draws: those where something happened, and those around them."""

from __future__ import annotations

from collections.abc import Sequence

SERVED = "SERVED"


def chosen(words: Sequence[tuple[int, str]], most: int) -> frozenset[int]:
    """Return at most `most` seqs: first and last, those that are not SERVED and the one before each, then others evenly.

    words: (seq, verdict's word) of every record, in order.
    """
    if len(words) <= most:
        return frozenset(seq for seq, _ in words)
    wanted = dict.fromkeys([0, len(words) - 1])
    for at, (_, word) in enumerate(words):
        if word != SERVED:
            wanted |= dict.fromkeys([at, max(at - 1, 0)])
    if len(wanted) > most:
        places = list(wanted)
        wanted = dict.fromkeys(
            places[(len(places) - 1) * number // max(most - 1, 1)] for number in range(most)
        )
    step = max(len(words) // max(most, 1), 1)
    for at in range(0, len(words), step):
        if len(wanted) >= most:
            break
        wanted[at] = None
    return frozenset(words[at][0] for at in wanted)
