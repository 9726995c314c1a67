# SPDX-License-Identifier: Apache-2.0
"""Checks of this machine and of the policy that need no ROS.

The engine and its libraries are imported inside the checks, so that a missing one is a finding.
"""

from __future__ import annotations

import importlib.util
import shutil
import sys
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

from reflex_core.errors import ConfigurationError, ReflexError
from reflex_core.settings import Settings

PASS, WARN, FAIL = "PASS", "WARN", "FAIL"
# what is imported: wheel (the GPU build of onnxruntime and the full OpenCV are imported by the same name)
PACKAGES = {
    "numpy": "numpy",
    "onnxruntime": "onnxruntime",
    "cv2": "opencv-python-headless",
    "tokenizers": "tokenizers",
    "safetensors": "safetensors",
    "simplejpeg": "simplejpeg",
    "aiohttp": "aiohttp",
    "orjson": "orjson",
}
SHARED_MEMORY_MB = 128  # a robot driver, the node and a few tools, 16 MB each


@dataclass(frozen=True, slots=True)
class Check:
    """What one check found. `remedy` says what to do; every FAIL has one."""

    name: str
    status: str
    detail: str
    remedy: str = ""


def python_version() -> Check:
    """Python 3.10 to 3.12, for which the ROS wheels exist."""
    found = ".".join(str(part) for part in sys.version_info[:3])
    if (3, 10) <= sys.version_info[:2] <= (3, 12):
        return Check("python", PASS, found)
    return Check("python", WARN, found, "use Python 3.10, 3.11 or 3.12")


def packages() -> Check:
    """The libraries that serving needs, with their versions."""
    missing = [wheel for module, wheel in PACKAGES.items() if importlib.util.find_spec(module) is None]
    if missing:
        return Check("packages", FAIL, f"missing: {', '.join(missing)}", f"pip install {' '.join(missing)}")
    wheels = metadata.packages_distributions()
    versions = (f"{module} {metadata.version(wheels[module][0])}" for module in PACKAGES if module in wheels)
    return Check("packages", PASS, ", ".join(versions))


def providers(device: str) -> Check:
    """Whether this onnxruntime can run on the device that is asked for."""
    import onnxruntime as ort

    from reflex_core.policy.session import providers_for

    available = ", ".join(ort.get_available_providers())
    try:
        wanted = providers_for(device)[0]
    except ConfigurationError as error:
        return Check("onnxruntime", FAIL, str(error), "pip install onnxruntime-gpu, or take --device cpu")
    return Check("onnxruntime", PASS, f"{wanted} for device '{device}'; this build has {available}")


def calibration(path: Path) -> dict[str, Any]:
    """What the calibration cache holds: {path, problem, entries: {key: {stale, and the fields of the file}}}.

    `problem` says why the file as a whole is of no use; `stale` why an entry would be measured again, '' when it would
    not.
    """
    from reflex_core.calibration.cache import read, stale
    from reflex_core.calibration.fingerprint import this_machine

    try:
        cache = read(path)
    except FileNotFoundError:
        return {
            "path": str(path),
            "problem": "there is no such file yet: serve with --auto-calibrate",
            "entries": {},
        }
    except (OSError, ValueError) as error:
        return {"path": str(path), "problem": f"it cannot be read: {error}", "entries": {}}
    machine, now = this_machine(), datetime.now(timezone.utc)
    entries = {
        key: {"stale": stale(cache, key, machine, now)} | entry.document()
        for key, entry in cache.entries.items()
    }
    return {"path": str(path), "problem": "", "entries": entries}


def shared_memory(path: Path = Path("/dev/shm")) -> Check:
    """Room for the shared-memory segments that carry camera images between processes."""
    if not path.is_dir():
        return Check(
            "shared memory", WARN, f"there is no {path}", "camera images then travel over loopback UDP"
        )
    free_mb = shutil.disk_usage(path).free / 1e6
    if free_mb >= SHARED_MEMORY_MB:
        return Check("shared memory", PASS, f"{free_mb:.0f} MB free in {path}")
    return Check(
        "shared memory", WARN, f"{free_mb:.0f} MB free in {path}, {SHARED_MEMORY_MB} MB are good",
        "in a container: docker run --shm-size=1g, or --ipc=host",
    )  # fmt: skip


def policy(settings: Settings) -> list[Check]:
    """Load the export, match it with the embodiment, and let it answer a plain grey picture."""
    from reflex_core.engine import Engine

    engine = Engine(settings)
    try:
        engine.load()
    except ConfigurationError as error:
        return [
            Check(
                "policy",
                FAIL,
                str(error),
                "correct what the sentence names, or take another export or embodiment",
            )
        ]
    said = engine.description()
    robot = said["embodiment"]
    chunk = f"{said['action_horizon']} x {len(said['action_names'])} actions"
    checks = [Check("policy", PASS, f"{said['model_version']}: {chunk}, cameras {said['cameras']}")]
    if robot:
        checks.append(Check("embodiment", PASS, f"{robot}: {', '.join(said['action_names'])}"))
    else:
        checks.append(
            Check(
                "embodiment",
                WARN,
                "none: actions are served raw and joint ranges are not checked",
                "--embodiment NAME",
            )
        )
    try:
        engine.warm_up()
    except ReflexError as error:
        checks.append(
            Check("canary", FAIL, str(error), "the graphs load but do not run: export the policy again")
        )
    else:
        checks.append(Check("canary", PASS, f"answered twice on {said['active_providers'][0]}"))
    engine.unload()
    return checks
