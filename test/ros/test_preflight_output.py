# SPDX-License-Identifier: Apache-2.0
"""A robot interface that there is not."""

from __future__ import annotations

import pytest

from reflex_core.errors import SettingError
from reflex_core.settings.table import settings_from
from reflex_ros.preflight import require_sound


def test_an_unknown_robot_interface_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(
        SettingError, match=r"'output': no such robot interface 'nonsense'; known: joint_trajectory"
    ):
        require_sound(settings_from({"output": "nonsense"}))
