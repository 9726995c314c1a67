# SPDX-License-Identifier: Apache-2.0
"""Arrays in JSON and msgpack: every tag of the field is read, and nothing of a tag is believed."""

from __future__ import annotations

import base64
import struct
import sys
from typing import Any

import msgpack
import numpy as np
import pytest
from wires import json_tag, msgpack_numpy_tag, npy_tag, openpi_tag, packed, unpacked, vla_eval_tag

from reflex_core.errors import ObservationError
from reflex_ros.sidecar.problems import BodyError, TooLargeError
from reflex_ros.sidecar.wires import msgpack_codec, numpy_tags
from reflex_ros.sidecar.wires.msgpack_codec import (
    MSGPACK_NUMPY,
    NPY,
    OPENPI,
    VLA_EVAL,
    MissingPackageError,
    pack,
    unpack,
)
from reflex_ros.sidecar.wires.numpy_tags import array_of, with_arrays

ROWS = np.arange(6, dtype="<f4").reshape(2, 3)
# captured from openpi-client 0.1.2: {"a": uint8 zeros of (2, 2, 3)}
CAPTURED = bytes.fromhex(
    "81a16184c40b5f5f6e6461727261795f5fc3c40464617461c40c000000000000000000000000c4056474797065a37c7531"
    "c405736861706593020203"
)


@pytest.mark.parametrize(
    ("tag", "form"),
    [(openpi_tag, OPENPI), (vla_eval_tag, VLA_EVAL), (msgpack_numpy_tag, MSGPACK_NUMPY), (npy_tag, NPY)],
)
@pytest.mark.parametrize("dtype", ["|u1", "<f4", "<f8", "|b1", "<i8", ">f4"])
def test_arrays_of_every_msgpack_tag_are_read_and_written(tag: Any, form: str, dtype: str) -> None:
    array = ROWS.astype(dtype)
    found = unpack(packed({"a": array}, tag))
    assert found.form == form
    assert found.value["a"].dtype.str == dtype
    np.testing.assert_array_equal(found.value["a"], array)
    np.testing.assert_array_equal(unpacked(pack({"a": array}, form))["a"], array)


def test_bytes_that_the_real_client_sent_are_read() -> None:
    np.testing.assert_array_equal(unpack(CAPTURED).value["a"], np.zeros((2, 2, 3), np.uint8))
    assert pack({"a": np.zeros((2, 2, 3), np.uint8)}, OPENPI) == CAPTURED


def test_the_bytes_of_an_array_stand_as_other_languages_write_the_marks() -> None:
    in_str = {"__ndarray__": True, "data": ROWS.tobytes(), "dtype": "<f4", "shape": [2, 3]}
    np.testing.assert_array_equal(unpack(msgpack.packb({"a": in_str})).value["a"], ROWS)


def test_a_numpy_scalar_is_a_number() -> None:
    scalar = bytes.fromhex(
        "83c40d5f5f6e7067656e657269635f5fc3c40464617461cb3ff8000000000000c4056474797065a33c6634"
    )
    found = unpack(scalar).value
    assert (found.dtype, found.shape, float(found)) == (np.float32, (), 1.5)


@pytest.mark.parametrize(
    "tagged",
    [
        json_tag(ROWS),
        {"__ndarray__": json_tag(ROWS)["__numpy__"], "dtype": "float32", "shape": [2, 3]},
        {"__numpy_array__": True, "data": json_tag(ROWS)["__numpy__"], "dtype": "float32", "shape": [2, 3]},
    ],
)
def test_arrays_of_every_json_tag_are_read_wherever_they_stand(tagged: dict[str, Any]) -> None:
    found = with_arrays({"a": [{"b": tagged}, 1, "text"]})
    np.testing.assert_array_equal(found["a"][0]["b"], ROWS)
    assert found["a"][1:] == [1, "text"]


LIES = {
    "dtype O": {"dtype": "|O"},
    "dtype object": {"dtype": "object"},
    "structure": {"dtype": "f4,f4"},
    "sub-array": {"dtype": "(2,)f4"},
    "complex": {"dtype": "<c8"},
    "text": {"dtype": "<U4"},
    "void": {"dtype": "|V8"},
    "date": {"dtype": "<M8[s]"},
    "no dtype": {"dtype": None},
    "long dtype": {"dtype": "f4" * 1000},
    "number as dtype": {"dtype": 4},
    "nonsense": {"dtype": "no such"},
    "too few bytes": {"shape": [2, 4]},
    "too many bytes": {"shape": [2, 2]},
    "2^31": {"shape": [2**31, 3]},
    "2^31 twice": {"shape": [2**31, 2**31, 2**31]},
    "product wraps to 6": {"shape": [2**63, 2, 6]},
    "below zero": {"shape": [-2, -3]},
    "no shape": {"shape": None},
    "shape in floats": {"shape": [2.0, 3.0]},
    "shape of truths": {"shape": [True, 6]},
    "many axes": {"shape": [1] * 63 + [6]},
    "data is a number": {"data": 7},
    "data is a list": {"data": [1, 2]},
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_a_tag_that_lies_is_refused_in_one_sentence(lie: dict[str, Any]) -> None:
    honest = {"data": ROWS.tobytes(), "dtype": "<f4", "shape": [2, 3]}
    for mark in ("__ndarray__", b"__ndarray__"):
        with pytest.raises(ObservationError, match=r"^[^\n]{10,300}$") as refused:
            array_of({mark: True} | honest | lie)
        assert refused.value.slug == "bad-array"


@pytest.mark.parametrize("kind", [b"O", b"V", "O", [["a", "<f4"]]])
def test_pickles_and_structures_of_msgpack_numpy_are_refused(kind: Any) -> None:
    tagged = {
        b"nd": True,
        b"type": "<f4",
        b"kind": kind,
        b"shape": [1],
        b"data": b"cos\nsystem\n(S'false'\ntR.",
    }
    with pytest.raises(ObservationError, match="send numbers"):
        array_of(tagged)


def test_a_scalar_that_is_none_is_refused() -> None:
    for data, dtype in (("1", "<f4"), (None, "<f4"), (2**70, "<i8"), (-1, "|u1"), (1.5, "|O")):
        with pytest.raises(ObservationError):
            array_of({b"__npgeneric__": True, b"data": data, b"dtype": dtype})


def test_base64_that_is_none_is_refused() -> None:
    with pytest.raises(ObservationError, match="not base64"):
        array_of({"__numpy__": "!!!!", "dtype": "<f4", "shape": [1]})
    with pytest.raises(ObservationError, match="has 4 bytes, got 3"):
        array_of({"__numpy__": base64.b64encode(b"abc").decode(), "dtype": "<f4", "shape": [1]})


def test_other_maps_are_left_alone() -> None:
    for other in ({}, {"a": 1}, {"nd": 3}, {"__ndarray__": False}, {"__numpy__": None}, {b"\xff": 1}):
        assert array_of(other) is None


BOMBS = {
    "array of 2^31": struct.pack(">BI", 0xDD, 2**31),
    "map of 2^31": struct.pack(">BI", 0xDF, 2**31),
    "text of 2^31": struct.pack(">BI", 0xDB, 2**31),
    "bytes of 2^31": struct.pack(">BI", 0xC6, 2**31),
    "extension of 2^31": struct.pack(">BIb", 0xC9, 2**31, 5),
    "extension": b"\xc7\x01\x05a",
    "nested lists": b"\x91" * 100_000 + b"\xc0",
    "nested maps": b"\x81\xa1a" * 100_000 + b"\xc0",
    "half a message": b"\x92" * 5,
    "number as key": b"\x81\x01\x02",
    "list as key": b"\x81\x90\x02",
    "no msgpack": b"\xc1",
    "no UTF-8": b"\xa2\xff\xfe",
    "two messages": b"\x80\x80",
    "nothing": b"",
}


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
def test_a_message_that_is_no_sound_msgpack_is_refused(bomb: bytes) -> None:
    with pytest.raises(BodyError, match=r"^the message [^\n]{10,200}$") as refused:
        unpack(bomb)
    assert (refused.value.slug, refused.value.status) == ("malformed-msgpack", 400)


def test_many_small_values_are_counted_while_they_are_read() -> None:
    """Empty lists are a byte each on the wire and sixty in memory."""
    row = struct.pack(">BH", 0xDC, 16_000) + b"\x90" * 16_000
    with pytest.raises(TooLargeError, match="at most 200000 values"):
        unpack(struct.pack(">BH", 0xDC, 100) + row * 100)


def test_lists_of_json_too_deep_in_each_other_are_refused() -> None:
    deep: Any = 1
    for _ in range(40):
        deep = {"a": [deep]}
    with pytest.raises(ObservationError, match="at most 16 deep"):
        with_arrays(deep)


def test_without_the_package_msgpack_a_message_is_refused_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "msgpack", None)
    with pytest.raises(MissingPackageError, match="extra `openpi`") as refused:
        unpack(b"\x80")
    assert refused.value.status == 415


def test_no_codec_knows_pickle() -> None:
    for module in (numpy_tags, msgpack_codec):
        assert not {"pickle", "eval", "load", "loads"} & set(vars(module))
