# SPDX-License-Identifier: Apache-2.0
"""A forward controller gets one row per tick over DDS: from where the robot is, along the rows, to a hold."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from output_scene import output_scene, silent
from ros_world import wait_for
from std_msgs.msg import Float64MultiArray

from reflex_core.chunks.setpoints import FRESH_S, REPEATS
from reflex_core.errors import ConfigurationError
from reflex_core.robot.groups import BASE, GRIPPER, JOINTS, POSITION, VELOCITY, Group
from reflex_core.settings.table import settings_from
from reflex_ros.node.driving import end_outputs
from reflex_ros.outputs.interfaces import with_defaults

TOPIC = "/forward_position_controller/commands"
SPEEDS = "/forward_velocity_controller/commands"


def arm(**options: Any) -> Group:
    return Group(
        "arm", (0, 1), ("j1", "j2"), JOINTS, POSITION, "forward_command", {"topic": TOPIC, **options}
    )


def wheels(**options: Any) -> Group:
    return Group("wheels", (0,), ("w",), JOINTS, VELOCITY, "forward_command", {"topic": SPEEDS, **options})


def rows_of(heard: list[tuple[float, Float64MultiArray]]) -> Any:
    return np.array([message.data.tolist() for _, message in heard])


def test_it_is_led_from_where_it_is_along_the_rows_and_then_left_alone() -> None:
    with output_scene(arm()) as scene:
        heard = scene.hear(Float64MultiArray, TOPIC)
        scene.measured = {"j1": 0.5, "j2": -0.1}
        scene.chunk([[0.6, 0.0]] * 6)
        wait_for(lambda: heard and silent(heard), "it has gone there")
        rows = rows_of(heard)
        assert np.abs(rows[0] - [0.5, -0.1]).max() < 0.02
        assert np.diff(rows, axis=0).max() < 0.03  # never at once
        np.testing.assert_allclose(rows[-REPEATS:], [[0.6, 0.0]] * REPEATS, atol=1e-6)
        times = np.array([at for at, _ in heard])
        assert (len(times) - 1) / (times[-1] - times[0]) * 1.25 > 100  # about a hundred a second
        scene.hold([0.4, 0.0])
        wait_for(lambda: rows_of(heard)[-1] == pytest.approx([0.4, 0.0], abs=1e-6), "the hold comes")


def test_the_control_rate_is_that_of_arms_and_bases_whatever_they_say_and_not_of_grippers() -> None:
    settings = settings_from({"control_rate_hz": 200})
    base = Group("base", (0,), ("linear.x",), BASE, VELOCITY, "twist", {"topic": "/cmd_vel"})
    hand = Group(
        "hand", (0,), ("f",), GRIPPER, POSITION, "gripper_topic", {"topic": "/hand/commands", "rate_hz": 20}
    )
    rates = [with_defaults(group, settings).options["rate_hz"] for group in (arm(rate_hz=50), base, hand)]
    assert rates == [200.0, 200.0, 20]
    assert with_defaults(arm(rate_hz=50), settings_from({})).options["rate_hz"] == 50


@pytest.mark.parametrize("space", [JOINTS, GRIPPER])
def test_joints_brake_before_they_come_to_rest_and_grippers_go_straight(space: str) -> None:
    with output_scene(replace(arm(), space=space)) as scene:
        heard = scene.hear(Float64MultiArray, TOPIC)
        scene.measured = {"j1": 0.0, "j2": 0.0}
        scene.chunk([[0.0, 0.0], [0.4, 0.0]], dt_s=0.5)  # straight: 8 mrad in a period
        wait_for(lambda: heard and silent(heard), "it has gone there")
        steps = np.diff(rows_of(heard)[:, 0])
        last = steps[steps > 1e-6][-5:]
        assert rows_of(heard)[-1, 0] == pytest.approx(0.4, abs=1e-6)
        assert (np.median(last) < 0.004) == (space == JOINTS)


def test_the_newest_rows_win_and_a_hold_ends_them_within_a_period() -> None:
    with output_scene(arm(rate_hz=50)) as scene:
        heard = scene.hear(Float64MultiArray, TOPIC)
        scene.measured = {"j1": 0.0, "j2": 0.0}
        scene.chunk([[0.01 * at, 0.0] for at in range(1, 51)])
        wait_for(lambda: len(heard) > 10, "it moves")
        scene.chunk([[-0.01 * at, 0.0] for at in range(1, 51)])
        wait_for(lambda: rows_of(heard)[-1, 0] < -0.03, "it turns round")
        scene.hold([-0.03, 0.0])
        before = len(heard)
        wait_for(lambda: silent(heard), "it holds")
        held = rows_of(heard)[before:]
        np.testing.assert_allclose(held[-REPEATS:], [[-0.03, 0.0]] * REPEATS, atol=1e-6)


def test_a_controller_of_speeds_gets_zeros_at_the_end_at_a_hold_and_at_the_end_of_the_node() -> None:
    with output_scene(wheels(accept_unattended_velocity=True)) as scene:
        heard = scene.hear(Float64MultiArray, SPEEDS)
        scene.chunk([[0.5]] * 4)
        wait_for(lambda: heard and silent(heard), "the rows are over")
        assert rows_of(heard).max() == pytest.approx(0.5)
        np.testing.assert_array_equal(rows_of(heard)[-REPEATS:], [[0.0]] * REPEATS)
        scene.chunk([[0.5]] * 50)
        wait_for(lambda: rows_of(heard)[-1] > 0.4, "it drives")
        scene.hold([0.0])
        wait_for(lambda: silent(heard), "it stands")
        np.testing.assert_array_equal(rows_of(heard)[-REPEATS:], [[0.0]] * REPEATS)
        scene.chunk([[0.5]] * 50)
        wait_for(lambda: rows_of(heard)[-1] > 0.4, "it drives again")
        scene.on_executor(scene.outputs.disable)
        wait_for(lambda: (rows_of(heard)[-REPEATS:] == 0.0).all(), "zeros, several times")
        scene.chunk([[0.5]] * 50)
        assert silent(heard)
        assert not rows_of(heard)[-1].any()


def test_speeds_without_a_watchdog_must_be_accepted() -> None:
    with (
        pytest.raises(ConfigurationError, match="group 'wheels' .*accept_unattended_velocity"),
        output_scene(wheels()),
    ):
        pass


def test_rows_that_are_not_finite_are_not_sent_and_what_is_commanded_stays(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with output_scene(arm()) as scene:
        heard = scene.hear(Float64MultiArray, TOPIC)
        scene.measured = {"j1": 0.0, "j2": 0.0}
        scene.chunk([[0.1, 0.0]] * 50)
        wait_for(lambda: len(heard) > 3, "it moves")
        scene.chunk([[0.1, float("nan")]] * 3)
        assert silent(heard)
        assert np.isfinite(rows_of(heard)).all()
        assert "group 'arm': expected rows of 2 finite numbers" in caplog.text


def test_speeds_that_are_not_finite_end_in_a_zero() -> None:
    with output_scene(wheels(accept_unattended_velocity=True)) as scene:
        heard = scene.hear(Float64MultiArray, SPEEDS)
        scene.chunk([[0.5]] * 50)
        wait_for(lambda: len(heard) > 3 and rows_of(heard)[-1] > 0.4, "it drives")
        scene.chunk([[float("nan")]] * 3)
        wait_for(lambda: silent(heard), "it stands")
        np.testing.assert_array_equal(rows_of(heard)[-1], [0.0])


def test_where_no_hold_is_possible_it_stays_where_it_was_commanded_last() -> None:
    with output_scene(arm()) as scene:
        heard = scene.hear(Float64MultiArray, TOPIC)
        scene.measured = {"j1": 0.0, "j2": 0.0}
        scene.chunk([[0.01 * at, 0.0] for at in range(1, 101)])
        wait_for(lambda: len(heard) > 40, "it moves")
        scene.outputs.halt()
        wait_for(lambda: silent(heard), "it stays")
        rows = rows_of(heard)
        assert 0.0 < rows[-1, 0] < 0.5
        assert np.diff(rows[-20:, 0]).min() >= 0.0
        np.testing.assert_array_equal(rows[-1], rows[-2])


def test_what_is_commanded_while_it_is_disabled_is_dropped_and_its_thread_sleeps() -> None:
    with output_scene(arm()) as scene:
        heard = scene.hear(Float64MultiArray, TOPIC)
        scene.measured = {"j1": 0.0, "j2": 0.0}
        scene.on_executor(scene.outputs.disable)
        scene.chunk([[0.1, 0.0]] * 50)
        scene.hold([0.1, 0.0])
        began_s, worked_s = time.monotonic(), time.process_time()
        assert silent(heard)
        assert time.process_time() - worked_s < 0.5 * (time.monotonic() - began_s)
        scene.on_executor(scene.outputs.enable)
        assert silent(heard)
        scene.chunk([[0.1, 0.0]] * 3)
        wait_for(lambda: heard and silent(heard), "it follows again")
        assert rows_of(heard)[-1] == pytest.approx([0.1, 0.0], abs=1e-6)


def test_the_executor_goes_on_while_a_slow_stream_ends() -> None:
    with output_scene(arm(rate_hz=2)) as scene:
        heard = scene.hear(Float64MultiArray, TOPIC)
        scene.measured = {"j1": 0.0, "j2": 0.0}
        scene.chunk([[0.1, 0.0]] * 100)
        wait_for(lambda: heard, "it moves")
        beats_s = [time.monotonic()]
        scene.node.create_timer(0.02, lambda: beats_s.append(time.monotonic()))
        wait_for(lambda: len(beats_s) > 2, "the timer runs")
        scene.on_executor(partial(end_outputs, scene.node, scene.outputs))
        ended_s = time.monotonic()
        wait_for(lambda: beats_s[-1] > ended_s, "the timer goes on")
        assert ended_s - beats_s[0] > 1.0  # its last setpoint is sent three times
        assert np.diff(beats_s).max() < 0.4
        rows = rows_of(heard)
        np.testing.assert_array_equal(rows[-REPEATS:], [rows[-1]] * REPEATS)


def test_rows_that_come_right_after_a_stall_are_reached_within_the_limit_of_speed() -> None:
    with output_scene(arm()) as scene:
        scene.measured = {"j1": 0.0, "j2": 0.0}
        scene.outputs.limit(np.array([1.5, 1.0]))
        sent: list[list[float]] = []
        stalled, began_s, ready = threading.Event(), time.monotonic(), threading.Event()

        def noted(topic: str, message: Any) -> None:
            if topic == TOPIC:
                sent.append(message.data.tolist())
                if ready.is_set() and not stalled.is_set():
                    stalled.set()
                    time.sleep(0.3)  # no tick for so long

        def ahead() -> list[list[float]]:
            """As for a robot that has followed: a radian per second since the beginning."""
            return [[time.monotonic() - began_s + 0.02 * at, 0.0] for at in range(1, 51)]

        scene.outputs.recorder_hook = SimpleNamespace(sent=noted)  # type: ignore[assignment]
        scene.chunk(ahead(), dt_s=0.02)
        wait_for(lambda: len(sent) > 40, "it moves")
        ready.set()
        assert stalled.wait(5.0)
        scene.chunk(rows := ahead(), dt_s=0.02)
        wait_for(lambda: sent[-1] == pytest.approx(rows[-1], abs=1e-6), "it is there")
        assert np.diff(np.array(sent)[:, 0]).max() <= 1.5 * 0.01 + 1e-6
        (part,) = scene.outputs.reports().values()
        assert part["stalls"] >= 1  # a busy machine may add its own


def test_after_a_pause_nothing_is_sent_until_it_is_measured_where_the_robot_is(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with output_scene(arm()) as scene:
        heard = scene.hear(Float64MultiArray, TOPIC)
        scene.measured = {"j1": 0.0, "j2": 0.0}
        scene.chunk([[0.1, 0.0]] * 6)
        wait_for(lambda: heard and silent(heard), "it has gone there")
        scene.measured, before_s = {}, heard[-1][0]
        wait_for(lambda: time.monotonic() - before_s > FRESH_S + 0.1, "the pause is long")
        before = len(heard)
        scene.chunk([[0.2, 0.0]] * 6)
        scene.hold([0.1, 0.0])
        assert silent(heard)
        assert len(heard) == before
        assert "group 'arm': a start after a pause needs a measurement of where it is" in caplog.text
        (report,) = scene.outputs.reports().values()
        assert report["unmeasured starts"] == 2
        scene.measured = {"j1": 0.3, "j2": 0.0}
        scene.chunk([[0.2, 0.0]] * 6)
        wait_for(lambda: len(heard) > before and silent(heard), "it goes there")
        assert rows_of(heard)[before] == pytest.approx([0.3, 0.0], abs=0.02)
        assert rows_of(heard)[-1] == pytest.approx([0.2, 0.0], abs=1e-6)
