# SPDX-License-Identifier: Apache-2.0
"""Every family of reflex_core/metrics/metrics.py changes when what it counts happens, as GET /metrics shows it."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import leading_robots as robots
import onnxruntime
import pytest
from asking import ALWAYS_MISSED, BEYOND, act, families, figure, miss_the_objective
from broken_jpegs import MENDED
from controller_bench import Bench as ControllerBench
from figures import value_of
from http_client import Background, Client, at_the_policy, busy, in_flight, jpeg, text, wait_for
from openpi_double import OpenpiDouble, rows_of, towards
from prometheus_client.parser import text_string_to_metric_families
from recordings import tiny_disk
from ros_world import REACH_HOME, World, world
from servers import Server
from skills import Skills

from reflex_core.files.share import embedded_policy
from reflex_core.metrics.metrics import CudaGraphMetrics, Metrics
from reflex_core.policy.providers import CPU, CUDA, TENSORRT
from reflex_core.records.recorder import Recorder
from reflex_core.robot.limits.history import EPISODES_KEPT
from reflex_core.robot.limits.safety_config import DEFAULT_MAX_CONSECUTIVE_CLAMPS
from reflex_ros.outputs.streaming import StreamOutput
from reflex_ros.sidecar.key_file import add_key, fresh_key


@dataclass(frozen=True)
class Bench:
    """What a provocation works with."""

    serve: Callable[..., Server]
    exports: Callable[[str], Path]
    export: Path
    directory: Path


# Yields the client when all is quiet, and ends, or yields again, when the figure has moved.
Provocation = Generator[Client, None, None]


def an_answer(bench: Bench) -> Provocation:
    client = bench.serve("calm").client
    yield client
    act(client)


def an_episode(bench: Bench) -> Provocation:
    client = bench.serve("calm").client
    yield client
    act(client, episode_id="ep_1")


def a_load(bench: Bench) -> Provocation:
    server = bench.serve("calm", ready=False)
    yield server.client
    server.engine.load()
    server.engine.warm_up()


def a_request_inside(bench: Bench) -> Provocation:
    server = bench.serve("calm")
    yield server.client
    with busy(server.engine):
        Background(lambda: act(server.client))
        wait_for(lambda: in_flight(server.engine) == 1)
        yield server.client


def a_clamped_chunk(bench: Bench) -> Provocation:
    client = bench.serve("wide").client
    yield client
    act(client)


def a_guard_that_trips(bench: Bench) -> Provocation:
    client = bench.serve("wide").client
    yield client
    for _ in range(DEFAULT_MAX_CONSECUTIVE_CLAMPS):
        act(client)


def nan(bench: Bench) -> Provocation:
    client = bench.serve("calm_nan").client
    yield client
    act(client, BEYOND)


def a_missed_objective(bench: Bench) -> Provocation:
    server = bench.serve("calm", slo=ALWAYS_MISSED, slo_mode="log_only")
    miss_the_objective(server)
    yield server.client
    act(server.client)


def a_missed_deadline(bench: Bench) -> Provocation:
    client = bench.serve("calm_burning", deadline_ms=100.0).client
    yield client
    act(client, BEYOND)


def a_cloud_that_is_down(bench: Bench) -> Provocation:
    client = bench.serve("calm_raise", cloud_fallback="http://127.0.0.1:9").client
    yield client
    act(client, BEYOND)


def a_remote_server_that_lies(bench: Bench) -> Provocation:
    there = OpenpiDouble(towards(REACH_HOME)).start()
    try:
        client = bench.serve("calm", export_dir="", remote=there.url).client
        there.answer = rows_of([[float("nan")] * len(REACH_HOME)] * 10)
        yield client
        assert act(client).status == 500
    finally:
        there.stop()


def a_model_that_raises(bench: Bench) -> Provocation:
    client = bench.serve("calm_raise", max_consecutive_crashes=1).client
    yield client
    act(client, BEYOND)


def a_long_instruction(bench: Bench) -> Provocation:
    client = bench.serve("calm").client
    yield client
    act(client, instruction="red " * 30)


def a_camera_that_stops(bench: Bench) -> Provocation:
    """The ROS interface's own figure: over HTTP an observation that is refused is an error of its caller."""
    with world(export_dir=str(bench.export), embodiment="franka", http=True, port=0) as scene:
        scene.activate()
        scene.robot.next_chunk()
        sidecar = scene.server.sidecar
        assert sidecar is not None
        client = Client(sidecar.port)
        yield client
        before = families(client)["reflex_observations_refused"]
        scene.robot.camera_on = False
        wait_for(lambda: families(client)["reflex_observations_refused"] != before)
        yield client


Moved = Callable[[], bool]


def on_a_robot(family: str, provoke: Callable[[World, Moved], object], export: Path) -> Provocation:
    """What only the node counts: something is done to the robot until the family has moved."""
    with world(export_dir=str(export), embodiment="franka", http=True, port=0) as scene:
        scene.activate()
        scene.robot.next_chunk()
        sidecar = scene.server.sidecar
        assert sidecar is not None
        client = Client(sidecar.port)
        yield client
        before = families(client)[family]
        provoke(scene, lambda: families(client)[family] != before)
        yield client


def a_joint_that_lies(bench: Bench) -> Provocation:
    def lie(scene: World, moved: Moved) -> None:
        scene.robot.positions = [9.0, *REACH_HOME[1:]]
        wait_for(moved)

    yield from on_a_robot("reflex_implausible_readings", lie, bench.export)


def a_joint_that_does_not_follow(bench: Bench) -> Provocation:
    def creep(scene: World, moved: Moved) -> None:
        def on() -> bool:  # no faster than the joint could be
            scene.robot.positions = [scene.robot.positions[0] + 0.004, *scene.robot.positions[1:]]
            return moved()

        wait_for(on)

    yield from on_a_robot("reflex_tracking_errors", creep, bench.export)


def a_stop_of_a_robot_that_measures_nothing(bench: Bench) -> Provocation:
    def stop(scene: World, moved: Moved) -> None:
        scene.robot.call("stop")  # after it, the command before counts for nothing
        scene.robot.positions = [float("nan")] * len(REACH_HOME)
        wait_for(lambda: scene.robot.call("stop") and moved())

    yield from on_a_robot("reflex_holds_impossible", stop, bench.export)


def a_model_that_hangs(bench: Bench) -> Provocation:
    def hang(scene: World, moved: Moved) -> None:
        with busy(scene.server.engine):
            wait_for(moved)

    yield from on_a_robot("reflex_watchdog_interventions", hang, bench.export)


def on_a_stream(
    family: str, provoke: Callable[[World, StreamOutput, Moved], object], directory: Path
) -> Provocation:
    """A robot that is sent row by row, whose stream something is done to until the family has moved."""
    columns = {"a": robots.steadily(0.0005)}
    export = robots.leading(directory / "export", columns, [robots.RELATIVE | {"columns": ["a"]}])
    groups = [robots.joints("arm", ["a"], "forward_command", topic="/forward_controller/commands")]
    config = robots.embodiment(directory / "robot.json", groups)
    with world(export_dir=str(export), custom_embodiment_config=str(config), http=True, port=0) as scene:
        scene.robot.joints_on = False
        with ControllerBench(scene.domain, {"a": 0.0}) as controllers:
            controllers.forward_controller("forward_controller", ["a"])
            scene.activate()
            scene.robot.next_chunk()
            assert scene.server.sidecar is not None
            assert scene.server._outputs is not None
            client = Client(scene.server.sidecar.port)
            yield client
            before = families(client)[family]
            (part,) = scene.server._outputs._parts
            assert isinstance(part.output, StreamOutput)
            provoke(scene, part.output, lambda: families(client)[family] != before)
            yield client


def a_tick(bench: Bench) -> Provocation:
    def follow(_: World, __: StreamOutput, moved: Moved) -> None:
        wait_for(moved)

    yield from on_a_stream("reflex_tick_lateness_seconds", follow, bench.directory)


def a_tick_that_takes_long(bench: Bench) -> Provocation:
    def slow(_: World, stream: StreamOutput, moved: Moved) -> None:
        stream.adjust(lambda row, _: (time.sleep(0.05), row)[1])
        wait_for(moved)

    yield from on_a_stream("reflex_ticks_skipped", slow, bench.directory)


def a_rate_that_is_not_kept(bench: Bench) -> Provocation:
    def slow(_: World, stream: StreamOutput, moved: Moved) -> None:
        stream.adjust(lambda row, _: (time.sleep(0.03), row)[1])
        wait_for(moved)

    yield from on_a_stream("reflex_rates_unkept", slow, bench.directory)


def a_row_that_cannot_be_adjusted(bench: Bench) -> Provocation:
    def fail(_: World, stream: StreamOutput, moved: Moved) -> None:
        stream.adjust(lambda row, _: row[:0])
        wait_for(moved)

    yield from on_a_stream("reflex_rows_unadjusted", fail, bench.directory)


def a_goal_that_ends(bench: Bench) -> Provocation:
    def end(scene: World, moved: Moved) -> None:
        Skills(scene.robot).run(max_duration_s=0.1)
        wait_for(moved)

    yield from on_a_robot("reflex_run_policy_goals", end, bench.export)


def a_picture_that_is_mended(bench: Bench) -> Provocation:
    client = bench.serve("calm").client
    yield client
    assert act(client, image=text(MENDED["zeros before a restart marker"])).status == 200


def a_gpu_that_is_not_there(bench: Bench) -> Provocation:
    server = bench.serve("calm", ready=False, device="cuda", allow_cpu_fallback=True)
    yield server.client
    server.engine.load()


def tensorrt_without_engines(bench: Bench) -> Provocation:
    """TensorRT is listed and does not start; whether its engines are there is looked up before."""
    kept = bench.directory / "engines"
    server = bench.serve(
        "calm", ready=False, device="tensorrt", allow_cpu_fallback=True, tensorrt_engine_dir=str(kept)
    )
    yield server.client
    with mock.patch.object(onnxruntime, "get_available_providers", return_value=[TENSORRT, CUDA, CPU]):
        server.engine.load()


def cuda_graphs_without_a_gpu(bench: Bench) -> Provocation:
    server = bench.serve("calm", ready=False, cuda_graphs=True)
    yield server.client
    server.engine.load()


def cuda_graphs(bench: Bench) -> Provocation:
    """Only a GPU captures and replays, and only there a capture can fail: here the policy's part is played by hand.

    benchmarks/gpu_check.py shows the same figures on a machine with a GPU.
    """
    server = bench.serve("calm")
    yield server.client
    graphs = CudaGraphMetrics(server.engine.metrics, "franka", "pi0-mono")
    graphs.captured("denoise", 0.2)
    graphs.replayed("denoise", 0.004)
    graphs.capture_failed("prefix", "RuntimeError")


def recorder_of(server: Server) -> Recorder:
    assert server.engine.loaded is not None
    [recorder] = server.engine.loaded.recorders
    return recorder


def a_record(bench: Bench) -> Provocation:
    server = bench.serve("calm", record=str(bench.directory / "traces"))
    yield server.client
    wait_for(lambda: act(server.client) and recorder_of(server).written > 0)


def a_full_disk(bench: Bench) -> Provocation:
    with tiny_disk(bench.directory / "disk", 1 << 20) as disk:
        server = bench.serve("calm", record=str(disk.path), record_no_gzip=True)
        yield server.client
        disk.fill()
        recorder = recorder_of(server)
        wait_for(lambda: act(server.client) and recorder.problem and recorder.dropped > 0)
        assert server.client.get("/health").json["recorders"]["trace"].startswith("record-disk-full")
        yield server.client


def the_embedded_policy(bench: Bench, **settings: object) -> Client:
    client: Client = bench.serve("calm", export_dir=str(embedded_policy()), **settings).client
    return client


def one_episode(client: Client, requests: int = 2) -> None:
    for _ in range(requests):
        grey = jpeg(
            height=224, width=224, colour=(127, 127, 127)
        )  # the head leaves pictures alone that look like nothing it has seen
        assert client.act(image=grey, state=REACH_HOME, episode_id="ep_1", elapsed_rows=5).status == 200


def a_prefix_that_is_kept(bench: Bench) -> Provocation:
    client = the_embedded_policy(bench, prefix_cache=True)
    yield client
    one_episode(client)


def a_chunk_that_is_guided(bench: Bench) -> Provocation:
    client = the_embedded_policy(bench)
    yield client
    one_episode(client)


def a_history_that_is_filled(bench: Bench) -> Provocation:
    client = bench.serve("two_observations", embodiment="").client
    yield client
    assert client.act({"image": jpeg(), "state": [0, 0]}).status == 200


def a_border(bench: Bench) -> Provocation:
    client = bench.serve("calm").client
    yield client
    for _ in range(4):
        act(client, episode_id="ep_1")


def a_late_inference(bench: Bench) -> Provocation:
    """Its budget is over before it begins."""
    server = bench.serve("calm", deadline_ms=0.01)
    yield server.client
    act(server.client, episode_id="ep_1")
    wait_for(lambda: figure(server.client, "reflex_late_inferences_total", outcome="kept"))


def a_late_chunk(bench: Bench) -> Provocation:
    """Its chunks last half a second."""
    client = bench.serve("failing_raise", inject_latency_ms=700.0).client
    yield client
    for _ in range(2):
        act(client, episode_id="ep_1")


def two_policies(bench: Bench) -> Server:
    return bench.serve("calm", policy_a=str(bench.export), policy_b=str(bench.export), rtc=False)


def a_change_of_split(bench: Bench) -> Provocation:
    server = two_policies(bench)
    yield server.client
    assert server.client.ask("POST", "/policies", b'{"split": 90}').status == 200


def an_outcome(bench: Bench) -> Provocation:
    server = bench.serve("calm")
    yield server.client
    assert server.client.ask("POST", "/episodes/ep_1/outcome", b'{"success": true}').status == 200


def a_shadow(bench: Bench) -> Provocation:
    server = bench.serve("calm", shadow_policy=str(bench.exports("calm_other")))
    yield server.client
    compared = server.engine.metrics.shadow_compared
    wait_for(lambda: act(server.client) and value_of(compared) > 0)


def a_shadow_that_raises(bench: Bench) -> Provocation:
    server = bench.serve("calm_burning", shadow_policy=str(bench.exports("calm_raise")))
    yield server.client
    act(server.client, BEYOND)
    wait_for(lambda: server.engine.policies()["shadow"]["failed"])


def a_shadow_that_is_slow(bench: Bench) -> Provocation:
    """It computes for many seconds, until unloading cancels it."""
    server = bench.serve("calm", shadow_policy=str(bench.exports("calm_burning")))
    yield server.client
    for _ in range(4):
        act(server.client, BEYOND)


def chunks_with_a_head(bench: Bench) -> Provocation:
    head = embedded_policy() / "a2c2.npz"
    client = the_embedded_policy(bench, a2c2_checkpoint=str(head), inject_latency_ms=60.0)
    yield client
    one_episode(client, 8)  # the first few are skipped: nothing is known of the latency yet


def streamed_rows_with_a_head(bench: Bench) -> Provocation:
    head = str(embedded_policy() / "a2c2.npz")
    corrected = {
        "a2c2_checkpoint": head,
        "a2c2_every_step": True,
        "output": "forward_command",
        "path_tolerance_rad": 0.0,
    }
    with world(http=True, port=0, **corrected) as scene:
        scene.robot.positions = list(REACH_HOME)
        scene.activate()
        sidecar = scene.server.sidecar
        assert sidecar is not None
        client = Client(sidecar.port)
        yield client
        before = families(client)["reflex_a2c2_steps"]
        wait_for(lambda: families(client)["reflex_a2c2_steps"] != before)
        yield client


def two_robots_at_once(bench: Bench) -> Provocation:
    server = bench.serve("batched_raise", max_batch=2)
    yield server.client
    with busy(server.engine):
        waiting = [
            Background(lambda state=state: act(server.client, state))  # type: ignore[misc]
            for state in (REACH_HOME, BEYOND)
        ]
        wait_for(lambda: at_the_policy(server.engine) == 2)
    for one in waiting:
        one.result()


def an_episode_of_another_server(bench: Bench) -> Provocation:
    client = bench.serve("calm").client
    yield client
    act(client, episode_id="ep_1", previous_request_id="of-the-other", elapsed_rows=4.0)


def more_episodes_than_are_remembered(bench: Bench) -> Provocation:
    client = bench.serve("calm").client
    yield client
    for number in range(EPISODES_KEPT + 1):
        act(client, episode_id=f"ep_{number}")


def a_file_of_keys_that_changes(bench: Bench) -> Provocation:
    path = bench.directory / "keys"
    token, key = fresh_key(("act", "operate", "read"), "", 0.0, None, "")
    add_key(path, key)
    server = bench.serve("calm", keys_file=str(path))
    client = Client(server.client.port, key=token)
    yield client
    add_key(path, fresh_key(("act",), "arm-2", 0.0, None, "")[1])
    wait_for(lambda: figure(client, "reflex_file_reloads_total", file="keys", outcome="read"))


PROVOKED_BY: dict[str, Callable[[Bench], Provocation]] = {
    "reflex_act_latency_seconds": an_answer,
    "reflex_onnx_load_time_seconds": a_load,
    "reflex_denoise_steps": an_answer,
    "reflex_in_flight_requests": a_request_inside,
    "reflex_episodes_active": an_episode,
    "reflex_safety_violations": a_clamped_chunk,
    "reflex_guard_tripped": a_guard_that_trips,
    "reflex_caller_requests": an_answer,
    "reflex_wire_requests": an_answer,
    "reflex_slo_violations": a_missed_objective,
    "reflex_fallback_invocations": a_missed_deadline,
    "reflex_deadline_misses": a_missed_deadline,
    "reflex_late_inferences": a_late_inference,
    "reflex_cloud_failures": a_cloud_that_is_down,
    "reflex_remote_failures": a_remote_server_that_lies,
    "reflex_breaker_state": a_model_that_raises,
    "reflex_act_errors": a_model_that_raises,
    "reflex_instructions_cut": a_long_instruction,
    "reflex_observations_refused": a_camera_that_stops,
    "reflex_holds": nan,
    "reflex_holds_impossible": a_stop_of_a_robot_that_measures_nothing,
    "reflex_implausible_readings": a_joint_that_lies,
    "reflex_tracking_errors": a_joint_that_does_not_follow,
    "reflex_watchdog_interventions": a_model_that_hangs,
    "reflex_tick_lateness_seconds": a_tick,
    "reflex_ticks_skipped": a_tick_that_takes_long,
    "reflex_rates_unkept": a_rate_that_is_not_kept,
    "reflex_rows_unadjusted": a_row_that_cannot_be_adjusted,
    "reflex_run_policy_goals": a_goal_that_ends,
    "reflex_pictures_mended": a_picture_that_is_mended,
    "reflex_provider_fallbacks": a_gpu_that_is_not_there,
    "reflex_tensorrt_engines": tensorrt_without_engines,
    "reflex_cuda_graph_captured": cuda_graphs,
    "reflex_cuda_graph_replayed": cuda_graphs,
    "reflex_cuda_graph_eager_fallback": cuda_graphs_without_a_gpu,
    "reflex_cuda_graph_capture_failed_at_init": cuda_graphs,
    "reflex_cuda_graph_capture_seconds": cuda_graphs,
    "reflex_cuda_graph_replay_seconds": cuda_graphs,
    "reflex_cache_hit": a_prefix_that_is_kept,
    "reflex_cache_miss": a_prefix_that_is_kept,
    "reflex_history_filled": a_history_that_is_filled,
    "reflex_rtc_guided": a_chunk_that_is_guided,
    "reflex_model_swaps": a_change_of_split,
    "reflex_policy_split_percent": a_change_of_split,
    "reflex_episode_outcomes": an_outcome,
    "reflex_shadow_compared": a_shadow,
    "reflex_shadow_divergence": a_shadow,
    "reflex_shadow_failed": a_shadow_that_raises,
    "reflex_shadow_dropped": a_shadow_that_is_slow,
    "reflex_a2c2_applied": chunks_with_a_head,
    "reflex_a2c2_skipped": chunks_with_a_head,
    "reflex_a2c2_steps": streamed_rows_with_a_head,
    "reflex_server_up": a_load,
    "reflex_robot_info": a_load,
    "reflex_batch_size": two_robots_at_once,
    "reflex_batch_alone": two_robots_at_once,
    "reflex_episodes_moved": an_episode_of_another_server,
    "reflex_states_forgotten": more_episodes_than_are_remembered,
    "reflex_file_reloads": a_file_of_keys_that_changes,
    "reflex_records": a_record,
    "reflex_records_dropped": a_full_disk,
    "reflex_recorder_degraded": a_full_disk,
    "reflex_motion_chunks": an_episode,
    "reflex_motion_late_chunks": a_late_chunk,
    "reflex_motion_border_jump_p95": a_border,
    "reflex_motion_jerk_rms": a_border,
    "reflex_motion_overlap_disagreement": a_border,
}


@pytest.fixture
def bench(serve: Callable[..., Server], export_dir: Callable[[str], Path], tmp_path: Path) -> Bench:
    return Bench(serve, export_dir, export_dir("calm"), tmp_path)


def test_every_family_has_a_provocation() -> None:
    exposition = text_string_to_metric_families(Metrics().exposition().decode())
    names = {family.name for family in exposition if not family.name.endswith("_created")}
    assert names == set(PROVOKED_BY)


@pytest.mark.parametrize("family", PROVOKED_BY)
def test_a_family_moves_when_what_it_counts_happens(bench: Bench, family: str) -> None:
    with closing(PROVOKED_BY[family](bench)) as provocation:
        client = next(provocation)
        before = families(client)[family]
        next(provocation, None)
        assert families(client)[family] != before


def test_a_thousand_episodes_add_no_series(serve: Callable[..., Server]) -> None:
    server = serve("calm")
    act(server.client, episode_id="ep_0", request_id="r-0")

    def series() -> set[object]:
        return {key for samples in families(server.client).values() for key in samples}

    before = series()
    for number in range(1, 1000):
        assert act(server.client, episode_id=f"ep_{number}", request_id=f"r-{number}").status == 200
    assert series() == before
    assert figure(server.client, "reflex_episodes_active") == 1000


def test_the_guard_is_shown_as_tripped_until_it_is_reset(bench: Bench) -> None:
    with closing(a_guard_that_trips(bench)) as provocation:
        client = next(provocation)
        next(provocation, None)
    assert figure(client, "reflex_guard_tripped", embodiment="franka") == 1
    assert client.ask("POST", "/guard/reset").status == 200
    assert figure(client, "reflex_guard_tripped", embodiment="franka") == 0
