# SPDX-License-Identifier: Apache-2.0
"""What is appended to a file of records is there whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from reflex_core.files.append import append_whole


@pytest.fixture
def records(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    path = tmp_path / "records"
    path.write_bytes(b"first\n")
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)
    yield path, descriptor
    os.close(descriptor)


def few_at_a_time(monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    """The system takes 3 bytes with each call, and `room` in all."""
    write, left = os.write, room

    def take(descriptor: int, data: bytes) -> int:
        nonlocal left
        if not left:
            raise OSError(28, "No space left on device")
        taken = write(descriptor, data[: min(3, left)])
        left -= taken
        return taken

    monkeypatch.setattr(os, "write", take)


def test_a_system_that_takes_a_few_bytes_at_a_time_gets_them_all(
    records: tuple[Path, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, descriptor = records
    few_at_a_time(monkeypatch, 100)
    append_whole(descriptor, b"the second\n", 6)
    assert path.read_bytes() == b"first\nthe second\n"


def test_what_does_not_fit_whole_leaves_the_file_as_it_was(
    records: tuple[Path, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, descriptor = records
    few_at_a_time(monkeypatch, 7)
    with pytest.raises(OSError, match="No space left"):
        append_whole(descriptor, b"the second\n", 6)
    assert path.read_bytes() == b"first\n"
