# SPDX-License-Identifier: Apache-2.0
"""Which machine this is, as far as it decides how fast a policy runs. Needs no GPU and no tool of one."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from reflex_core import __version__
from reflex_core.policy.gpu import first_gpu

RAM_TOLERANCE_GB = 1.0  # firmware and kernel take a little more or less of it from boot to boot


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """One machine. The GPU's fields are None where there is no nvidia-smi, or no GPU that it can see."""

    gpu_uuid: str | None
    gpu_name: str | None
    driver_version_major: int | None
    driver_version_minor: int | None
    cuda_version_major: int | None
    cuda_version_minor: int | None
    kernel_release: str
    cpu_count: int
    ram_gb: float
    reflex_version: str

    def differences(self, other: Fingerprint) -> str:
        """Return what differs, '' for the same machine. A kernel update and 1 GB of RAM do not count."""
        changed = [
            f"{field.name} {getattr(other, field.name)} is now {getattr(self, field.name)}"
            for field in fields(self)
            if field.name not in ("kernel_release", "ram_gb")
            and getattr(self, field.name) != getattr(other, field.name)
        ]
        if abs(self.ram_gb - other.ram_gb) > RAM_TOLERANCE_GB:
            changed.append(f"ram_gb {other.ram_gb:g} is now {self.ram_gb:g}")
        return ", ".join(changed)

    def document(self) -> dict[str, Any]:
        """Return the fingerprint as it is written to the cache file."""
        return asdict(self)


def fingerprint_from(document: Mapping[str, Any]) -> Fingerprint:
    """Return the inverse of `document`. Raises ValueError for anything else."""
    try:
        own = {field.name: document[field.name] for field in fields(Fingerprint)}
        own["ram_gb"], own["cpu_count"] = float(own["ram_gb"]), int(own["cpu_count"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"hardware_fingerprint is not one: {error}") from error
    return Fingerprint(**own)


def this_machine() -> Fingerprint:
    """Return the fingerprint of this machine, as seen from this process."""
    gpu = first_gpu()
    return Fingerprint(
        gpu_uuid=gpu.get("uuid"),
        gpu_name=gpu.get("name"),
        driver_version_major=_part(gpu.get("driver"), 0),
        driver_version_minor=_part(gpu.get("driver"), 1),
        cuda_version_major=_part(gpu.get("cuda"), 0),
        cuda_version_minor=_part(gpu.get("cuda"), 1),
        kernel_release=platform.release(),
        cpu_count=len(os.sched_getaffinity(0)),
        ram_gb=round(ram_gb(), 1),
        reflex_version=__version__,
    )


def ram_gb(meminfo: Path = Path("/proc/meminfo")) -> float:
    """Return the memory of the machine in GB (10^9 bytes); 0.0 where there is no /proc."""
    try:
        found = re.search(r"^MemTotal:\s+(\d+) kB", meminfo.read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        return 0.0
    return int(found.group(1)) * 1024e-9 if found else 0.0


def physical_cores(cpuinfo: Path = Path("/proc/cpuinfo")) -> int:
    """Count the cores this process may use, two hardware threads of one core counted once."""
    allowed = len(os.sched_getaffinity(0))
    try:
        blocks = cpuinfo.read_text(encoding="utf-8").strip().split("\n\n")
    except OSError:
        return allowed
    cores = {
        (physical, core)
        for block in blocks
        if (core := _field(block, "core id")) and (physical := _field(block, "physical id"))
    }
    return min(len(cores) or allowed, allowed)


def _field(block: str, name: str) -> str:
    found = re.search(rf"^{name}\s*:\s*(\S+)", block, re.MULTILINE)
    return found.group(1) if found else ""


def _part(version: str | None, index: int) -> int | None:
    parts = (version or "").split(".")
    return int(parts[index]) if len(parts) > index and parts[index].isdigit() else None
