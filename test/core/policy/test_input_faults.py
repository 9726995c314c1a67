# SPDX-License-Identifier: Apache-2.0
"""Whatever an input does to decoder, tokenizer or network is the input's fault: the breaker counts none of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np
import pytest
from servers import ExportDir
from wedge_requests import Arm

from reflex_core.concurrency.circuit_breaker import CLOSED, OPEN
from reflex_core.errors import InferenceError, ObservationError
from reflex_core.values import Frame, Pixels, Request
from reflex_core.wedges.breaker import Breaker

CALLS = 5


def raising(error: Exception) -> Callable[[Frame], Pixels]:
    def decode(_: Frame) -> Pixels:
        raise error

    return decode


@pytest.fixture
def arm(export_dir: ExportDir) -> Arm:
    return Arm(export_dir("calm"))


def with_frame(arm: Arm, frame: Frame) -> Request:
    request = arm.request()
    frames = dict.fromkeys(request.observation.frames, frame)
    return replace(request, observation=replace(request.observation, frames=frames))


def not_counted(arm: Arm, request: Request) -> ObservationError:
    """Ask more often than a breaker allows; returns what is said."""
    breaker = Breaker(CALLS, 60.0, "prod")
    act = arm.middleware_chain(breaker=breaker)
    for _ in range(CALLS + 1):
        with pytest.raises(ObservationError) as caught:
            act(request)
    assert (breaker.state, breaker.consecutive_failures) == (CLOSED, 0)
    assert act(arm.request()).chunk.source == "policy"
    return caught.value


def png_that_lies() -> bytes:
    """Says 200000x200000 in its header and holds 4x4 pixels."""
    data = bytearray(cv2.imencode(".png", np.zeros((4, 4, 3), np.uint8))[1].tobytes())
    data[16:24] = (200_000).to_bytes(4, "big") * 2
    return bytes(data)


@pytest.mark.parametrize(
    "frame",
    [
        Frame(png_that_lies(), "png", 4, 4),
        Frame(b"", "png"),
        Frame(b"\xff\xd8\xff", "jpeg", 4, 4),
        Frame(b"\0" * 11, "rgb8", 2, 2),
        Frame(b"", "rgb8", 0, 0),
        Frame(None, "rgb8", 2, 2),
        Frame(b"\0", "odd\n[ERROR]", 1, 1),
        Frame(b"", "rgb8", 2, 2, decoder=raising(cv2.error("no"))),
        Frame(b"", "rgb8", 2, 2, decoder=raising(MemoryError())),
        Frame(b"", "rgb8", 2, 2, decoder=lambda _: np.zeros((0, 0, 3), np.uint8)),
        Frame(b"", "rgb8", 2, 2, decoder=lambda _: np.zeros(3, np.uint8)),
    ],
    ids=["png lies", "empty", "cut jpeg", "short", "no size", "no data", "odd", "opencv", "memory", "no pixels", "flat"],
)  # fmt: skip
def test_a_bad_picture_never_counts_against_the_model(arm: Arm, frame: Frame) -> None:
    error = not_counted(arm, with_frame(arm, frame))
    assert "\n" not in str(error)


def test_a_text_on_which_the_tokenizer_panics_never_counts_against_the_model(
    export_copy: ExportDir,
) -> None:
    """Backtracking without end: the tokenizer's Rust code panics, which is no Exception."""
    path = export_copy("calm")
    file = path / "tokenizer" / "tokenizer.json"
    document = json.loads(file.read_text())
    document["pre_tokenizer"] = {
        "type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": False,
    }  # fmt: skip
    file.write_text(json.dumps(document))
    arm = Arm(path)
    request = arm.request()
    evil = replace(request, observation=replace(request.observation, instruction="a" * 40 + "!"))
    error = not_counted(arm, evil)
    assert error.slug == "bad-instruction"
    assert "tokenizer" in str(error)


def test_a_token_that_the_network_does_not_know_never_counts_against_the_model(
    export_copy: ExportDir,
) -> None:
    path = export_copy("calm")
    file = path / "tokenizer" / "tokenizer.json"
    document = json.loads(file.read_text())
    document["model"]["vocab"]["zebra"] = 1_000_000
    file.write_text(json.dumps(document))
    arm = Arm(path)
    request = arm.request()
    odd = replace(request, observation=replace(request.observation, instruction="zebra"))
    assert "does not know" in str(not_counted(arm, odd))


def test_a_picture_of_a_size_that_the_network_does_not_take_never_counts_against_the_model(
    export_dir: ExportDir,
) -> None:
    """A graph that says it takes any size, and fails on some."""
    arm = Arm(export_dir("mono_pi0_7_224"))
    any_size = tuple(replace(slot, height=None, width=None) for slot in arm.policy.contract.images)
    arm.policy.contract = replace(arm.policy.contract, images=any_size)
    frames = {
        camera: Frame(np.zeros((100, 60, 3), np.uint8), "rgb8", 100, 60)
        for camera in arm.request().observation.frames
    }
    request = arm.request()
    error = not_counted(arm, replace(request, observation=replace(request.observation, frames=frames)))
    assert "no image of 60x100" in str(error)


def test_a_network_that_fails_on_a_plausible_input_counts(export_dir: ExportDir) -> None:
    arm = Arm(export_dir("calm_raise"))
    breaker = Breaker(CALLS, 60.0, "prod")
    act = arm.middleware_chain(breaker=breaker)
    for _ in range(CALLS):
        with pytest.raises(InferenceError):
            act(arm.request(joint1=1.5))
    assert breaker.state == OPEN
