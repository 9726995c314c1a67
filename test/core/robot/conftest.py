# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the tests of the joint gate."""

from __future__ import annotations

import pytest
from joint_sensor import Sensor


@pytest.fixture
def sensor() -> Sensor:
    """Joint 1 rests at 0 and is believed; nothing is commanded."""
    return Sensor().all_read([0.0] * 5)


@pytest.fixture
def commanded(sensor: Sensor) -> Sensor:
    """The same joint, held at 0 by a command."""
    return sensor.commands(0.0)
