# SPDX-License-Identifier: Apache-2.0
"""/act answers: every promised field, every way to write an image, the same actions as the engine itself."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
import simplejpeg
from asking import AT_REST
from http_client import STATE, good, jpeg, picture, png, raw, text
from webcams import put_together, restarting, scene, taken_apart, turned

from reflex_core.text.rate_limit import RateLimit
from reflex_core.values import Frame, Observation
from reflex_ros.sidecar.ignored_fields import find_ignored_fields

Serve = Callable[..., Any]

PROMISED = {
    "actions", "latency_ms", "inference_mode", "guard_clamped", "guard_violations", "adaptive_enabled",
    "adaptive_steps_used", "injected_latency_ms", "robot_id",
}  # fmt: skip
MORE = {
    "caller",
    "num_actions", "action_dim", "hz", "denoising_steps", "num_denoising_steps", "provider_mode", "active_providers",
    "vlm_conditioning", "latency_p50_ms", "latency_p95_ms", "latency_p99_ms", "jitter_ms", "model_hash", "config_hash",
    "reflex_version", "action_names", "dt_s", "start_index", "source", "seed", "policy_slot", "routing", "model_version",
    "request_id", "episode_id", "stages_ms", "instruction_tokens_cut", "masked_cameras", "deadline_exceeded", "guard_summary",
    "deadline_misses_total", "fallback_target", "fallback_age_ms", "hold_reason", "cache_status", "cache_age_ms",
    "rtc_mode", "rtc_delay", "rtc_previous", "a2c2_applied", "a2c2_reason", "a2c2_correction_magnitude", "cameras_used", "ignored_fields",
    "rtc_reason", "did_you_mean", "reflex",
}  # fmt: skip
EVERY_LAYOUT = (
    "mono_smolvla", "mono_pi0", "mono_pi05", "decomposed", "decomposed_per_step", "decomposed_state",
    "decomposed_state_per_step", "vlm_stack", "mono_pi0_7",
)  # fmt: skip


@pytest.mark.parametrize("layout", EVERY_LAYOUT)
def test_every_layout_answers_with_every_promised_field(serve: Serve, layout: str) -> None:
    server = serve(layout, embodiment="")
    answer = server.client.act()
    assert answer.status == 200
    assert set(answer.json) == PROMISED | MORE
    assert answer.headers["content-type"] == "application/json"


def test_an_expert_without_eyes_answers_a_request_without_an_image(serve: Serve) -> None:
    answer = serve("gr00t", embodiment="").client.act({})
    assert answer.status == 200
    assert answer.json["vlm_conditioning"] == "none"
    assert answer.json["adaptive_steps_used"] == 4


def test_the_fields_say_what_was_served(serve: Serve) -> None:
    server = serve("calm")
    policy = server.engine.loaded.policy
    reply = server.client.act(episode_id="ep_1", request_id="r-1", seed=5, state=list(AT_REST)).json
    assert np.asarray(reply["actions"]).shape == (50, 7) == (reply["num_actions"], reply["action_dim"])
    assert reply["action_names"] == list(policy.binding.action_names)
    assert (reply["robot_id"], reply["episode_id"], reply["request_id"], reply["seed"]) == (
        "arm7",
        "ep_1",
        "r-1",
        5,
    )
    assert reply["model_version"] == f"pi0-mono@{reply['model_hash']}"
    assert reply["config_hash"] == policy.export.config_hash
    assert (reply["dt_s"], reply["source"], reply["start_index"], reply["policy_slot"]) == (
        0.05,
        "policy",
        0,
        "prod",
    )
    assert (reply["denoising_steps"], reply["num_denoising_steps"], reply["adaptive_steps_used"]) == (
        10,
        10,
        10,
    )
    assert reply["hz"] == pytest.approx(1e3 / reply["latency_ms"], rel=0.01)
    assert reply["latency_ms"] >= sum(reply["stages_ms"].values()) > 0
    assert reply["latency_p50_ms"] <= reply["latency_p95_ms"] <= reply["latency_p99_ms"]
    assert reply["jitter_ms"] == pytest.approx(reply["latency_p99_ms"] - reply["latency_p50_ms"], abs=0.002)
    assert (reply["inference_mode"], reply["active_providers"]) == ("onnx_cpu", ["CPUExecutionProvider"])
    assert reply["vlm_conditioning"] == "real"
    for untouched in ("guard_clamped", "adaptive_enabled", "deadline_exceeded"):
        assert reply[untouched] is False
    assert (reply["guard_violations"], reply["injected_latency_ms"], reply["instruction_tokens_cut"]) == (
        [],
        0,
        0,
    )


def test_actions_are_those_of_the_engine_bit_for_bit(serve: Serve) -> None:
    server = serve("mono_pi0_7")
    frame = Frame(simplejpeg.encode_jpeg(picture(), quality=95), "jpeg")
    observation = Observation({"camera": frame}, np.asarray(STATE, np.float32), "reach the red cube")
    expected = server.engine.act(server.engine.request(observation, seed=11)).chunk.actions
    np.testing.assert_array_equal(
        np.asarray(server.client.act(seed=11).json["actions"], np.float32), expected
    )


def test_a_clamped_chunk_says_which_joint_left_its_range(serve: Serve) -> None:
    server = serve("wide")
    reply = server.client.act(seed=1).json
    assert reply["guard_clamped"] is True
    assert reply["guard_violations"] == reply["guard_summary"]["violations"]
    assert reply["guard_violations"][0].startswith("panda_joint")
    assert reply["guard_summary"]["clamped"] is True
    assert reply["guard_summary"]["clamp_count"] >= len(reply["guard_violations"])
    robot = server.engine.loaded.embodiment
    actions = np.asarray(reply["actions"])
    assert (actions >= robot.action_min).all()
    assert (actions <= robot.action_max).all()


def test_every_part_of_the_request_reaches_the_network(serve: Serve) -> None:
    client = serve("mono_pi0_7").client
    base = client.act(seed=1).json["actions"]
    assert client.act(seed=1).json["actions"] == base
    for change in (
        {"seed": 2},
        {"image": jpeg(colour=(10, 10, 250))},
        {"instruction": "push the blue ball"},
        {"state": [0.5, *STATE[1:]]},
    ):
        assert client.act(**({"seed": 1} | change)).json["actions"] != base


def test_an_image_may_be_written_in_many_ways(serve: Serve) -> None:
    client = serve("mono_pi0_7", embodiment="").client
    plain = png()
    expected = client.act(image=plain, seed=3).json["actions"]
    with_padding = {**raw(), "step": 96 + 8}
    rows = np.pad(picture().reshape(32, 96), ((0, 0), (0, 8)))
    with_padding["data"] = text(rows.tobytes())
    for image in (
        f"data:image/png;base64,{plain}",
        "\n".join(plain[start : start + 60] for start in range(0, len(plain), 60)),
        plain.rstrip("="),
        base64.urlsafe_b64encode(base64.b64decode(plain)).decode(),
        {"data": plain},
        {"data": plain, "encoding": "png"},
        raw("rgb8"),
        raw("bgr8", colour=(40, 40, 200)),
        with_padding,
    ):
        answer = client.act(image=image, seed=3)
        assert answer.status == 200, answer.body
        assert answer.json["actions"] == expected


def test_a_phones_picture_and_a_webcams_picture_are_read_as_they_lie(serve: Serve) -> None:
    """EXIF turns nothing, in neither kind; what webcams put between the data of a JPEG is taken out."""
    client = serve("mono_pi0_7", embodiment="").client
    whole = restarting(scene())
    head, parts = taken_apart(whole)
    webcam = put_together(head, [part + bytes(20) for part in parts])
    expected = client.act(image=text(whole), seed=3).json["actions"]
    for file in (webcam, *(turned(webcam, orientation) for orientation in (1, 3, 6, 8))):
        answer = client.act(image=text(file), seed=3)
        assert answer.status == 200, answer.body
        assert answer.json["actions"] == expected
    assert client.act(image=text(webcam[:-200])).status == 422
    plain = bytes(cv2.imencode(".png", scene()[:, :, ::-1])[1])
    expected = client.act(image=text(plain), seed=3).json["actions"]
    for orientation in (1, 3, 6, 8):
        assert client.act(image=text(turned(plain, orientation)), seed=3).json["actions"] == expected


def test_cameras_are_given_by_position_or_by_name(serve: Serve) -> None:
    client = serve("mono_pi0", embodiment="").client
    red, blue = jpeg(), jpeg(colour=(0, 0, 255))
    state = {"state": STATE, "seed": 1, "instruction": "reach the red cube"}
    by_position = client.act({"image": red, "image_wrist": blue, **state})
    by_name = client.act({"images": {"base": red, "wrist_l": blue}, **state})
    mixed = client.act({"image": red, "images": {"wrist_l": blue, "wrist_r": None}, **state})
    assert by_position.json["actions"] == by_name.json["actions"] == mixed.json["actions"]
    swapped = client.act({"images": {"base": blue, "wrist_l": red}, **state})
    alone = client.act({"image": red, "image_wrist": "", **state})
    assert len({str(answer.json["actions"]) for answer in (by_name, swapped, alone)}) == 3


def test_the_embodiments_first_camera_is_the_image(serve: Serve) -> None:
    client = serve("mono_pi0_7").client
    named = client.act(image=None, images={"camera": jpeg()}, seed=1)
    assert named.json["actions"] == client.act(seed=1).json["actions"]


def test_state_is_read_as_numbers_in_any_usual_spelling(serve: Serve) -> None:
    client = serve("mono_pi0_7").client
    expected = client.act(state=[1.0, 0.0, 0.0, -1.5, 0.0, 1.75, 0.0], seed=1).json["actions"]
    assert client.act(state=[True, 0, "0", "-1.5", False, 1.75, 0], seed=1).json["actions"] == expected


def test_a_reply_says_which_cameras_were_used_and_what_was_not_read(
    serve: Serve, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reflex_ros.sidecar.ignored_fields._line", RateLimit(3600.0))
    client = serve("mono_pi0", embodiment="").client
    red, state = jpeg(), {"state": STATE, "seed": 1, "instruction": "reach"}
    well = client.act({"image": red, "images": {"wrist_l": red}, **state}).json
    assert (well["cameras_used"], well["ignored_fields"], well["did_you_mean"]) == (
        ["base", "wrist_l"],
        [],
        {},
    )
    reply = client.act({"image": red, "wrist_image": red, "states": STATE, "image_wirst": red, **state}).json
    assert reply["cameras_used"] == ["base"]
    assert reply["ignored_fields"] == ["wrist_image", "states", "image_wirst"]
    assert reply["did_you_mean"] == {
        "wrist_image": "image_wrist",
        "states": "state",
        "image_wirst": "image_wrist",
    }
    assert "wrist_image (did you mean image_wrist?)" in caplog.text
    lines = caplog.text.count("had unknown fields")
    many = {f"x{number}\n[ERROR] fake\u202e" + "y" * 1000: 0 for number in range(5000)}
    reply = client.act({"image": red, **state, **many}).json
    assert len(reply["ignored_fields"]) == 16
    assert all(len(name) <= 64 and name.isprintable() for name in reply["ignored_fields"])
    assert caplog.text.count("had unknown fields") == lines  # once a minute
    nested = client.act({"image": {**raw(), "stp": 96, "hieght": 32}, **state}).json
    assert nested["ignored_fields"] == ["image.stp", "image.hieght"]
    assert nested["did_you_mean"] == {"image.stp": "image.step", "image.hieght": "image.height"}


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("State", "state"), ("observation.state", "state"), ("observation/state", "state"), ("qpos", "state"),
        ("Instruction", "instruction"), ("prompt", "instruction"), ("instrution", "instruction"),
        ("episodeid", "episode_id"), ("id_request", "request_id"), ("Image-Wrist", "image_wrist"), ("imges", "images"),
        ("colour", ""), ("\ud800", ""), ("", ""), ("x" * 10**6, ""),
    ],
)  # fmt: skip
def test_a_field_that_is_nearly_known_is_recognised(key: str, meant: str) -> None:
    found = find_ignored_fields({key: 1})
    assert len(found.names) == 1
    assert list(found.meant.values()) == ([meant] if meant else [])


def test_unknown_fields_are_ignored_and_null_is_absent(serve: Serve) -> None:
    client = serve("mono_pi0_7").client
    answer = client.act(
        colour="green", image_wrist=None, images=None, episode_id=None, request_id="", seed=None
    )
    assert answer.status == 200
    assert answer.json["episode_id"] is None
    assert answer.json["request_id"]


def test_an_instruction_that_does_not_fit_says_how_much_was_cut(serve: Serve) -> None:
    reply = serve("mono_pi0_7").client.act(instruction="red " * 30).json
    assert reply["instruction_tokens_cut"] == 30 - 16


def test_non_finite_actions_become_a_hold_where_the_robot_is(serve: Serve) -> None:
    client = serve("failing_nan").client
    state = [1.5, *STATE[1:]]
    reply = client.act(state=state).json
    assert reply["source"] == "hold"
    assert reply["guard_clamped"] is True
    assert reply["guard_violations"][0].startswith("non_finite")
    np.testing.assert_allclose(reply["actions"], [state] * reply["num_actions"], rtol=1e-6)


def test_a_body_far_beyond_aiohttps_own_limit_is_read(serve: Serve) -> None:
    answer = serve("mono_pi0_7").client.act(image=raw(height=1200, width=1600))
    assert answer.status == 200


def test_requests_are_counted_and_timed(serve: Serve) -> None:
    server = serve("mono_pi0_7")
    for _ in range(3):
        server.client.act()
    answer = server.client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert (
        'reflex_act_latency_seconds_count{embodiment="franka",model_id="pi0-mono",policy_slot="prod"} 3.0'
        in (answer.body.decode())
    )


def test_good_is_good(serve: Serve) -> None:
    """The helper's request is what the other tests change one field of."""
    assert serve("mono_pi0_7").client.act(good()).status == 200
