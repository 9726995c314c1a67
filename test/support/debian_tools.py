# SPDX-License-Identifier: Apache-2.0
"""Programs that `make test` unpacks from Debian packages into the virtual environment (requirements/debian.sh)."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

UNPACKED = Path(sys.prefix) / "debian"


def promtool() -> str:
    """Checks rules, and runs their unit tests."""
    return _program("promtool")


def prometheus() -> str:
    """The server."""
    return _program("prometheus")


def amtool() -> str:
    """Checks the configuration of Alertmanager, and where it routes an alert."""
    return _program("amtool", "prometheus-alertmanager")


def alertmanager(folder: Path) -> tuple[str, Path]:
    """The server that sends alerts, and the directory to start it in; an unpacked one is copied to `folder` for that.

    Debian's program opens its templates below /usr/share, where they are not when it is only unpacked. The copy opens
    them below the directory that it runs in: the path has the same number of bytes.
    """
    program = Path(_program("prometheus-alertmanager", "prometheus-alertmanager"))
    if UNPACKED not in program.parents:
        return str(program), folder
    installed, relative = b"/usr/share/prometheus/alertmanager", b".////share/prometheus/alertmanager"
    assert len(installed) == len(relative)
    copy = folder / program.name
    copy.write_bytes(program.read_bytes().replace(installed, relative))
    copy.chmod(0o755)
    return str(copy), UNPACKED / "usr"


def systemd_analyze() -> tuple[str, dict[str, str]]:
    """Checks units; with the variables that an unpacked one needs to find its libraries."""
    found = shutil.which("systemd-analyze")
    if found is not None:
        return found, {}
    root = Path(sys.prefix) / "systemd"
    unpacked = root / "usr" / "bin" / "systemd-analyze"
    assert unpacked.is_file(), (
        f"systemd-analyze is neither {unpacked} nor on PATH: run `make test`, or install systemd"
    )
    libraries = sorted({str(path.parent) for path in root.rglob("*") if re.search(r"\.so[.\d]*$", path.name)})
    return str(unpacked), {"LD_LIBRARY_PATH": ":".join(libraries)}


def _program(name: str, package: str = "prometheus") -> str:
    unpacked = UNPACKED / "usr" / "bin" / name
    found = str(unpacked) if unpacked.is_file() else shutil.which(name)
    assert found, f"{name} is neither {unpacked} nor on PATH: run `make test`, or install Debian's {package}"
    return found
