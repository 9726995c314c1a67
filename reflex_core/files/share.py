# SPDX-License-Identifier: Apache-2.0
"""Where the files that travel with the package are: in a checkout, in a venv, in a colcon install."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from reflex_core.errors import ConfigurationError

DEMO = "demo"  # the name of the embedded policy
PICK = "pick"  # the name of the embedded policy that uses a gripper
EMBEDDED = {DEMO: "reach_panda", PICK: "pick_panda"}  # folders of models/


def share() -> Path:
    """Return the directory that holds config/ and models/: the checkout itself, else <prefix>/share/reflex_ros."""
    here = Path(__file__).resolve()
    candidates = [
        here.parents[2],  # a checkout
        here.parents[5] / "share" / "reflex_ros" if len(here.parents) > 5 else here.parents[2],
        here.parents[2] / "share" / "reflex_ros",  # pip install --target
        Path(sys.prefix) / "share" / "reflex_ros",
    ]
    for candidate in candidates:
        if (candidate / "config" / "embodiments").is_dir():
            return candidate
    tried = ", ".join(str(candidate) for candidate in candidates)
    raise ConfigurationError(f"the package's config/ and models/ were not installed: looked in {tried}")


def version() -> str:
    """Read the version of this package from package.xml, its only place.

    Raises ConfigurationError where no package.xml is next to config/ and models/.
    """
    manifest = share() / "package.xml"
    try:
        found = re.search(r"<version>(.+?)</version>", manifest.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{manifest} cannot be read: install the package again") from error
    if found is None:
        raise ConfigurationError(f"{manifest} names no version: install the package again")
    return found[1]


def embedded_policy(name: str = DEMO) -> Path:
    """Return the export of an embedded policy, `demo` or `pick`; `demo` is served when none is named."""
    return share() / "models" / EMBEDDED[name]


def export_path(name: str) -> Path:
    """Find the export that a setting or an option names: `demo`, `pick`, and no name at all are embedded policies.

    Everything else is a path: a directory that is called demo is `./demo`, or `demo/` as a shell completes it.
    """
    name = name or DEMO
    return embedded_policy(name) if name in EMBEDDED else Path(name)
