# SPDX-License-Identifier: Apache-2.0
"""Fixtures that every test may use: small exports and engines that serve them."""

from __future__ import annotations

import gc
import logging
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest
import shared_memory
from domains import own_domain, participants, taken_domains
from exports import EXPORTS
from http_client import Client
from servers import ExportDir, MakeEngine, Server

from reflex_core.engine.engine import Engine
from reflex_core.settings.table import settings_from
from reflex_ros.console import logs
from reflex_ros.otel.connect import connect_tracing
from reflex_ros.sidecar.server import Sidecar
from reflex_ros.sidecar.server_connections import connect_cloud, connect_remote

# what a shell starts in the background ignores them, and so would the programs that tests end by them
for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) == signal.SIG_IGN:
        signal.signal(number, usual)

# how long an example takes says how busy the machine is
hypothesis.settings.register_profile("busy machine", deadline=None)
hypothesis.settings.load_profile("busy machine")


@pytest.fixture(scope="session", autouse=True)
def ros_of_its_own() -> Iterator[None]:
    """What is started without a domain takes part in one where no neighbour is; what was killed leaves no shared memory."""
    before = shared_memory.segments()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROS_DOMAIN_ID", str(own_domain()))
        patch.setenv(
            "ROS_AUTOMATIC_DISCOVERY_RANGE", os.environ.get("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
        )
        yield
    shared_memory.remove_dead(shared_memory.segments() - before, taken_domains())


_before: list[str] = []  # the file whose tests ran last


@pytest.fixture(scope="module", autouse=True)
def no_participant_is_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """A node that a file leaves in its domain would answer the tests of the next.

    Looked for once the next begins: what its last test used is let go of only then.
    """
    if participants():
        gc.collect()  # the node of a test that is over may be part of a cycle
    # the nodes of a test that failed are kept by its traceback
    assert request.session.testsfailed or not participants(), f"{_before} left {participants()}"
    yield
    _before[:] = [str(request.node.nodeid)]


@pytest.fixture(autouse=True)
def no_console_is_left() -> Iterator[None]:
    """What `reflex serve` prints of log records ends with the test that served in this process."""
    levels = {name: logging.getLogger(name).level for name in logs.OURS}
    yield
    if consoles := logs.consoles():
        for console in consoles:
            logging.getLogger().removeHandler(console)
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        logging.captureWarnings(False)


@pytest.fixture(scope="session")
def export_dir(tmp_path_factory: pytest.TempPathFactory) -> ExportDir:
    """`export_dir("mono_pi0_7")`: the directory of one of test/support/exports.py, made once; not to be changed."""
    root = tmp_path_factory.mktemp("exports")

    def make(name: str) -> Path:
        path = root / name
        if not path.exists():
            EXPORTS[name](path)
        return path

    return make


@pytest.fixture
def export_copy(export_dir: ExportDir, tmp_path: Path) -> ExportDir:
    """A copy that a test may damage."""
    return lambda name: Path(shutil.copytree(export_dir(name), tmp_path / name))


@pytest.fixture
def make_engine(export_dir: ExportDir) -> Iterator[MakeEngine]:
    """`make_engine("mono_pi0_7", embodiment="franka")`: loaded and warm, unless `ready=False`."""
    engines: list[Engine] = []

    def make(name: str, *, ready: bool = True, **settings: object) -> Engine:
        values = {"export_dir": str(export_dir(name)), "device": "cpu", "intra_op_threads": 1} | settings
        engine = Engine(settings_from(values), connect_cloud, connect_tracing, connect_remote=connect_remote)
        engines.append(engine)
        if ready:
            engine.load()
            engine.warm_up()
        return engine

    yield make
    for engine in engines:
        engine.unload()


@pytest.fixture
def serve(make_engine: MakeEngine) -> Iterator[Callable[..., Server]]:
    """`serve("mono_pi0_7", embodiment="franka")`: a Server; with `ready=False` its policy is not loaded.

    limits, body_bytes: those of the Sidecar.
    """
    servers: list[Server] = []

    def start(name: str, **settings: object) -> Server:
        limits = {key: settings.pop(key) for key in ("limits", "body_bytes") if key in settings}
        engine = make_engine(name, **{"port": 0, "embodiment": "franka", "robot_id": "arm7"} | settings)
        sidecar = Sidecar(engine, engine.settings, **limits)
        sidecar.start()
        servers.append(Server(engine, sidecar, Client(sidecar.port)))
        return servers[-1]

    yield start
    for server in servers:
        server.sidecar.stop()
