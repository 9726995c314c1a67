# SPDX-License-Identifier: Apache-2.0
"""The engine: its states, what it refuses to load, and that requests survive whatever happens around them."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from servers import ExportDir, MakeEngine

from reflex_core.engine.engine import Engine
from reflex_core.errors import ConfigurationError, InferenceError, NotReadyError
from reflex_core.settings.table import settings_from
from reflex_core.values import HOLD, NOTHING, POLICY, Observation, Request, Served
from reflex_core.wedges.order import ORDER, middleware_chain
from reflex_core.wedges.wedge import Proceed


def make_request(
    engine: Engine, *, seed: int | None = 1, joint1: float = 0.0, episode_id: str | None = None
) -> Request:
    assert engine.loaded is not None
    canary = engine.loaded.policy.canary()
    state = canary.state
    if joint1 and state is not None:
        state = state.copy()
        state[0] = joint1
    return engine.request(
        dataclasses.replace(canary, state=state, instruction="reach the cube"),
        seed=seed,
        episode_id=episode_id,
    )


def engine_on(path: Path, **settings: object) -> Engine:
    return Engine(settings_from({"export_dir": str(path), "device": "cpu", "intra_op_threads": 1} | settings))


def test_states_follow_each_other(make_engine: MakeEngine) -> None:
    engine = make_engine("mono_pi0_7", ready=False)
    seen = [engine.state]
    engine.load()
    seen.append(engine.state)
    engine.warm_up()
    seen.append(engine.state)
    engine.pause()
    seen.append(engine.state)
    engine.warm_up()
    seen.append(engine.state)
    engine.unload()
    seen.append(engine.state)
    assert seen == ["initializing", "inactive", "ready", "inactive", "ready", "initializing"]
    assert engine.loaded is None


def test_a_panic_inside_is_an_error_like_any_other(make_engine: MakeEngine) -> None:
    """Extensions written in Rust raise what is no Exception: no interface's thread may end by it."""

    class Panic(BaseException):
        pass

    def panics(_: Request) -> Served:
        raise Panic("index out of bounds")

    engine = make_engine("mono_pi0_7")
    engine._loaded = dataclasses.replace(engine.loaded, act=panics)  # type: ignore[type-var]
    with pytest.raises(InferenceError, match="panicked: Panic: index out of bounds"):
        engine.act(make_request(engine))


def test_acting_before_it_is_ready_says_in_which_state_it_is(make_engine: MakeEngine) -> None:
    engine = make_engine("mono_pi0_7", ready=False)
    request = engine.request(Observation({}, None, "go"))
    with pytest.raises(NotReadyError, match="state is 'initializing'") as caught:
        engine.act(request)
    assert caught.value.state == "initializing"
    engine.load()
    with pytest.raises(NotReadyError) as caught:
        engine.act(request)
    assert caught.value.state == "inactive"


def test_acting_while_it_is_paused_or_unloaded_is_refused(make_engine: MakeEngine) -> None:
    engine = make_engine("mono_pi0_7")
    request = make_request(engine)
    engine.pause()
    with pytest.raises(NotReadyError, match="inactive"):
        engine.act(request)
    engine.unload()
    with pytest.raises(NotReadyError, match="initializing"):
        engine.act(request)


def test_warming_up_without_a_policy_is_refused(make_engine: MakeEngine) -> None:
    engine = make_engine("mono_pi0_7", ready=False)
    with pytest.raises(NotReadyError, match="cannot warm up: state is 'initializing', load the policy first"):
        engine.warm_up()


def test_it_answers_with_everything_worth_knowing(make_engine: MakeEngine) -> None:
    engine = make_engine("mono_pi0_7", embodiment="franka")
    served = engine.act(make_request(engine, seed=7, episode_id="pick"))
    assert served.chunk.actions.shape == (50, 7)
    assert served.chunk.actions.dtype == np.float32
    assert served.chunk.actions.flags.c_contiguous
    assert served.chunk.names == tuple(f"panda_joint{number}" for number in range(1, 8))
    assert (served.chunk.dt_s, served.chunk.source) == (0.05, POLICY)
    assert (served.seed, served.episode_id, served.slot, served.inference.mode) == (
        7,
        "pick",
        "prod",
        "onnx_cpu",
    )
    assert served.model_version.startswith("pi0-mono@")
    assert (served.inference.denoise_steps, served.inference.denoise_steps_configured) == (10, 10)
    assert served.latency_ms > 0
    assert set(served.inference.stages_ms) == {
        "preprocess_ms",
        "queue_ms",
        "vlm_prefix_ms",
        "expert_denoise_ms",
    }


def test_the_same_request_and_seed_give_the_same_bytes_in_another_process_state(
    make_engine: MakeEngine,
) -> None:
    first, second = make_engine("mono_pi0_7"), make_engine("mono_pi0_7")
    chunks = [
        engine.act(make_request(engine, seed=9)).chunk.actions.tobytes() for engine in (first, second, first)
    ]
    assert len(set(chunks)) == 1


def test_requests_without_a_seed_get_seeds_of_their_own_that_repeat_them(make_engine: MakeEngine) -> None:
    engine = make_engine("mono_pi0_7")
    served = [engine.act(make_request(engine, seed=None)) for _ in range(3)]
    assert len({answer.seed for answer in served}) == 3
    again = engine.act(make_request(engine, seed=served[1].seed))
    assert again.chunk.actions.tobytes() == served[1].chunk.actions.tobytes()


def test_a_base_seed_makes_the_whole_session_repeatable(make_engine: MakeEngine) -> None:
    engines = [make_engine("mono_pi0_7", seed=100) for _ in range(2)]
    seeds = [[engine.act(make_request(engine, seed=None)).seed for _ in range(3)] for engine in engines]
    assert seeds == [[100, 101, 102]] * 2


def test_request_ids_are_unique_and_the_callers_own_is_kept(make_engine: MakeEngine) -> None:
    engine = make_engine("mono_pi0_7", ready=False)
    nothing = Observation({}, None, "")
    assert len({engine.request(nothing).request_id for _ in range(100)}) == 100
    assert engine.request(nothing, request_id="mine").request_id == "mine"


def test_no_chunk_leaves_outside_the_joint_ranges(make_engine: MakeEngine) -> None:
    engine = make_engine("wide", embodiment="franka")
    served = engine.act(make_request(engine))
    robot = engine.loaded.embodiment if engine.loaded else None
    assert robot is not None
    assert served.guard.clamped
    assert (served.chunk.actions.astype(np.float64) >= robot.action_min).all()
    assert (served.chunk.actions.astype(np.float64) <= robot.action_max).all()


def test_nan_from_the_model_is_a_hold_at_the_last_command_of_the_episode(make_engine: MakeEngine) -> None:
    engine = make_engine("failing_nan", embodiment="franka")
    good = engine.act(make_request(engine, episode_id="pick"))
    held = engine.act(make_request(engine, episode_id="pick", joint1=1.5))
    assert held.chunk.source == HOLD
    assert held.chunk.actions.any()
    others = slice(1, None)
    distance = np.abs(good.chunk.actions - held.chunk.actions[0])[:, others].max(axis=1)
    assert distance.min() <= 2.61 * 0.05  # on the way between two rows: no joint moves faster
    np.testing.assert_allclose(held.chunk.actions[:, 0], 1.5)  # joint 1 is nowhere near its command: it stays
    moved = np.abs(np.diff(held.chunk.actions, axis=0))  # a joint that was under way by then brakes
    assert moved.max() <= 2.61 * 0.05
    assert not moved[-1].any()
    elsewhere = engine.act(make_request(engine, episode_id="place", joint1=1.5))
    np.testing.assert_allclose(elsewhere.chunk.actions[:, 0], 1.5)


def test_listeners_hear_every_answer_and_cannot_fail_a_request(make_engine: MakeEngine) -> None:
    engine = make_engine("mono_pi0_7", ready=False)
    heard: list[str] = []

    def broken(_: Request, __: Served) -> None:
        raise RuntimeError("the recorder broke")

    engine.listen(broken)
    engine.listen(lambda request, _: heard.append(request.request_id))
    engine.load()
    engine.warm_up()
    assert heard == []  # warm-up is no caller's request
    first = engine.act(make_request(engine))
    engine.listen(lambda request, _: heard.append(f"late {request.request_id}"))
    second = engine.act(make_request(engine))
    assert heard == [first.request_id, second.request_id, f"late {second.request_id}"]


def test_listeners_survive_a_reload(make_engine: MakeEngine) -> None:
    engine = make_engine("mono_pi0_7")
    heard: list[str] = []
    engine.listen(lambda request, _: heard.append(request.request_id))
    engine.load()
    engine.warm_up()
    served = engine.act(make_request(engine))
    assert heard == [served.request_id]


def test_it_can_be_loaded_again_after_it_was_unloaded(make_engine: MakeEngine) -> None:
    engine = make_engine("mono_pi0_7")
    before = engine.act(make_request(engine)).chunk.actions
    engine.unload()
    engine.load()
    engine.warm_up()
    np.testing.assert_array_equal(engine.act(make_request(engine)).chunk.actions, before)


def test_other_settings_load_another_policy(make_engine: MakeEngine, export_dir: ExportDir) -> None:
    engine = make_engine("mono_pi0_7")
    engine.load(dataclasses.replace(engine.settings, export_dir=str(export_dir("decomposed"))))
    engine.warm_up()
    assert engine.act(make_request(engine)).model_version.startswith("pi05-split@")


def test_a_load_that_fails_does_not_leave_the_old_policy_within_reach(
    make_engine: MakeEngine, tmp_path: Path
) -> None:
    engine = make_engine("mono_pi0_7")
    request = make_request(engine)
    with pytest.raises(ConfigurationError):
        engine.load(dataclasses.replace(engine.settings, export_dir=str(tmp_path)))
    assert (engine.state, engine.loaded) == ("failed", None)
    assert engine.reason == f"{tmp_path}/reflex_config.json: missing: every export needs one"
    engine.pause()
    assert engine.state == "failed"
    with pytest.raises(NotReadyError, match=r"reflex_config\.json: missing") as caught:
        engine.act(request)
    assert caught.value.state == "failed"
    with pytest.raises(NotReadyError):
        engine.warm_up()


def test_it_can_be_loaded_after_a_failure(
    make_engine: MakeEngine, export_dir: ExportDir, tmp_path: Path
) -> None:
    engine = engine_on(tmp_path)
    with pytest.raises(ConfigurationError):
        engine.load()
    engine.load(dataclasses.replace(engine.settings, export_dir=str(export_dir("mono_pi0_7"))))
    engine.warm_up()
    assert (engine.state, engine.reason) == ("ready", "")


def test_a_model_that_gives_nan_for_a_plain_picture_does_not_become_ready(make_engine: MakeEngine) -> None:
    engine = make_engine("always_nan", ready=False)
    engine.load()
    with pytest.raises(InferenceError, match="the model gave NaN or Inf"):
        engine.warm_up()
    assert engine.state == "failed"
    assert engine.reason.startswith("warm-up")
    engine.pause()
    assert engine.state == "failed"


def test_a_file_of_its_own_wins_over_a_preset_and_that_is_logged(
    make_engine: MakeEngine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from reflex_core.files.share import share

    robot = json.loads((share() / "config" / "embodiments" / "franka.json").read_text())
    (tmp_path / "robot.json").write_text(json.dumps(robot | {"embodiment": "custom"}))
    engine = make_engine(
        "mono_pi0_7", embodiment="franka", custom_embodiment_config=str(tmp_path / "robot.json")
    )
    assert engine.description()["embodiment"] == "custom"
    assert "overrides --embodiment franka" in caplog.text


def test_joints_that_the_robot_calls_otherwise_are_served_by_their_own_names(make_engine: MakeEngine) -> None:
    own = [f"left_arm_{number}" for number in range(7)]
    engine = make_engine("mono_pi0_7", embodiment="franka", joint_names=own)
    plain = make_engine("mono_pi0_7", embodiment="franka")
    served = engine.act(make_request(engine))
    assert served.chunk.names == tuple(own)
    assert engine.description()["state_names"] == own
    assert engine.loaded is not None
    assert engine.loaded.embodiment is not None
    assert engine.loaded.embodiment.joint_names == tuple(own)
    np.testing.assert_array_equal(served.chunk.actions, plain.act(make_request(plain)).chunk.actions)


def test_what_was_taken_for_granted_is_logged(
    make_engine: MakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    make_engine("mono_pi0", embodiment="franka")
    assert "brings no statistics" in caplog.text
    assert "it is served by 'camera'" in caplog.text


def test_actions_that_are_not_denormalised_are_announced(
    make_engine: MakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    engine = make_engine("mono_pi0")
    assert "actions are served without un-normalisation" in caplog.text
    assert engine.description()["actions_denormalised"] is False


def test_the_description_can_be_sent_as_json(make_engine: MakeEngine) -> None:
    engine = make_engine("mono_pi0_7", embodiment="franka")
    described = json.loads(json.dumps(engine.description()))
    assert described["embodiment"] == "franka"
    assert described["action_horizon"] == 50
    assert described["wedges"] == [name for name in ORDER if name in described["wedges"]]
    assert described["cameras"]["base"] == "camera"


def test_the_chain_calls_its_wedges_in_order() -> None:
    called: list[str] = []

    def wedge(name: str) -> Callable[[Request, Proceed], Served]:
        def call(request: Request, proceed: Proceed) -> Served:
            called.append(name)
            return proceed(request)

        return call

    act = middleware_chain({name: wedge(name) for name in reversed(ORDER)})
    with pytest.raises(InferenceError, match="the middleware chain has no policy"):
        act(Request(Observation({}, None, ""), 0, "1"))
    assert tuple(called) == ORDER


def test_the_guard_is_outside_everything_that_can_make_a_chunk() -> None:
    outer = ORDER.index("guard")
    assert all(
        ORDER.index(name) > outer for name in ("deadline", "cloud", "router", "breaker", "a2c2", "policy")
    )
    assert ORDER[:2] == ("history", "telemetry"), "what is recorded is what the policy saw"


def test_a_wedge_without_a_place_is_refused() -> None:
    with pytest.raises(ValueError, match="no place in the middleware chain for surprise"):
        middleware_chain({"surprise": lambda request, proceed: proceed(request)})


def test_server_up_follows_the_state(make_engine: MakeEngine) -> None:
    engine = make_engine("mono_pi0_7", ready=False)

    def up() -> float | None:
        return engine.metrics.registry.get_sample_value("reflex_server_up")

    seen = [up()]
    engine.load()
    seen.append(up())
    engine.warm_up()
    seen.append(up())
    engine.unload()
    seen.append(up())
    assert seen == [0, 0, 1, 0]


def test_loading_logs_model_device_and_cameras(
    make_engine: MakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        make_engine("mono_pi0_7", embodiment="franka")
    line = next(record.getMessage() for record in caplog.records if record.getMessage().startswith("loaded"))
    assert "pi0-mono@" in line
    assert "CPUExecutionProvider" in line
    assert "'base': 'camera'" in line


def test_nothing_is_an_empty_mapping_that_cannot_be_filled() -> None:
    with pytest.raises(TypeError):
        NOTHING["a"] = 1  # type: ignore[index]
