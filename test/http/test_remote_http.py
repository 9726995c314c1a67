# SPDX-License-Identifier: Apache-2.0
"""A policy that another server runs, over each of the wires that reach one."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from figures import value_of
from http_client import STATE, picture, wait_for
from lying_server import JOINTS, LyingServer
from openpi_double import OpenpiDouble, rows_of, towards
from servers import Server
from wires import packed

from reflex_core.concurrency.cancellation import Cancellation
from reflex_core.doctor.finding import FAIL
from reflex_core.doctor.served_policy import policy as examine
from reflex_core.engine.engine import Engine
from reflex_core.errors import CancelledError, ConfigurationError, InferenceError, NotReadyError, ReflexError
from reflex_core.files.share import embedded_policy
from reflex_core.policy.cloud_server import REASONS
from reflex_core.policy.remote import RemotePolicy
from reflex_core.records.trace.reader import TraceReader
from reflex_core.replay.target import Wanted, load_target
from reflex_core.settings.table import settings_from
from reflex_core.values import HOLD, LAST_KNOWN_GOOD, POLICY, Frame, Observation, Request, Served
from reflex_ros.console.startup_banner import banner_rows
from reflex_ros.preflight import require_sound
from reflex_ros.sidecar.server import Sidecar
from reflex_ros.sidecar.server_connections import connect_cloud, connect_remote
from reflex_ros.sidecar.status_summary import status_summary

Serve = Callable[..., Server]
Remote = Callable[..., Engine]
PATHS = {
    "reflex": "http://127.0.0.1:{}",
    "openpi": "ws://127.0.0.1:{}",
    "vllm": "ws://127.0.0.1:{}/v1/realtime/robot/openpi",
}
UNREACHABLE = "http://127.0.0.1:9"  # the discard port: a connection is refused at once
GOOD = [STATE] * 10
REACH_HOME = [0.0, 0.2, 0.0, -2.4, 0.0, 2.6, 0.8]  # where the embedded policy's arm begins


@pytest.fixture
def remote() -> Iterator[Remote]:
    """`remote(url)`: an engine whose policy runs at the URL, loaded and warm unless `ready=False`."""
    engines: list[Engine] = []

    def make(url: str, *, ready: bool = True, **settings: Any) -> Engine:
        values = {"remote": url, "embodiment": "franka", "remote_wait_s": 0.0} | settings
        engine = Engine(settings_from(values), connect_cloud, None, require_sound, connect_remote)
        engines.append(engine)
        if ready:
            engine.load()
            engine.warm_up()
        return engine

    yield make
    for engine in engines:
        engine.unload()


@pytest.fixture(scope="module")
def liar() -> Iterator[LyingServer]:
    server = LyingServer().start()
    yield server
    server.stop()


POSITIONS_OF_THE_ARM = {
    "action_names": [f"panda_joint{number}" for number in range(1, 8)], "action_space": "joint_position"
}  # fmt: skip


@pytest.fixture
def openpi() -> Iterator[Callable[..., OpenpiDouble]]:
    """`openpi(answer)`: a server of openpi's websocket."""
    servers: list[OpenpiDouble] = []

    def start(answer: Any = None, **more: Any) -> OpenpiDouble:
        servers.append(OpenpiDouble(answer or towards(STATE), **more).start())
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


def policy_of(engine: Engine) -> RemotePolicy:
    assert engine.loaded is not None
    policy = engine.loaded.policy
    assert isinstance(policy, RemotePolicy)
    return policy


def failures_of(engine: Engine) -> dict[str, float]:
    """What reflex_remote_failures_total has counted, by reason."""
    counted = {reason: value_of(engine.metrics.remote_failures.labels(reason)) for reason in REASONS}
    return {reason: number for reason, number in counted.items() if number}


def request_to(engine: Engine, **fields: Any) -> Request:
    pixels = picture()
    names = engine.description()["cameras"].values()
    frames = {name: Frame(pixels, "rgb8", *pixels.shape[:2]) for name in names}
    seen = Observation(frames, np.array(STATE, np.float32), fields.pop("instruction", "reach the red cube"))
    return engine.request(seen, **{"seed": 3} | fields)


def refusal(engine: Engine) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        engine.load()
    return caught.value


@pytest.mark.parametrize("dialect", PATHS)
def test_the_rows_of_another_server_are_those_that_it_makes(
    serve: Serve, remote: Remote, dialect: str
) -> None:
    there = serve("mono_pi0_7")
    raw = {"remote_images": "raw"} if dialect == "reflex" else {}
    here = remote(PATHS[dialect].format(there.sidecar.port), **raw)
    served = here.act(request_to(here))
    expected = there.engine.act(request_to(there.engine))
    if dialect != "openpi":  # whose requests have no seed
        np.testing.assert_array_equal(served.raw_actions, expected.chunk.actions)
    assert served.raw_actions.shape == expected.chunk.actions.shape
    assert (served.chunk.source, served.inference.mode) == (POLICY, "remote")
    assert served.model_version == expected.model_version
    one, other = here.description(), there.engine.description()
    assert [one[key] for key in ("dt_s", "action_names", "action_horizon")] == [
        other[key] for key in ("dt_s", "action_names", "action_horizon")
    ]
    assert one["remote"] == {
        "url": PATHS[dialect].format(there.sidecar.port), "dialect": dialect, "reachable": True
    }  # fmt: skip


def test_the_chunk_that_is_executed_guides_the_next_one_there(serve: Serve, remote: Remote) -> None:
    there = serve("calm", export_dir=str(embedded_policy()), embodiment="")
    arm = str(embedded_policy() / "embodiment.json")
    here = remote(PATHS["reflex"].format(there.sidecar.port), embodiment="", custom_embodiment_config=arm)
    state = np.array(REACH_HOME, np.float32)

    def act(**fields: Any) -> Served:
        request = request_to(here, **{"episode_id": "e", "instruction": "reach the red block"} | fields)
        return here.act(replace(request, observation=replace(request.observation, state=state)))

    first = act(request_id="one")
    second = act(request_id="two", elapsed_rows=3.0, previous_request_id="one")
    assert first.rtc.mode == ""
    assert (second.rtc.mode, second.rtc.previous, second.rtc.elapsed_rows) == ("guided_identity", "one", 3.0)
    assert there.engine.description()["rtc"]["guided"] == 1
    assert act(elapsed_rows=3.0, instruction="reach the green block").rtc.mode == ""


def test_openpis_wire_says_that_it_guides_no_chunk(openpi: Any, remote: Remote) -> None:
    here = remote(openpi().url)
    described = here.description()
    assert "does not guide" in described["cannot"]["guidance"]
    assert described["rtc"]["mode"] == "off"


def test_a_lost_server_is_not_ready_and_comes_back_without_a_restart(serve: Serve, remote: Remote) -> None:
    there = serve("mono_pi0_7")
    here = remote(PATHS["reflex"].format(there.sidecar.port))
    here.act(request_to(here))
    there.sidecar.stop()
    for _ in range(4):
        with pytest.raises(NotReadyError, match="gives no chunk") as caught:
            here.act(request_to(here))
        assert caught.value.slug == "remote-unreachable"
    assert not policy_of(here).reachable
    assert here.loaded is not None
    assert [breaker.state for breaker in here.loaded.breakers] == ["closed"]
    assert failures_of(here) == {"refused": 3, "breaker_open": 1}  # after three nothing is sent
    again = Sidecar(there.engine, replace(there.engine.settings, port=there.sidecar.port))
    again.start()
    try:
        wait_for(lambda: policy_of(here).reachable)
        assert here.act(request_to(here)).chunk.source == POLICY
    finally:
        again.stop()


def test_an_openpi_server_that_was_killed_is_found_again(openpi: Any, remote: Remote) -> None:
    there = openpi()
    here = remote(there.url)
    here.act(request_to(here))
    there.stop()
    for _ in range(4):
        with pytest.raises(NotReadyError):
            here.act(request_to(here))
    there.start()
    wait_for(lambda: policy_of(here).reachable)
    assert here.act(request_to(here)).chunk.source == POLICY


BAD = {
    "nan": rows_of([[float("nan")] * 7] * 10),
    "infinite": rows_of([[float("inf")] * 7] * 10),
    "narrow": rows_of([STATE[:6]] * 10),
    "wide": rows_of([[*STATE, 0.0]] * 10),
    "nothing": rows_of(np.zeros((0, 7))),
    "one row flat": rows_of(STATE),
    "deep": rows_of(np.zeros((2, 10, 7))),
    "texts": lambda _, __: {"actions": "none"},
    "a list": lambda _, __: {"actions": [STATE] * 10},
    "complex": lambda _, __: {"actions": {b"__ndarray__": True, b"data": b"0" * 16, b"dtype": "<c16", b"shape": [1]}},
    "no actions": lambda _, __: {"rows": 1},
    "no map": lambda _, __: [1, 2],
    "no msgpack": lambda _, __: b"\xc1",
    "cut off": lambda _, __: b"\x81\xa7actions",
    "a shape beyond its bytes": lambda _, __: {
        "actions": {b"__ndarray__": True, b"data": b"", b"dtype": "<f4", b"shape": [1 << 40, 7]}
    },
    "huge": lambda _, __: b"\0" * (17 << 20),
    "ten megabytes": lambda _, __: {"actions": np.zeros((10 << 20, 1), np.uint8)},
    "its own hold": lambda _, __: {
        "actions": np.array(GOOD, np.float32), "reflex": {"chunk": {"source": "hold"}}
    },
    "another rate": lambda _, __: {"actions": np.array(GOOD, np.float32), "reflex": {"chunk": {"dt_s": 0.02}}},
    "a traceback": lambda _, __: 'Traceback (most recent call last):\n  File "x.py"\nValueError: no prompt',
    "an error map": lambda _, __: {"type": "error", "message": "no prompt"},
}  # fmt: skip


@pytest.mark.parametrize("lie", BAD)
def test_what_an_openpi_server_must_not_answer_moves_nothing(openpi: Any, remote: Remote, lie: str) -> None:
    there = openpi(rows_of(GOOD))
    here = remote(there.url)
    there.answer = BAD[lie]
    with pytest.raises(InferenceError) as caught:
        here.act(request_to(here))
    assert caught.value.slug in ("remote-bad-reply", "remote-refused")
    assert set(failures_of(here)) <= {"invalid", "status"}
    assert sum(failures_of(here).values()) == 1
    assert "\n" not in str(caught.value)
    assert "x.py" not in str(caught.value)
    there.answer = rows_of(GOOD)
    assert here.act(request_to(here)).chunk.source == POLICY


OTHER_LIES = (
    "endless", "huge", "html", "cut", "list", "deep", "nan-literal", "gzip", "null", "words", "true",
    "beyond-float32", "narrow", "ragged", "deeper", "empty", "rows-of-nothing", "no-actions", "another-rate",
    "no-rate", "another-robot", "no-names", "another-request", "a-hold", "garbage", "redirect", "unprocessable",
)  # fmt: skip
PASSING = {
    "broken": "remote-refused",
    "busy": "remote-refused",
    "hang-up": "remote-unreachable",
    "silent": "remote-late",
}


@pytest.mark.parametrize("lie", [*OTHER_LIES, *PASSING])
def test_what_a_server_of_this_kind_must_not_answer_moves_nothing(
    liar: LyingServer, remote: Remote, lie: str
) -> None:
    here = remote(liar.url(lie), ready=False, remote_timeout_ms=100.0 if lie == "silent" else 60_000.0)
    here.load()
    here._state = "ready"  # a warm-up of what lies ends here
    expected = NotReadyError if lie in PASSING else InferenceError
    with pytest.raises(expected) as caught:
        here.act(request_to(here))
    assert isinstance(caught.value, ReflexError)
    assert caught.value.slug in ([PASSING[lie]] if lie in PASSING else ["remote-bad-reply", "remote-refused"])


def test_a_slow_server_is_not_waited_for_beyond_the_limit(openpi: Any, remote: Remote) -> None:
    there = openpi(rows_of(GOOD))
    here = remote(there.url, remote_timeout_ms=50.0)
    there.delay_s = 1.0
    began_s = time.monotonic()
    with pytest.raises(NotReadyError) as caught:
        here.act(request_to(here))
    assert caught.value.slug == "remote-late"
    assert time.monotonic() - began_s < 0.9
    assert failures_of(here) == {"timeout": 1}


def test_an_answer_that_comes_late_is_never_taken_for_the_next_one(openpi: Any, remote: Remote) -> None:
    there = openpi(rows_of(GOOD))
    here = remote(there.url, remote_timeout_ms=200.0)
    there.delay_s = 0.4
    there.answer = rows_of([[0.5] * 7] * 10)  # of the observation that is not waited for
    with pytest.raises(NotReadyError):
        here.act(request_to(here))
    there.delay_s, there.answer = 0.0, rows_of(GOOD)
    served = here.act(request_to(here))
    np.testing.assert_allclose(served.raw_actions, np.array(GOOD, np.float32))


def test_two_replies_to_one_observation_end_the_connection(openpi: Any, remote: Remote) -> None:
    there = openpi(rows_of(GOOD))
    here = remote(there.url)
    opened = there.connections

    sent: list[Any] = []

    async def both(socket: Any) -> None:
        for row in (STATE, [0.5] * 7):
            await socket.send_bytes(packed({"actions": np.array([row] * 10, np.float32)}))

    there.answer = lambda _, socket: sent.append(asyncio.ensure_future(both(socket)))
    here.act(request_to(here, episode_id="e"))
    server = policy_of(here)._server
    wait_for(lambda: not any(one.usable for one in server._idle if one.episode == "e"))
    there.answer = rows_of(GOOD)
    served = here.act(request_to(here, episode_id="e"))
    np.testing.assert_allclose(served.raw_actions, np.array(GOOD, np.float32))
    assert there.connections > opened


def test_a_server_that_floods_a_connection_fills_no_memory(openpi: Any, remote: Remote) -> None:
    there = openpi(rows_of(GOOD))
    here = remote(there.url)
    sockets: list[Any] = []

    def answer(_: Any, socket: Any) -> Any:
        sockets.append(socket)
        return {"actions": np.array(GOOD, np.float32)}

    async def flood(socket: Any) -> None:
        for _ in range(300):
            await socket.send_bytes(packed(answer(None, socket)))

    there.answer = answer
    here.act(request_to(here, episode_id="e"))
    [kept] = [one for one in policy_of(here)._server._idle if one.episode == "e"]
    flooding = asyncio.run_coroutine_threadsafe(flood(sockets[-1]), there._loop)
    wait_for(lambda: flooding.done() or kept._reading.done())
    wait_for(lambda: not kept.usable)
    assert kept._messages.qsize() <= 2
    assert here.act(request_to(here, episode_id="e")).chunk.source == POLICY


def test_the_deadline_falls_back_to_the_rows_that_are_there_and_then_holds(
    openpi: Any, remote: Remote
) -> None:
    there = openpi()
    here = remote(there.url, deadline_ms=300.0, max_fallback_age_ms=2000.0)
    here.act(request_to(here, episode_id="e", request_id="one"))
    there.delay_s = 3.0
    fields = {"episode_id": "e", "previous_request_id": "one"}
    sources = [here.act(request_to(here, elapsed_rows=rows, **fields)).chunk.source for rows in (5.0, 100.0)]
    assert sources == [LAST_KNOWN_GOOD, HOLD]
    there.delay_s = 0.0


def test_an_episode_is_a_connection(openpi: Any, remote: Remote) -> None:
    there = openpi()
    here = remote(there.url)
    opened = there.connections
    for episode in ("a", "a", "b", "b"):
        here.act(request_to(here, episode_id=episode))
    assert there.connections == opened + 2


def test_keys_of_droid_with_velocities_become_positions(openpi: Any, remote: Remote, tmp_path: Path) -> None:
    """DROID: joint velocities and a gripper, two keys of the state."""
    (tmp_path / "droid.json").write_bytes(orjson.dumps({
        "frequency_hz": 20,
        "action_space": [
            {"columns": [0, 1, 2, 3, 4, 5, 6], "mode": "velocity"},
            {"columns": [7], "gripper": {"open": 0.0, "closed": 1.0}},
        ],
    }))  # fmt: skip
    velocity = [0.1, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]
    there = openpi(rows_of([velocity] * 10))
    keys = (
        "camera=observation/exterior_image_1_left", "state=observation/joint_position+observation/gripper_position",
    )  # fmt: skip
    here = remote(there.url, remote_description=str(tmp_path / "droid.json"), remote_keys=keys)
    request = request_to(here)
    state = np.array([*STATE, 0.01], np.float32)
    served = here.act(replace(request, observation=replace(request.observation, state=state)))
    seen = there.observations[-1]
    assert seen["observation/exterior_image_1_left"].shape == (32, 32, 3)
    np.testing.assert_allclose(seen["observation/joint_position"], STATE, rtol=1e-6)
    np.testing.assert_allclose(seen["observation/gripper_position"], [1.0 - 0.01 / 0.039], rtol=1e-5)
    rows = np.arange(1, 11) * 0.1 * 0.05
    np.testing.assert_allclose(served.raw_actions[:, 0] - STATE[0], rows, atol=1e-6)
    np.testing.assert_allclose(served.raw_actions[:, 1], STATE[1], atol=1e-6)
    np.testing.assert_allclose(served.raw_actions[:, 7], 0.0, atol=1e-6)


def test_pictures_are_scaled_turned_and_recoloured_as_the_settings_say(openpi: Any, remote: Remote) -> None:
    there = openpi()
    here = remote(there.url, remote_image_size=16, remote_keys=("camera=images.cam_high:bgr:chw",))
    here.act(request_to(here))
    seen = there.observations[-1]["images"]["cam_high"]
    assert seen.shape == (3, 16, 16)
    assert seen[:, 8, 8].tolist() == [40, 40, 200]


def test_a_server_that_is_not_there_is_refused_in_one_sentence(remote: Remote) -> None:
    error = refusal(remote(UNREACHABLE, ready=False))
    assert error.slug == "remote-unreachable"
    assert "remote_wait_s" in str(error)


def test_a_server_that_comes_up_within_the_wait_is_taken(openpi: Any, remote: Remote) -> None:
    there = openpi()
    there.stop()
    here = remote(there.url, ready=False, remote_wait_s=60.0)
    loading = threading.Thread(target=here.load)
    loading.start()
    there.start()
    loading.join()
    assert here.state == "inactive"


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"embodiment": ""}, "by --embodiment"),
        ({"export_dir": "demo"}, "leave one of them out"),
        ({"remote": "ftp://gpu"}, "must begin with http://"),
        ({"remote": "http://user:word@gpu"}, "no password"),
        ({"remote_keys": ("front=a", "wrist=a")}, "each key once"),
        ({"prefix_cache": True}, "server's own setting"),
        ({"remote_description": "/nothing.json"}, "No such file"),
    ],
)
def test_settings_that_make_no_sense_are_refused(
    liar: LyingServer, remote: Remote, settings: dict[str, Any], says: str
) -> None:
    assert says in str(refusal(remote(settings.pop("remote", liar.url("good")), ready=False, **settings)))


@pytest.mark.parametrize(
    ("metadata", "says"),
    [
        ({"action_names": [*JOINTS[:6], "left_hip"]}, "left_hip"),
        ({"action_names": JOINTS[:5]}, "5"),
        ({"dt_s": 0.02}, "50 Hz"),
        ({"control_hz": 1e9}, "expected"),
        ({"action_space": "end_effector"}, "joint_position or joint_velocity"),
        ({"action_dim": 3}, "3"),
        ({"action_names": ["a", "a"]}, "different names"),
    ],
)
def test_what_a_server_says_against_the_robot_is_refused_in_one_sentence(
    openpi: Any, remote: Remote, metadata: dict[str, Any], says: str
) -> None:
    there = openpi(rows_of(GOOD), metadata=metadata)
    error = refusal(remote(there.url, ready=False))
    assert says in str(error)
    assert there.url in str(error)


def test_keys_are_sent_as_each_wire_wants_them_and_never_logged(
    openpi: Any, remote: Remote, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "key").write_text("secret-of-the-server")
    there = openpi(key="secret-of-the-server")
    assert "another key" in str(refusal(remote(there.url, ready=False)))
    remote(there.url, remote_api_key_file=str(tmp_path / "key"))
    assert "secret-of-the-server" not in caplog.text


def test_a_request_that_was_sent_on_is_not_sent_on_again(liar: LyingServer, remote: Remote) -> None:
    here = remote(liar.url("good"))
    with pytest.raises(NotReadyError, match="not sent on"):
        here.act(request_to(here, forwarded=True))


def test_openpis_server_answers_where_the_policy_here_fails(serve: Serve, openpi: Any) -> None:
    there = openpi(rows_of(GOOD), metadata=POSITIONS_OF_THE_ARM)
    here = serve("calm_raise", cloud_fallback=there.url, cloud_timeout_ms=30_000.0)
    beyond = [0.02, 0.0, 0.0, -1.5, 0.0, 1.8, 0.0]
    request = request_to(here.engine)
    served = here.engine.act(
        replace(request, observation=replace(request.observation, state=np.array(beyond, np.float32)))
    )
    assert served.chunk.source == "cloud"


def test_a_fallback_for_other_joints_or_of_another_rate_is_not_taken(serve: Serve, openpi: Any) -> None:
    """A reply of this wire says neither; what the server said of itself when it was connected to counts."""
    names = [f"left_leg{number}" for number in range(7)]
    for metadata in ({"action_names": names}, {"dt_s": 0.5}, {"control_hz": 500}):
        there = openpi(rows_of(GOOD), metadata=POSITIONS_OF_THE_ARM | metadata)
        here = serve("calm_raise", cloud_fallback=there.url, cloud_timeout_ms=30_000.0)
        beyond = np.array([0.02, 0.0, 0.0, -1.5, 0.0, 1.8, 0.0], np.float32)
        request = request_to(here.engine)
        with pytest.raises(InferenceError):
            here.engine.act(replace(request, observation=replace(request.observation, state=beyond)))
        assert there.observations


@pytest.mark.parametrize("lacks", ["action_names", "action_space", "its positions", "its metres"])
def test_a_fallback_that_does_not_say_what_its_rows_are_is_sent_nothing(
    serve: Serve, openpi: Any, lacks: str
) -> None:
    """A stock server of openpi: its rows may be velocities, offsets or degrees, and as many as the robot has joints."""
    metadata = {key: value for key, value in POSITIONS_OF_THE_ARM.items() if key != lacks}
    if lacks == "its positions":
        metadata["action_space"] = "joint_velocity"
    if lacks == "its metres":  # one of ours, whose rows count the gripper from 0 to 1
        metadata["wire_keys"] = ["state=joints+gripper:closed"]
    there = openpi(rows_of(GOOD), metadata=metadata)
    here = serve("calm_raise", cloud_fallback=there.url, cloud_timeout_ms=30_000.0)
    beyond = np.array([0.02, 0.0, 0.0, -1.5, 0.0, 1.8, 0.0], np.float32)
    request = request_to(here.engine)
    with pytest.raises(InferenceError):
        here.engine.act(replace(request, observation=replace(request.observation, state=beyond)))
    assert not there.observations


def test_a_fallback_whose_connections_lead_to_servers_for_other_joints_is_taken_from_the_first_alone(
    serve: Serve, openpi: Any
) -> None:
    there = openpi(rows_of(GOOD), metadata=dict(POSITIONS_OF_THE_ARM))
    here = serve("calm_raise", cloud_fallback=there.url, cloud_timeout_ms=30_000.0, max_consecutive_crashes=0)
    beyond = np.array([0.02, 0.0, 0.0, -1.5, 0.0, 1.8, 0.0], np.float32)

    def act(episode: str) -> Served:
        request = request_to(here.engine, episode_id=episode)
        return here.engine.act(replace(request, observation=replace(request.observation, state=beyond)))

    assert act("e1").chunk.source == "cloud"
    there.metadata["action_names"] = POSITIONS_OF_THE_ARM["action_names"][::-1]
    with pytest.raises(InferenceError):
        act("e2")
    assert act("e1").chunk.source == "cloud", "by the connection of before"


def test_a_request_to_openpis_server_states_that_it_was_sent_on(openpi: Any, remote: Remote) -> None:
    """Else two servers of this kind that name each other would ask each other without end."""
    there = openpi(rows_of(GOOD))
    remote(there.url)
    assert set(there.hops) == {"1"}


def test_two_servers_share_the_episodes(openpi: Any, remote: Remote) -> None:
    one, other = openpi(rows_of(GOOD)), openpi(rows_of(GOOD))
    here = remote("", policy_a=one.url, policy_b=other.url, rtc=False)
    slots = {here.act(request_to(here, episode_id=f"e{number}")).slot for number in range(40)}
    assert slots == {"a", "b"}


def test_the_answers_of_a_server_are_traced_and_a_replay_says_that_they_cannot_be_made_again(
    liar: LyingServer, remote: Remote, tmp_path: Path
) -> None:
    here = remote(liar.url("good"), record=str(tmp_path))
    here.act(request_to(here))
    here.unload()
    [path] = tmp_path.glob("*.jsonl*")
    header = TraceReader(path).header
    assert header["export_dir"] == liar.url("good")
    with pytest.raises(ConfigurationError, match="cannot be run again"):
        load_target(Wanted(Path(str(header["export_dir"]))), header, ("", ""))


def test_a_cancelled_request_ends_the_exchange(openpi: Any, remote: Remote) -> None:
    there = openpi()
    here = remote(there.url, remote_timeout_ms=60_000.0)
    there.delay_s = 0.5
    stop = Cancellation()
    threading.Timer(0.05, stop.cancel).start()
    with pytest.raises(CancelledError):
        here.act(replace(request_to(here), cancellation=stop))


def test_a_server_that_serves_another_policy_after_its_restart_moves_nothing(
    openpi: Any, remote: Remote
) -> None:
    there = openpi(rows_of(GOOD), metadata={"dt_s": 0.05, "action_space": "joint_position"})
    here = remote(there.url)
    there.stop()
    there.metadata = there.metadata | {"dt_s": 0.02}
    there.start()
    with pytest.raises(InferenceError, match="other dt_s"):
        here.act(request_to(here))


def test_page_banner_and_doctor_name_the_server(openpi: Any, remote: Remote) -> None:
    there = openpi()
    here = remote(there.url)
    assert there.url in status_summary(here, None).sentence
    rows = dict(banner_rows(here, "http://127.0.0.1:8000", {}))
    assert rows["runs on"] == f"{there.url} (openpi)"
    assert rows["kind"].startswith("remote")
    found = {
        finding.name: finding
        for finding in examine(here.settings, drives=True, connect_remote=connect_remote)
    }
    assert {name: finding.level for name, finding in found.items() if finding.level == FAIL} == {}
    assert there.url in found["canary"].said
    assert there.url in found["parity"].said


def test_an_upgrade_that_is_redirected_is_not_followed(openpi: Any, remote: Remote) -> None:
    there, elsewhere = openpi(), openpi()
    there.redirects_to = elsewhere.url.replace("ws://", "http://")
    assert "redirects, with status 307" in str(refusal(remote(there.url, ready=False)))
    assert elsewhere.connections == 0


def test_a_policy_that_reads_no_instruction_needs_none_here(
    serve: Serve, openpi: Any, remote: Remote, tmp_path: Path
) -> None:
    there = serve("act")
    here = remote(PATHS["reflex"].format(there.sidecar.port), ready=False)
    here.load()
    assert here.loaded is not None
    assert not here.loaded.needs_instruction
    (tmp_path / "said.json").write_bytes(orjson.dumps({"reads_language": False}))
    here = remote(openpi().url, remote_description=str(tmp_path / "said.json"))
    assert here.act(request_to(here, instruction="")).chunk.source == POLICY


def test_a_server_that_is_still_warming_up_is_waited_for(serve: Serve, remote: Remote) -> None:
    there = serve("mono_pi0_7", ready=False)
    there.engine.load()
    here = remote(PATHS["reflex"].format(there.sidecar.port), ready=False, remote_wait_s=60.0)
    assert "'inactive'" in str(refusal(remote(PATHS["reflex"].format(there.sidecar.port), ready=False)))
    loading = threading.Thread(target=here.load)
    loading.start()
    there.engine.warm_up()
    loading.join()
    here.warm_up()
    assert here.state == "ready"
