# SPDX-License-Identifier: Apache-2.0
"""The Euler loop and the noise that it starts from."""

from __future__ import annotations

import numpy as np
import pytest

from reflex_core.export.flow import Flow
from reflex_core.policy.sampler import euler, start_noise
from reflex_core.values import Floats

SHAPE = (1, 50, 7)
NOISE = start_noise(3, SHAPE)
NOISE_OF_42 = [-1.4838411, -0.33662856, 0.20083328]


@pytest.mark.parametrize("steps", [1, 4, 10, 33])
def test_a_constant_field_moves_by_the_field_times_the_time(steps: int) -> None:
    actions, taken = euler(lambda x, _: np.full_like(x, 2.0), NOISE, Flow(start=1.0, end=0.0, steps=steps))
    np.testing.assert_allclose(actions, NOISE - 2.0, atol=1e-5)
    assert taken == steps


@pytest.mark.parametrize("steps", [1, 2, 10, 50])
def test_the_straight_flow_lands_on_its_target_whatever_the_noise(steps: int) -> None:
    target = np.linspace(-3, 3, 50 * 7, dtype=np.float32).reshape(SHAPE)
    actions, _ = euler(lambda x, t: (x - target) / np.float32(t), NOISE, Flow(steps=steps))
    np.testing.assert_allclose(actions, target, atol=1e-5)


@pytest.mark.parametrize("steps", [1, 5, 10])
def test_a_linear_field_matches_the_closed_form_of_euler(steps: int) -> None:
    actions, _ = euler(lambda x, _: x, NOISE, Flow(steps=steps))
    np.testing.assert_allclose(actions, NOISE * (1 - 1 / steps) ** steps, rtol=1e-5, atol=1e-7)


def test_more_steps_come_closer_to_the_exact_solution() -> None:
    errors = [
        float(np.abs(euler(lambda x, _: x, NOISE, Flow(steps=steps))[0] - NOISE * np.exp(-1)).max())
        for steps in (2, 8, 32)
    ]
    assert errors[0] > 3 * errors[1] > 9 * errors[2] > 0


def times_seen(flow: Flow) -> list[float]:
    seen: list[float] = []

    def velocity(x: Floats, t: float) -> Floats:
        seen.append(t)
        return np.zeros_like(x)

    euler(velocity, NOISE, flow)
    return seen


@pytest.mark.parametrize(
    ("flow", "times"),
    [
        (Flow(start=1.0, end=0.0, steps=4), [1.0, 0.75, 0.5, 0.25]),
        (Flow(start=0.0, end=1.0, steps=4), [0.0, 0.25, 0.5, 0.75]),
        (Flow(start=0.0, end=0.999, steps=3), [0.0, 0.333, 0.666]),
        (Flow(start=1000.0, end=0.0, steps=2), [1000.0, 500.0]),
    ],
)
def test_time_runs_from_start_towards_end(flow: Flow, times: list[float]) -> None:
    assert times_seen(flow) == pytest.approx(times)


def test_time_running_the_other_way_with_the_other_sign_gives_the_same_actions() -> None:
    target = np.full(SHAPE, 0.7, np.float32)
    down, _ = euler(lambda x, t: (x - target) / np.float32(t), NOISE, Flow(1.0, 0.0, 1, 10))
    up, _ = euler(lambda x, t: (target - x) / np.float32(1 - t), NOISE, Flow(0.0, 1.0, 1, 10))
    against, _ = euler(lambda x, t: (x - target) / np.float32(1 - t), NOISE, Flow(0.0, 1.0, -1, 10))
    np.testing.assert_allclose(down, target, atol=1e-5)
    np.testing.assert_allclose(up, target, atol=1e-5)
    np.testing.assert_allclose(against, target, atol=1e-5)


def test_the_noise_is_not_written_into() -> None:
    noise = start_noise(3, SHAPE)
    euler(lambda x, _: x, noise, Flow())
    np.testing.assert_array_equal(noise, NOISE)


def test_everything_stays_float32() -> None:
    assert euler(lambda x, _: x, NOISE, Flow())[0].dtype == np.float32


def test_noise_depends_on_the_seed_alone() -> None:
    assert start_noise(11, SHAPE).tobytes() == start_noise(11, SHAPE).tobytes()
    assert start_noise(11, SHAPE).tobytes() != start_noise(12, SHAPE).tobytes()


def test_noise_is_what_it_was_in_earlier_versions() -> None:
    """A trace that names a seed stays replayable: these numbers must never change."""
    np.testing.assert_array_equal(
        start_noise(0, (2, 2)),
        np.random.Generator(np.random.Philox(0)).standard_normal((2, 2), dtype=np.float32),
    )
    np.testing.assert_allclose(start_noise(42, (3,)), NOISE_OF_42, rtol=1e-6)


def test_noise_is_standard_normal() -> None:
    noise = start_noise(1, (1, 500, 32))
    assert noise.dtype == np.float32
    assert abs(float(noise.mean())) < 0.02
    assert abs(float(noise.std()) - 1) < 0.02


@pytest.mark.parametrize("seed", [0, 1, 2**32, 2**48 - 1, 2**63 - 1])
def test_any_seed_a_message_can_carry_makes_finite_noise(seed: int) -> None:
    assert np.isfinite(start_noise(seed, SHAPE)).all()
