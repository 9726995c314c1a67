# SPDX-License-Identifier: Apache-2.0
"""The pickles of LeRobot's wire, read and written without pickle, torch and LeRobot."""

from __future__ import annotations

import pickle
import time
import tracemalloc
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile_pickles import HOSTILE
from hypothesis import given, settings
from hypothesis import strategies as st
from lerobot_client import (
    CAPTURED,
    PANDA,
    SO101,
    captured,
    instructions,
    load_actions,
    observation,
    pickled,
    setup,
)

from reflex_ros.sidecar.wires import lerobot_reader, lerobot_writer, pickle_machine
from reflex_ros.sidecar.wires.lerobot_reader import attribute, read_pickle
from reflex_ros.sidecar.wires.lerobot_writer import timed_actions
from reflex_ros.sidecar.wires.pickle_machine import PickleError
from reflex_ros.sidecar.wires.protobuf import ProtobufError, bytes_field, fields_of

OLD_HELPERS = "lerobot.scripts.server.helpers"


def of_part(data: bytes) -> bytes:
    """The pickle in a message."""
    fields = fields_of(data)
    found = fields[2] if 2 in fields else fields[1]
    assert isinstance(found, memoryview)
    return bytes(found)


@pytest.mark.parametrize("version", ["0_4_4", "0_6_1"])
def test_the_observation_of_the_real_client_is_read(version: str) -> None:
    message = captured(f"observation_{version}.bin")
    assert fields_of(message)[1] == 3
    made = read_pickle(of_part(message))
    assert made.kind == "TimedObservation"
    assert (made.fields["timestep"], made.fields["must_go"]) == (0, True)
    values = made.fields["observation"]
    assert list(values) == [*SO101, "front", "task"]
    assert [values[name] for name in SO101] == [1.0] * 6
    image = attribute(values["front"])
    np.testing.assert_array_equal(image, np.full((48, 64, 3), 120, np.uint8))
    assert values["task"] == "pick up the cube"


@pytest.mark.parametrize("version", ["0_4_4", "0_6_1"])
def test_the_setup_of_the_real_client_is_read(version: str) -> None:
    made = read_pickle(of_part(captured(f"setup_{version}.bin")))
    assert made.kind == "RemotePolicyConfig"
    assert made.fields["lerobot_features"]["observation.state"]["names"] == SO101
    assert made.fields["actions_per_chunk"] == 50


@pytest.mark.parametrize("protocol", [3, 4, 5])
@pytest.mark.parametrize("module", ["lerobot.async_inference.helpers", OLD_HELPERS])
def test_protocols_3_to_5_and_both_places_of_the_classes_are_read(protocol: int, module: str) -> None:
    image = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
    others: dict[str, Any] = {
        "camera": image,
        "columns": np.asfortranarray(image),
        "number": np.float32(1.5),
        "many": np.array([1.0, 2.0], "<f8"),
        "swapped": np.array([1.0, 2.0], ">f4"),
        "flag": True,
    }
    data = observation([0.5] * 7, timestep=70_000, protocol=protocol, module=module, **others)
    fields = read_pickle(data).fields
    assert fields["timestep"] == 70_000
    for name, wanted in others.items():
        found = attribute(fields["observation"][name])
        np.testing.assert_array_equal(found, wanted)
        assert np.asarray(found).dtype == np.asarray(wanted).dtype


def test_a_picture_is_a_view_of_what_was_sent() -> None:
    data = observation([0.0] * 7, camera=np.zeros((1080, 1920, 3), np.uint8))
    tracemalloc.start()
    found = attribute(read_pickle(data).fields["observation"]["camera"])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.shape == (1080, 1920, 3)
    assert peak < 500_000


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_pickle_runs_nothing_and_costs_nothing(name: str, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    data = HOSTILE[name](mark)
    begun = time.process_time()
    tracemalloc.start()
    with pytest.raises(PickleError) as error:
        read_pickle(data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert not mark.exists()
    assert peak < 20_000_000
    assert time.process_time() - begun < 5.0
    assert len(str(error.value)) < 400
    assert "\n" not in str(error.value)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_whatever_happens_to_a_pickle_it_is_read_or_refused(draw: st.DataObject) -> None:
    data = bytearray(observation([0.5] * 7, camera=np.zeros((2, 2, 3), np.uint8)))
    for _ in range(draw.draw(st.integers(1, 6))):
        at = draw.draw(st.integers(0, len(data) - 1))
        if draw.draw(st.booleans()):
            data[at] = draw.draw(st.integers(0, 255))
        else:
            del data[at : at + draw.draw(st.integers(1, 9))]
        if not data:
            break
    with suppress(PickleError):
        read_pickle(data)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_refused(data: bytes) -> None:
    for read in (fields_of, lambda data: read_pickle(b"\x80\x04" + data)):
        with suppress(PickleError, ProtobufError):
            read(data)


@pytest.mark.parametrize("shape", [(50, 7), (2, 3), (1, 1), (300, 14), (1500, 6)])
def test_rows_are_loaded_as_they_were(shape: tuple[int, int]) -> None:
    rows = np.random.default_rng(3).normal(size=shape).astype(np.float32)
    found = load_actions(timed_actions(rows, 65_530, 100.5, 0.05))
    assert [one.timestep for one in found] == list(range(65_530, 65_530 + shape[0]))
    np.testing.assert_array_equal(np.array([one.action for one in found]), rows)
    assert found[0].timestamp == 100.5
    assert found[-1].timestamp == 100.5 + 0.05 * (shape[0] - 1)


def test_rows_have_the_instructions_of_the_real_server_one_by_one() -> None:
    """actions_0_6_1.pkl: `pickle.dumps` of the same list with torch 2.13 and LeRobot 0.6.1."""
    rows = np.array([[0.5, -1.25, 3.0], [1.5, 2.0, -0.125]], np.float32)
    ours = instructions(timed_actions(rows, 255, 100.5, 0.05))
    theirs = instructions((CAPTURED / "actions_0_6_1.pkl").read_bytes())
    assert [name for name, _ in ours] == [name for name, _ in theirs]
    for (name, our), (_, their) in zip(ours, theirs, strict=True):
        if name == "FRAME":  # the length
            continue
        if name == "BINBYTES":  # a storage, which torch names by an address
            assert storage_of(our) == storage_of(their)
        else:
            assert our == their, name


def storage_of(data: bytes) -> list[tuple[str, Any]] | bytes:
    """A storage with the name of the real one replaced by ours."""
    key = (
        b"X\x0e\x00\x00\x00" + data[data.index(b"X\x0e\x00\x00\x00") + 5 :][:14] if b"X\x0e" in data else b""
    )
    return data.replace(key, b"X\x01\x00\x00\x000") if key else data


def test_a_blob_is_written_so_that_readers_without_short_ones_take_it() -> None:
    rows = np.zeros((50, 7), np.float32)
    data = timed_actions(rows, 0, 0.0, 0.05)
    assert len(data) < 16_000
    assert "SHORT_BINBYTES" not in {name for name, _ in instructions(data)}


def test_a_message_is_written_as_protobuf_does() -> None:
    assert bytes_field(1, b"") == b""
    assert bytes_field(1, b"a") == b"\x0a\x01a"
    assert bytes_field(1, bytes(495))[:3] == bytes.fromhex("0aef03")


def test_what_is_read_needs_no_pickle() -> None:
    for module in (lerobot_reader, lerobot_writer, pickle_machine):
        assert not any(value is pickle for value in vars(module).values())
    assert read_pickle(setup(PANDA)).kind == "RemotePolicyConfig"
    with pytest.raises(PickleError, match="must hold"):
        read_pickle(pickled({}))
