# SPDX-License-Identifier: Apache-2.0
"""openpi's websocket and its dialects, as the real clients use them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from http_client import STATE, Background, busy, good, in_flight, picture, text, wait_for
from servers import MakeEngine, Server
from wires import libero, packed, unpacked
from ws_client import BINARY, CONTINUED, PING, TEXT, ClosedError, UpgradeError, connected, frame

from reflex_core.engine.serving_state import ServingState
from reflex_core.images.raw_encodings import rgb
from reflex_core.values import Request, Served
from reflex_ros.sidecar.server import Sidecar

Serve = Callable[..., Server]
KEY = "a key that is long enough"
VLLM, ROBOARENA = "/v1/realtime/robot/openpi", "/roboarena"


@pytest.fixture
def server(serve: Serve) -> Server:
    return serve("mono_pi0_7")


@pytest.fixture
def key_file(tmp_path: Any) -> str:
    path = tmp_path / "key"
    path.write_text(KEY)
    return str(path)


def usual(server: Server, **fields: Any) -> Any:
    """The rows of POST /act for the same observation and seed."""
    image = {"data": text(picture().tobytes()), "encoding": "rgb8", "height": 32, "width": 32}
    answer = server.client.act(good(image=image, seed=3) | fields)
    assert answer.status == 200, answer.body
    return np.array(answer.json["actions"], np.float32)


def heard(server: Server) -> list[tuple[Request, Served]]:
    """Requests and answers from now on."""
    found: list[tuple[Request, Served]] = []
    server.engine.listen(lambda request, served: found.append((request, served)))
    return found


def arrays_in(value: Any) -> Iterator[Any]:
    if isinstance(value, np.ndarray):
        yield value
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from arrays_in(item)


def test_the_server_speaks_first_and_says_what_it_serves(server: Server) -> None:
    with connected(server) as client:
        metadata = unpacked(bytes(client.receive()))
    assert (metadata["server"], metadata["robot_id"]) == ("reflex", "arm7")
    assert (metadata["action_horizon"], metadata["action_dim"]) == (50, 7)
    assert metadata["action_names"][0] == "panda_joint1"
    assert metadata["control_hz"] == pytest.approx(1 / metadata["dt_s"])
    assert metadata["cameras"]
    assert metadata["state_names"]


def test_the_same_observation_has_the_same_actions_as_on_act(server: Server) -> None:
    with connected(server) as client:
        client.receive()
        reply = client.infer(libero(seed=3))
    assert (reply["actions"].dtype, reply["actions"].shape) == (np.float32, (50, 7))
    np.testing.assert_array_equal(reply["actions"], usual(server))


def test_a_reply_has_times_and_one_map_of_plain_telemetry_and_no_array_besides(server: Server) -> None:
    """The client's ActionChunkBroker takes row after row of every array."""
    with connected(server) as client:
        client.receive()
        first, second = client.infer(libero()), client.infer(libero())
    for reply in (first, second):
        assert set(reply) == {"actions", "server_timing", "policy_timing", "reflex"}
        assert len(list(arrays_in(reply))) == 1
        assert reply["server_timing"]["infer_ms"] > 0
        assert reply["policy_timing"]["infer_ms"] > 0
    assert "prev_total_ms" not in first["server_timing"]
    assert second["server_timing"]["prev_total_ms"] > 0
    assert first["reflex"]["keys"]["state"] == "observation/state"
    assert first["reflex"]["chunk"]["start_index"] == 0


def test_a_refusal_is_a_text_message_and_the_connection_lives_on(server: Server) -> None:
    with connected(server) as client:
        client.receive()
        refused = client.infer(libero(**{"observation/state": np.zeros(2)}))
        assert refused.startswith("state-length: the state must be 7 numbers (panda_joint1")
        assert "numbers: observation/state (2)" in refused
        assert "Traceback" not in refused
        assert "/" not in refused.replace("observation/", "")
        assert client.infer(libero())["actions"].shape == (50, 7)


@pytest.mark.parametrize(
    ("message", "slug"),
    [
        (b"\xc1", "malformed-msgpack"),
        (b"", "malformed-msgpack"),
        (packed([1, 2]), "bad-body"),
        (packed({}), "missing-instruction"),
        (packed(libero(endpoint="kill")), "bad-endpoint"),
        (packed(libero(prompt="")), "missing-instruction"),
        (packed(libero(**{"observation/image": np.zeros((32, 32, 7), np.uint8)})), "bad-image"),
        (packed(libero(**{"observation/image": np.full((32, 32, 3), 7.0)})), "bad-image"),
        (packed(libero(**{"observation/image": np.full((32, 32, 3), np.nan, np.float32)})), "bad-image"),
        (packed(libero(**{"observation/image": np.zeros((32, 32, 3), np.int64)})), "bad-image"),
        (packed(libero(**{"observation/image": np.zeros((6000, 6000, 1), np.bool_)})), "image-too-large"),
        (packed(libero(**{"observation/state": np.full(7, np.nan)})), "state-not-finite"),
        (packed(libero(**{"observation/state": np.zeros((7, 7))})), "bad-state"),
        (packed(libero(**{"reflex/seed": -1})), "bad-seed"),
        (packed(libero(**{"reflex/robot_id": "ros"})), "reserved-robot-id"),
        (packed(libero(session_id=1.5)), "bad-session-id"),
        (packed(libero(session_id="\n")), "bad-episode-id"),
        (packed({"k" * 300: 1}), "bad-body"),
        (packed({f"k{number}": 1 for number in range(300)}), "bad-body"),
        (packed({"a": {"a": {"a": {"a": {"a": 1}}}}}), "bad-body"),
        (packed(libero(**{"observation/image": np.zeros((2, 3, 32, 32, 3), np.uint8)})), "bad-image"),
    ],
)
def test_what_is_no_observation_is_refused_in_one_sentence(server: Server, message: bytes, slug: str) -> None:
    with connected(server) as client:
        client.receive()
        client.send(message)
        answer = client.receive()
        assert isinstance(answer, str)
        assert answer.startswith(f"{slug}: ")
        assert "\n" not in answer
        assert client.infer(libero())["actions"].shape == (50, 7)


def test_a_text_message_is_refused_and_the_connection_lives_on(server: Server) -> None:
    with connected(server) as client:
        client.receive()
        client.send(b'{"prompt": "reach"}', TEXT)
        assert client.receive() == "bad-message: a message must be binary: msgpack"
        assert client.infer(libero())["actions"].shape == (50, 7)


def test_arrays_that_nothing_reads_are_no_reason_to_refuse(server: Server) -> None:
    more = {
        "camera_matrix": np.eye(3),
        "depth": np.zeros((8, 8), np.uint16),
        "flags": [True, None, "x"],
        "none": None,
    }
    with connected(server) as client:
        client.receive()
        assert client.infer(libero(**more))["actions"].shape == (50, 7)


def test_images_are_taken_as_openpi_takes_them(server: Server) -> None:
    """Channels first, floats in 0 to 1, an axis of one before them, blue before red where the setting says so."""
    seen = heard(server)
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    forms = [
        image,
        image.transpose(2, 0, 1),
        np.minimum(image / 255 + 1e-9, 1.0),
        image[None],
        image[:, :, :1],
    ]
    with connected(server) as client:
        client.receive()
        for form in forms:
            assert client.infer(libero(**{"observation/image": form}))["actions"].shape == (50, 7)
    frames = [next(iter(request.observation.frames.values())) for request, _ in seen]
    assert [one.encoding for one in frames] == ["rgb8"] * 4 + ["mono8"]
    for one in frames[:4]:
        np.testing.assert_array_equal(rgb(one), image)
    np.testing.assert_array_equal(rgb(frames[4])[:, :, 0], image[:, :, 0])


def test_the_observation_of_an_aloha_client_is_understood(serve: Serve) -> None:
    """A map of images, channels first, and fourteen joints; the prompt may be bytes."""
    server = serve("fourteen", embodiment="")
    seen = heard(server)
    names = ("cam_high", "cam_low", "cam_right_wrist", "cam_left_wrist")
    images = {name: np.full((3, 24, 32), number, np.uint8) for number, name in enumerate(names)}
    with connected(server) as client:
        client.receive()
        reply = client.infer({"state": np.zeros(14), "images": images, "prompt": b"fold the towel"})
        assert reply["actions"].shape == (10, 14)
    observation = seen[0][0].observation
    frames = {
        camera: (one.height, one.width, rgb(one)[0, 0, 0]) for camera, one in observation.frames.items()
    }
    assert frames == {"base": (24, 32, 0), "wrist_l": (24, 32, 3), "wrist_r": (24, 32, 2)}
    assert observation.instruction == "fold the towel"


def test_keys_and_channel_order_can_be_set(serve: Serve) -> None:
    server = serve("mono_pi0_7", wire_keys=["base=cam_b:bgr", "state=j+g", "instruction=say"])
    camera = server.engine.description()["cameras"]
    ours = next(iter(camera.values()))
    server = serve("mono_pi0_7", wire_keys=[f"{ours}=cam_b:bgr", "state=j+g", "instruction=say"])
    seen = heard(server)
    sent = {
        "cam_a": picture(),
        "cam_b": picture(colour=(40, 40, 200)),
        "g": STATE[6:],
        "j": np.array(STATE[:6]),
        "say": "reach",
    }
    with connected(server) as client:
        assert unpacked(bytes(client.receive()))["wire_keys"][0] == f"{ours}=cam_b:bgr"
        assert client.infer(sent)["actions"].shape == (50, 7)
        assert "takes state from 'g'" in client.infer(
            {key: value for key, value in sent.items() if key != "g"}
        )
    observation = seen[0][0].observation
    assert observation.frames[ours].encoding == "bgr8"
    np.testing.assert_allclose(observation.state, np.array(STATE, np.float32))
    assert observation.instruction == "reach"


def test_a_connection_is_an_episode_and_a_caller_and_is_named_in_metrics(server: Server) -> None:
    seen = heard(server)
    for _ in range(2):
        with connected(server) as client:
            client.receive()
            client.infer(libero())
            client.infer(libero())
    episodes = [request.episode_id for request, _ in seen]
    assert episodes[0] == episodes[1] != episodes[2] == episodes[3]
    assert {request.wire for request, _ in seen} == {"openpi"}
    assert seen[0][0].caller == f"session:{episodes[0]}"
    lines = server.client.get("/metrics").body.decode().splitlines()
    counted = [
        line for line in lines if line.startswith("reflex_wire_requests_total{") and 'wire="openpi"' in line
    ]
    assert sum(float(line.rsplit(" ", 1)[1]) for line in counted) == 4.0


def test_our_own_fields_go_into_the_map_of_an_unchanged_client(server: Server) -> None:
    seen = heard(server)
    own = {
        "reflex/episode_id": "e-1",
        "reflex/seed": np.int64(7),
        "reflex/request_id": "r-1",
        "reflex/robot_id": "arm 3",
    }
    with connected(server) as client:
        client.receive()
        reply = client.infer(libero(**own))
    request = seen[0][0]
    assert (request.episode_id, request.seed, request.request_id, request.caller) == (
        "e-1",
        7,
        "r-1",
        "arm 3",
    )
    assert reply["reflex"]["request"]["ignored_fields"] == ["observation/wrist_image"]


def test_a_client_that_says_how_many_rows_it_executes_has_its_chunks_joined(server: Server) -> None:
    """ActionChunkBroker(n) executes n rows of each; the wire does not say so, the URL does."""
    seen = heard(server)
    with connected(server, "/?replan=8") as client:
        client.receive()
        for _ in range(3):
            client.infer(libero())
    assert [request.elapsed_rows for request, _ in seen] == [None, 8.0, 8.0]
    assert [request.previous_request_id for request, _ in seen[1:]] == [
        served.request_id for _, served in seen[:2]
    ]
    with connected(server, "/?replan=x") as client:
        client.receive()
        assert client.infer(libero()).startswith("bad-replan: ")


def test_vllm_has_bare_rows_resets_and_refusals_in_maps(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = heard(server)
    begun: list[str | None] = []
    monkeypatch.setattr(ServingState, "begins", lambda _, name, __: begun.append(name))
    with connected(server, VLLM) as client:
        assert unpacked(bytes(client.receive()))["server"] == "reflex"
        rows = client.infer(libero(seed=3, session_id="s-1", sampling_params={"num_inference_steps": 4}))
        np.testing.assert_array_equal(rows, usual(server))
        refused = client.infer(libero(prompt=""))
        assert set(refused) == {"type", "message"}
        assert refused["type"] == "error"
        assert refused["message"].startswith("missing-instruction: ")
        assert client.infer({"endpoint": "reset", "session_id": "s-1"}) == {"status": "reset successful"}
        assert client.infer(libero(session_id="s-1")).shape == (50, 7)
    of_wire = [request for request, _ in seen if request.wire == "vllm"]
    first, second = (request.episode_id for request in of_wire)
    assert first.startswith("s-1@ws-")
    assert begun == [second] == [f"{first}-1"]


@pytest.mark.parametrize("path", [VLLM, ROBOARENA])
def test_two_clients_that_name_their_sessions_alike_share_no_episode(serve: Serve, path: str) -> None:
    server = serve("two_observations", embodiment="")
    kept: list[int] = []
    server.engine.listen(lambda request, _: kept.append(request.history.kept))
    sent = {
        "observation/image": picture(8, 8), "observation/state": np.array([1.0, -1.0], np.float32), "prompt": "reach",
        "session_id": "robot", "endpoint": "infer",
    }  # fmt: skip
    with connected(server, path) as one, connected(server, path) as other:
        for client in (one, other):
            client.receive()
        for client in (one, other, one):
            assert isinstance(client.infer(sent), np.ndarray)
    assert kept == [0, 0, 1]


def test_roboarena_has_its_six_fields_bare_rows_and_a_reset_in_text(server: Server) -> None:
    """Its client makes a dataclass of the metadata: a field more is an error there."""
    seen = heard(server)
    with connected(server, ROBOARENA) as client:
        metadata = unpacked(bytes(client.receive()))
        assert set(metadata) == {
            "image_resolution", "needs_wrist_camera", "n_external_cameras", "needs_stereo_camera", "needs_session_id",
            "action_space",
        }  # fmt: skip
        assert metadata["n_external_cameras"] in (0, 1, 2)
        assert metadata["action_space"] == "joint_position"
        sent = {
            "endpoint": "infer",
            "session_id": np.array([4, 2], np.int32),
            "observation/exterior_image_0_left": picture(),
            "observation/joint_position": np.array(STATE, np.float32),
            "observation/cartesian_position": np.zeros(6),
            "observation/gripper_position": np.zeros(1, np.float32),
            "prompt": "reach",
        }
        assert client.infer(sent).shape == (50, 7)
        assert (
            client.infer({"endpoint": "reset", "session_id": np.array([4, 2], np.int32)})
            == "reset successful"
        )
        assert client.infer(sent).shape == (50, 7)
        assert client.infer(sent | {"prompt": ""}).startswith("missing-instruction: ")
    first, second = (request.episode_id for request, _ in seen)
    assert first.startswith("4-2@ws-")
    assert second == f"{first}-1"


def test_the_page_is_still_at_the_same_path_and_probes_find_healthz(server: Server) -> None:
    page = server.client.get("/")
    assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    healthz = server.client.get("/healthz")
    assert (healthz.status, healthz.body, healthz.headers["content-type"]) == (
        200,
        b"OK\n",
        "text/plain; charset=utf-8",
    )
    for path in (VLLM, ROBOARENA, "/vla-eval"):
        answer = server.client.get(path)
        assert (answer.status, answer.json["error"]) == (426, "upgrade-required")


def test_a_key_is_asked_for_before_the_upgrade_also_as_openpi_sends_it(serve: Serve, key_file: str) -> None:
    server = serve("mono_pi0_7", api_key_file=key_file)
    for headers in ({}, {"Authorization": "Api-Key wrong"}, {"Authorization": f"Basic {KEY}"}):
        for path in ("/", VLLM, ROBOARENA, "/vla-eval"):
            with pytest.raises(UpgradeError) as refused, connected(server, path, **headers):
                pass
            assert refused.value.status == 401
    for headers in (
        {"Authorization": f"Api-Key {KEY}"},
        {"Authorization": f"Bearer {KEY}"},
        {"X_Reflex_Key": KEY},
    ):
        with connected(server, "/", **headers) as client:
            client.receive()
            assert client.infer(libero())["actions"].shape == (50, 7)
    assert server.client.get("/config", Authorization=f"Api-Key {KEY}").status == 200
    assert server.client.get("/").status == 200


def test_a_page_of_another_site_opens_no_connection_and_a_program_may_use_any_name(server: Server) -> None:
    own = f"127.0.0.1:{server.sidecar.port}"
    for headers in (
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Host": "evil.example", "Origin": "http://evil.example"},
        {"Sec_Fetch_Site": "cross-site"},
    ):
        with pytest.raises(UpgradeError) as refused, connected(server, **headers):
            pass
        assert refused.value.status == 403
        assert b"foreign-origin" in refused.value.body
    for headers in ({"Host": "gpu-box:8000"}, {"Origin": f"http://{own}"}):
        with connected(server, **headers) as client:
            client.receive()


def test_while_the_policy_loads_a_client_is_let_in_and_its_greeting_held_back(serve: Serve) -> None:
    """A client that is refused once gives up; one that waits for its greeting does not."""
    server = serve("mono_pi0_7", ready=False)
    assert server.client.get("/healthz").status == 503
    with connected(server) as client:
        client.send(b"still there?", PING)
        greeting = Background(client.receive)
        wait_for(lambda: client.pongs)
        assert not greeting.done
        server.engine.load()
        server.engine.warm_up()
        assert unpacked(greeting.result())["action_dim"] == 7
        assert client.infer(libero())["actions"].shape == (50, 7)


def test_a_policy_that_failed_to_load_lets_no_client_wait(make_engine: MakeEngine) -> None:
    engine = make_engine("mono_pi0_7", ready=False, embodiment="franka", port=0)
    sidecar = Sidecar(engine, engine.settings)
    sidecar.start()
    try:
        engine.settings = replace(engine.settings, export_dir="/nowhere/at/all")
        with pytest.raises(Exception, match="nowhere"):
            engine.load()
        with pytest.raises(UpgradeError) as refused, connected(sidecar.port):
            pass
        assert refused.value.status == 503
        assert b"nowhere" not in refused.value.body
    finally:
        sidecar.stop()


def test_pings_are_answered_while_an_inference_takes_its_time(server: Server) -> None:
    """aiohttp answers them only in receive(): a handler that infers between two would be dropped after 20 s."""
    with connected(server) as client:
        client.receive()
        with busy(server.engine):
            client.send(packed(libero()))
            wait_for(lambda: in_flight(server.engine))
            answer = Background(client.receive)
            for number in range(3):
                client.send(b"%d" % number, PING)
                wait_for(lambda number=number: len(client.pongs) > number)
            assert not answer.done
        assert unpacked(answer.result())["actions"].shape == (50, 7)
    assert client.pongs == [b"0", b"1", b"2"]


def test_messages_of_a_connection_are_answered_in_their_order(server: Server) -> None:
    seen = heard(server)
    with connected(server) as client:
        client.receive()
        with busy(server.engine):
            for seed in range(6):  # more than are read ahead
                client.send(packed(libero(seed=seed)))
            wait_for(lambda: in_flight(server.engine))
            assert in_flight(server.engine) == 1
        found = [unpacked(bytes(client.receive()))["actions"] for _ in range(6)]
    assert [served.seed for _, served in seen] == list(range(6))
    for rows, (_, served) in zip(found, seen, strict=True):
        np.testing.assert_array_equal(rows, served.chunk.actions)


def test_a_frame_of_a_large_camera_is_taken(server: Server) -> None:
    """aiohttp's own limit is 4 MiB, less than one raw 1920 x 1080 image."""
    with connected(server) as client:
        client.receive()
        image = np.zeros((1080, 1920, 3), np.uint8)
        assert client.infer(libero(**{"observation/image": image}))["actions"].shape == (50, 7)


def test_a_message_in_fragments_is_one_message(server: Server) -> None:
    data = packed(libero(seed=3))
    with connected(server) as client:
        client.receive()
        client.send(data[:100], BINARY, fin=False)
        client.send(b"between", PING)
        client.send(data[100:200], CONTINUED, fin=False)
        client.send(data[200:], CONTINUED)
        np.testing.assert_array_equal(unpacked(bytes(client.receive()))["actions"], usual(server))


def test_the_reply_has_the_marks_of_the_request(server: Server) -> None:
    from wires import msgpack_numpy_tag

    with connected(server) as client:
        client.receive()
        client.send(packed(libero(seed=3), msgpack_numpy_tag))
        answer = bytes(client.receive())
    assert b"\xc4\x02nd\xc3" in answer
    np.testing.assert_array_equal(unpacked(answer)["actions"], usual(server))


def test_a_policy_that_goes_and_comes_is_refused_and_answered_on_the_same_connection(server: Server) -> None:
    with connected(server) as client:
        client.receive()
        assert client.infer(libero())["actions"].shape == (50, 7)
        server.engine.pause()
        assert client.infer(libero()).startswith("not-ready: ")
        server.engine.unload()
        assert client.infer(libero()).startswith("not-ready: the policy is not serving")
        server.engine.load()
        server.engine.warm_up()
        assert client.infer(libero())["actions"].shape == (50, 7)


def test_a_server_that_ends_answers_what_it_has_and_says_goodbye(server: Server) -> None:
    with connected(server) as idle, connected(server) as client:
        idle.receive()
        client.receive()
        with busy(server.engine):
            client.send(packed(libero()))
            wait_for(lambda: in_flight(server.engine))
            began_s = time.monotonic()
            stopping = Background(lambda: server.sidecar.stop() or True)
            with pytest.raises(ClosedError) as closed:
                idle.receive()
            assert closed.value.code == 1001
        assert unpacked(bytes(client.receive()))["actions"].shape == (50, 7)
        with pytest.raises(ClosedError) as closed:
            client.receive()
        assert closed.value.code == 1001
    stopping.result()
    assert time.monotonic() - began_s < 8


def test_length_that_lies_is_no_reason_to_wait_for_it(server: Server) -> None:
    for length in (1 << 33, (1 << 63) - 1):
        with connected(server) as client:
            client.receive()
            client.raw(frame(b"", BINARY, length=length))
            with pytest.raises(ClosedError) as closed:
                client.receive()
            assert closed.value.code == 1009
