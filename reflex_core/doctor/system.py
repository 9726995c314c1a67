# SPDX-License-Identifier: Apache-2.0
"""Checks of the machine: Python, libraries, shared memory, disks, sockets."""

from __future__ import annotations

import errno
import importlib.util
import shutil
import socket
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path

from reflex_core.doctor.finding import FAIL, OK, WARN, Finding
from reflex_core.files.directories import existing, unwritable

# what is imported: wheel (the GPU build of onnxruntime is imported by the same name)
PACKAGES = {
    "numpy": "numpy",
    "onnxruntime": "onnxruntime",
    "PIL": "pillow",
    "tokenizers": "tokenizers",
    "safetensors": "safetensors",
    "simplejpeg": "simplejpeg",
    "aiohttp": "aiohttp",
    "orjson": "orjson",
    "prometheus_client": "prometheus-client",
    "yaml": "pyyaml",
    "pybase64": "pybase64",
}
# what not everybody needs: wheel (the full OpenCV is imported by the same name), and what it is for
OPTIONAL = {
    "cv2": ("opencv-python-headless", "Bayer and YUV images, faster pictures"),
    "rosbags": ("rosbags", "bags"),
}
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - nothing is written there
SHARED_MEMORY_MB = 128  # a robot driver, the node and a few tools, 16 MB each
ENOUGH_MB, LEAST_MB = (
    2000,
    100,
)  # an hour of bags of one camera; what a log needs to say that the disk is full


def python_version() -> Finding:
    """Check for Python 3.10 to 3.13, which are tested; the ROS wheels need 3.12 or older."""
    found = ".".join(str(part) for part in sys.version_info[:3])
    if (3, 10) <= sys.version_info[:2] <= (3, 13):
        return Finding("python", OK, found)
    return Finding("python", WARN, found, "use Python 3.10, 3.11, 3.12 or 3.13, which were tried")


def packages(wanted: Mapping[str, str] = PACKAGES) -> Finding:
    """Check the libraries that serving needs, with their versions. wanted: wheel by module."""
    missing = [wheel for module, wheel in wanted.items() if importlib.util.find_spec(module) is None]
    if missing:
        return Finding("packages", FAIL, f"missing: {', '.join(missing)}", install(missing))
    wheels = metadata.packages_distributions()
    there = [module for module in (*wanted, *OPTIONAL) if module in wheels]
    versions = (f"{module} {metadata.version(wheels[module][0])}" for module in there)
    lacking = [
        f"{wheel} is not installed ({use})"
        for module, (wheel, use) in OPTIONAL.items()
        if importlib.util.find_spec(module) is None
    ]
    return Finding("packages", OK, "; ".join([", ".join(versions), *lacking]))


def wheel_of(module: str | None) -> str | None:
    """Name the wheel that brings a module of PACKAGES or OPTIONAL; None for any other module."""
    optional = {name: wheel for name, (wheel, _) in OPTIONAL.items()}
    return (PACKAGES | optional).get(module or "")


def install(wheels: Sequence[str]) -> str:
    """Return how to install what is missing. ONNX Runtime exists for CPUs and for GPUs; never install both."""
    command = f"pip install {' '.join(wheels)}"
    if "onnxruntime" not in wheels:
        return command
    return f"{command} (onnxruntime-gpu in its place for an NVIDIA GPU; the extra cpu or gpu of this package brings it)"


def shared_memory(path: Path = SHARED_MEMORY, need_mb: float = SHARED_MEMORY_MB) -> Finding:
    """Check the room for the shared-memory segments that carry camera images between processes."""
    name = "shared memory"
    if not path.is_dir():
        return Finding(
            name, WARN, f"there is no {path}, so camera images travel over loopback UDP",
            "mount a tmpfs there; in a container: docker run --shm-size=1g, or --ipc=host",
        )  # fmt: skip
    free_mb = shutil.disk_usage(path).free / 1e6
    if free_mb >= need_mb:
        return Finding(name, OK, f"{free_mb:.0f} MB free in {path}")
    return Finding(
        name, WARN, f"{free_mb:.0f} MB free in {path}, {need_mb:.0f} MB are good",
        "in a container: docker run --shm-size=1g, or --ipc=host",
    )  # fmt: skip


def disk(flag: str, directory: Path, enough_mb: float = ENOUGH_MB, least_mb: float = LEAST_MB) -> Finding:
    """Check that files can be created in a directory, or in the one where it would be created, and the free space."""
    name = f"disk {flag}"
    if why := unwritable(directory):
        return Finding(name, FAIL, f"{directory}: {why}", f"give {flag} a directory that can be written")
    free_mb = shutil.disk_usage(existing(directory)).free / 1e6
    message = f"{directory}: writable, {free_mb / 1e3:.1f} GB free"
    if free_mb >= enough_mb:
        return Finding(name, OK, message)
    return Finding(
        name, WARN if free_mb >= least_mb else FAIL, f"{message}, {enough_mb / 1e3:g} GB are good",
        f"make room, or give {flag} a directory on another disk",
    )  # fmt: skip


def port(host: str, number: int) -> Finding:
    """Check that the HTTP sidecar could listen there."""
    # another port would put a second policy in command of the same arm
    other = (
        f"see what listens there (ss -ltnp 'sport = :{number}'): another `reflex serve` may be driving this robot; end it"
        " before you serve"
    )
    try:
        addresses = socket.getaddrinfo(host or None, number, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, ValueError) as error:
        message = f"--host {host}: {getattr(error, 'strerror', None) or error}"
        return Finding("port", FAIL, message, "give --host an address of this machine")
    if number == 0:
        return Finding("port", OK, "--port 0 takes a free one")
    for family, kind, protocol, _, address in addresses:
        try:
            with socket.socket(family, kind, protocol) as listener:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the sidecar does
                listener.bind(address)
                listener.listen()
        except OSError as error:
            mine = "give --host an address of this machine"
            way_out = {errno.EADDRNOTAVAIL: mine, errno.EACCES: "take a --port from 1024 on"}
            message = f"{host}:{number}: {error.strerror or error}"
            return Finding("port", FAIL, message, way_out.get(error.errno or 0, other))
    return Finding("port", OK, f"{host}:{number} is free")
