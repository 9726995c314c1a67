# SPDX-License-Identifier: Apache-2.0
"""Bags with bytes changed or cut off: records, warnings or one sentence, and never anything else."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

import pytest
from bags import bags, inference
from bags import recorder as recorder_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stream_bags import StreamBag

from reflex_core.dataset.sampled import survey_streams
from reflex_core.records.trace.parse import Recorded, TraceError
from reflex_ros.bag.reindex import BagError, reindex
from reflex_ros.bag.source import BagSource
from reflex_ros.bag.streams import BagStreams

STORAGES = ("mcap", "sqlite3")
DAMAGE = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=4)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A bag per storage."""
    found = {}
    for storage in STORAGES:
        directory = tmp_path_factory.mktemp(storage)
        recorder = recorder_of(directory, storage)
        for number in range(6):
            inference(recorder, number, 16)
        recorder.close()
        (found[storage],) = bags(directory)
    return found


def sample(path: Path) -> None:
    """Everything that a dataset at a fixed rate reads. Raises whatever is no sentence about the bag."""
    with suppress(TraceError):
        survey_streams([path], BagStreams, None, lambda *_: None)


def read(path: Path) -> None:
    """Everything that a replay reads. Raises AssertionError where what comes out is neither record nor sentence."""
    try:
        with BagSource(path) as source:
            for record in source:
                assert isinstance(record, Recorded)
                for image in record.images.values():
                    image.frame()
            assert set(source.damage) <= set(source.warnings)
    except TraceError as error:
        message = str(error)
        assert (str(path) in message or "image" in message, "\n" in message) == (True, False)


@pytest.fixture(scope="module")
def streams(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Half a second of whole streams."""
    made = StreamBag(tmp_path_factory.mktemp("streams"), person=(200, 400))
    made.run(500)
    return made.close()


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    changes=st.lists(
        st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=9
    )
)
def test_damaged_streams_give_frames_or_one_sentence(
    tmp_path: Path, streams: Path, changes: list[tuple[float, int]]
) -> None:
    path = tmp_path / "streams"
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(streams, path)
    (file,) = path.glob("*.mcap")
    data = bytearray(file.read_bytes())
    for place, byte in changes:
        data[int(place * len(data))] = byte
    file.write_bytes(data)
    sample(path)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    storage=st.sampled_from(STORAGES),
    metadata=st.booleans(),
    cut=st.one_of(st.just(1.0), st.floats(0, 1)),
    changes=DAMAGE,
)
def test_a_damaged_bag_gives_records_or_one_sentence(
    tmp_path: Path,
    whole: dict[str, Path],
    storage: str,
    metadata: bool,
    cut: float,
    changes: list[tuple[float, int]],
) -> None:
    path = tmp_path / "bag"
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(whole[storage], path)
    (file,) = [each for each in path.iterdir() if (each.suffix == ".yaml") == metadata]
    data = bytearray(file.read_bytes())
    for place, byte in changes:
        data[int(place * len(data))] = byte
    file.write_bytes(data[: int(cut * len(data))])
    read(path)
    sample(path)
    try:
        reindex(path)
    except BagError as error:
        message = str(error)
        assert (str(path) in message, "\n" in message) == (True, False)
    read(path)
