# SPDX-License-Identifier: Apache-2.0
"""From the URL of a server to the policy that it runs: wait for it, ask what it is, and match that with the robot."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from reflex_core.concurrency.progress import report
from reflex_core.errors import ConfigurationError, ReflexError, SettingError
from reflex_core.metrics.metrics import Metrics
from reflex_core.policy.cloud_server import INVALID, REASONS, STATUS, CloudError
from reflex_core.policy.remote import FIRST_S, RemotePolicy, canary_of
from reflex_core.policy.remote_contract import read_description, remote_parts
from reflex_core.policy.remote_server import RemoteAbout, RemoteServer
from reflex_core.robot.embodiment import Embodiment
from reflex_core.settings.table import Settings
from reflex_core.values import Request

ConnectRemote = Callable[[str, Settings], RemoteServer]

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 1.0
ANSWER_S = 5.0  # for what a server says of itself, where there is less time to wait
OF_EXPORTS = (
    "variant",
    "denoise_steps",
    "chunk_size",
    "auto_calibrate",
    "cuda_graphs",
    "tensorrt_engine_dir",
)

log = logging.getLogger(__name__)


def load_remote(
    settings: Settings, robot: Embodiment, connect: ConnectRemote, metrics: Metrics
) -> RemotePolicy:
    """Return the policy of the server whose URL is `export_dir`.

    Raises ConfigurationError where it does not answer within `remote_wait_s`, or does not fit the robot.
    """
    url = settings.export_dir
    says = read_description(settings)
    report(0.0, "loading", f"what {url} serves")
    server = connect(url, settings)
    try:
        about = _completed(url, server, _about(url, server, settings.remote_wait_s), says, robot)
        parts = remote_parts(url, about, says, robot, settings)
        notes = tuple(_notes(about, settings))
        failures = {reason: metrics.remote_failures.labels(reason) for reason in REASONS}
        policy = RemotePolicy(
            server,
            parts,
            about.dialect,
            settings.remote_timeout_ms,
            notes,
            lambda reason: failures[reason].inc(),
        )
    except BaseException:
        server.close()
        raise
    log.info(
        "images, state and instruction of every request are sent to %s, which infers (%s)", url, about.dialect
    )
    return policy


def _notes(about: RemoteAbout, settings: Settings) -> list[str]:
    """Return which settings have no effect."""
    idle = [name for name in OF_EXPORTS if getattr(settings, name)]
    notes = [f"{', '.join(idle)}: of exports alone, without effect here"] if idle else []
    if not about.action_names:
        notes.append("it does not name its actions: they are taken in the embodiment's order")
    return notes


def _about(url: str, server: RemoteServer, wait_s: float) -> RemoteAbout:
    """Return what the server says of itself, as soon as it says something."""
    until_s, pause_s = time.monotonic() + wait_s, FIRST_PAUSE_S
    while True:
        try:
            return server.about(max(ANSWER_S, until_s - time.monotonic()))
        except CloudError as error:
            _require_hope(url, error)
            if time.monotonic() + pause_s > until_s:
                raise SettingError(
                    f"setting 'remote': {url} gave no answer within {wait_s:g} s ({error}): start it, correct the URL, or wait longer with"
                    " remote_wait_s",
                    "remote-unreachable",
                ) from error
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


def _require_hope(url: str, error: CloudError) -> None:
    """Raise SettingError for an answer that will not change."""
    if error.reason == INVALID:
        raise SettingError(
            f"setting 'remote': {url} is no server of a policy that is known here: {error}", "remote-unknown"
        )
    if error.reason == STATUS and error.status in (401, 403):
        raise SettingError(
            f"setting 'remote': {url} wants another key ({error}): give it by --remote-api-key-file or REFLEX_REMOTE_API_KEY",
            "remote-key",
        )
    if error.reason == STATUS and 300 <= error.status < 500 and error.status != 429:
        raise SettingError(f"setting 'remote': {url}: {error}", "remote-unknown")


def _completed(
    url: str, server: RemoteServer, about: RemoteAbout, says: Mapping[str, Any], robot: Embodiment
) -> RemoteAbout:
    """Return the same with the size of its chunks, of a first answer where it does not say that."""
    if about.horizon and about.action_dim:
        return about
    report(0.5, "loading", f"the first answer of {url}")
    cameras = (
        says.get("cameras", [camera.name for camera in robot.cameras])
        if about.cameras is None
        else about.cameras
    )
    observation = canary_of(robot, cameras, robot.usual_position())
    try:
        answer = server.ask(Request(observation, time.monotonic_ns(), "first", "first", seed=0), FIRST_S)
    except CloudError as error:
        raise SettingError(
            f"setting 'remote': {url} did not answer a first request: {error}", "remote-refused"
        ) from error
    except ReflexError as error:
        raise ConfigurationError(f"{url}: {error}", error.slug) from error
    if answer.actions.ndim != 2:
        raise SettingError(
            f"setting 'remote': {url} answered with actions of shape {answer.actions.shape}", "remote-unknown"
        )
    rows, columns = answer.actions.shape
    return replace(about, horizon=about.horizon or rows, action_dim=about.action_dim or columns)
