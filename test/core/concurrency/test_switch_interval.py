# SPDX-License-Identifier: Apache-2.0
"""Python's switch interval is short as long as a caller needs it."""

from __future__ import annotations

import sys

import pytest

from reflex_core.concurrency.switch_interval import SwitchInterval


def test_it_is_short_until_the_last_caller_is_done() -> None:
    before_s, interval = sys.getswitchinterval(), SwitchInterval(0.0005)
    interval.shorten()
    interval.shorten()
    assert sys.getswitchinterval() == pytest.approx(0.0005)
    interval.restore()
    assert sys.getswitchinterval() == pytest.approx(0.0005)
    interval.restore()
    assert sys.getswitchinterval() == pytest.approx(before_s)
