# SPDX-License-Identifier: Apache-2.0
"""Images that a trace file has held lately: an observation history repeats them, and they are written once."""

from __future__ import annotations

from reflex_core.concurrency.lru import Lru

WRITTEN_KEPT = 64  # hashes; the newest images of a dozen robots
READ_KEPT = 2 * WRITTEN_KEPT  # images: never fewer than a writer relies on


class RecentImages:
    """Base64 texts of the newest images by `image_sha256`; a writer keeps hashes alone. Not thread-safe."""

    def __init__(self, most: int) -> None:
        self._texts: Lru[str, str] = Lru(most)

    def put(self, digest: str, text: str = "") -> None:
        """Note that a record holds this image."""
        self._texts.put(digest, text)

    def text(self, digest: str) -> str | None:
        """Return the text of an image, and count it as used just now; None where it is not among the newest."""
        found = self._texts.get(digest)
        if found is not None:
            self._texts.touch(digest)
        return found

    def __contains__(self, digest: str) -> bool:
        return self.text(digest) is not None

    def clear(self) -> None:
        """Forget everything: a new file begins."""
        self._texts.clear()
