# SPDX-License-Identifier: Apache-2.0
"""Where the files that travel with the package are: in a checkout, in a venv, in a colcon install."""

from __future__ import annotations

import sys
from pathlib import Path

from reflex_core.errors import ConfigurationError

DEMO = "demo"  # the name of the embedded policy


def share() -> Path:
    """The directory that holds config/ and models/: the checkout itself, else <prefix>/share/reflex_ros."""
    here = Path(__file__).resolve()
    candidates = [
        here.parents[2],  # a checkout
        here.parents[5] / "share" / "reflex_ros" if len(here.parents) > 5 else here.parents[2],
        Path(sys.prefix) / "share" / "reflex_ros",
    ]
    for candidate in candidates:
        if (candidate / "config" / "embodiments").is_dir():
            return candidate
    tried = ", ".join(str(candidate) for candidate in candidates)
    raise ConfigurationError(f"the package's config/ and models/ were not installed: looked in {tried}")


def embedded_policy() -> Path:
    """The export that is called `demo`, and that answers when none is named."""
    return share() / "models" / "reach_panda"


def export_path(name: str) -> Path:
    """Find the export that a setting or an option names: `demo` and no name at all are the embedded policy.

    Everything else is a path: a directory that is called demo is `./demo`, or `demo/` as a shell completes it.
    """
    return embedded_policy() if name in ("", DEMO) else Path(name)
