# SPDX-License-Identifier: Apache-2.0
"""A signal asks to stop whatever the main thread is doing when it comes."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest
from repository import ROOT

from reflex_ros.console.stop_signals import stop_on_signals

INTERRUPTED = """
import os, signal, sys, threading
from reflex_ros.console.stop_signals import stop_on_signals

lines = 0

def interrupt(frame, event, argument):
    global lines
    lines += 1
    if lines == int(sys.argv[1]):
        signal.raise_signal(signal.SIGTERM)
    return interrupt

with stop_on_signals() as stop:
    later = threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGTERM))  # where it has fewer lines
    later.daemon = True
    later.start()
    sys.settrace(interrupt)
    stop.wait()
"""


@pytest.mark.parametrize("line", range(1, 9))
def test_a_signal_between_any_two_steps_of_waiting_ends_it(line: int) -> None:
    done = subprocess.run([sys.executable, "-c", INTERRUPTED, str(line)], cwd=ROOT, timeout=30, check=False)
    assert done.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_either_signal_asks_once_and_for_all_and_has_its_usual_effect_afterwards(number: int) -> None:
    before = signal.getsignal(number)
    with stop_on_signals() as stop:
        assert not stop.requested
        signal.raise_signal(number)
        stop.wait()
        stop.wait()
        assert stop.requested
    assert signal.getsignal(number) is before


def test_a_second_signal_is_not_taken_for_the_first() -> None:
    with stop_on_signals() as stop:
        signal.raise_signal(signal.SIGTERM)
        stop.wait()
        assert not stop.wait_for_another(0.0)
        assert stop.requested
        signal.raise_signal(signal.SIGINT)
        assert stop.wait_for_another(30.0)
        assert stop.requested


def test_a_signal_that_another_thread_is_given_stops_as_well() -> None:
    """It does not wake the main thread, as one does not that comes just before the main thread sleeps."""
    program = """
import signal, threading
from reflex_ros.console.stop_signals import stop_on_signals
asleep = threading.Event()
def send():
    asleep.wait()
    threading.Event().wait(0.2)  # the main thread sleeps by then; if not, the signal is as well seen
    signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
threading.Thread(target=send, daemon=True).start()
with stop_on_signals() as stop:
    asleep.set()
    stop.wait()
"""
    done = subprocess.run([sys.executable, "-c", program], timeout=30, check=False)
    assert done.returncode == 0
