# SPDX-License-Identifier: Apache-2.0
"""The simulated forward controller commands what it was last sent, and one message of another length ends it."""

from __future__ import annotations

import pytest

from reflex_ros.demo.controllers.forward_controller import VELOCITY, ForwardCommandController


@pytest.fixture
def controller() -> ForwardCommandController:
    return ForwardCommandController(("a", "b"))


def sampled(controller: ForwardCommandController) -> list[float] | None:
    values = controller.sample()
    return None if values is None else values.tolist()


def test_nothing_is_commanded_before_a_message(controller: ForwardCommandController) -> None:
    assert sampled(controller) is None


def test_the_last_values_are_commanded_for_ever(controller: ForwardCommandController) -> None:
    controller.set([1.0, 2.0])
    controller.set([3.0, 4.0])
    assert [sampled(controller) for _ in range(3)] == [[3.0, 4.0]] * 3


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_dropped(controller: ForwardCommandController, value: float) -> None:
    controller.set([1.0, 2.0])
    controller.set([value, 0.0])
    assert sampled(controller) == [1.0, 2.0]
    assert controller.dropped == 1


@pytest.mark.parametrize("values", [[], [1.0], [1.0, 2.0, 3.0]])
def test_another_length_deactivates_it_until_it_is_activated(
    controller: ForwardCommandController, values: list[float]
) -> None:
    controller.set([1.0, 2.0])
    controller.set(values)
    assert sampled(controller) is None
    assert f"got {len(values)}" in controller.failure
    controller.set([1.0, 2.0])
    assert sampled(controller) is None
    controller.activate()
    assert sampled(controller) is None
    controller.set([5.0, 6.0])
    assert sampled(controller) == [5.0, 6.0]
    assert controller.failure == ""


def test_its_ros_parameters_name_joints_and_interface() -> None:
    found = ForwardCommandController(("a", "b"), VELOCITY).parameters()
    assert found == {"joints": ["a", "b"], "interface_name": "velocity"}
