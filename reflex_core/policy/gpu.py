# SPDX-License-Identifier: Apache-2.0
"""Which GPU this process would run on, as nvidia-smi tells it. Needs no GPU and no tool of one."""

from __future__ import annotations

import re
import subprocess


def first_gpu() -> dict[str, str]:
    """Return uuid, name, driver and cuda of the first GPU; {} without one."""
    row = _output_of("nvidia-smi", "--query-gpu=uuid,name,driver_version", "--format=csv,noheader")
    parts = [part.strip() for part in row.splitlines()[0].split(",")] if row else []
    if len(parts) != 3:
        return {}
    cuda = re.search(r"CUDA Version:\s*([\d.]+)", _output_of("nvidia-smi"))
    return dict(zip(("uuid", "name", "driver"), parts, strict=True)) | (
        {"cuda": cuda.group(1)} if cuda else {}
    )


def _output_of(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
