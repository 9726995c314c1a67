# SPDX-License-Identifier: Apache-2.0
"""Where the files that travel with the package are: in a checkout, in a venv, in a colcon install."""

from __future__ import annotations

import sys
from pathlib import Path

from reflex_core.errors import ConfigurationError


def share() -> Path:
    """The directory that holds config/ and models/: the checkout itself, else <prefix>/share/reflex_ros."""
    here = Path(__file__).resolve()
    candidates = [
        here.parents[1],  # a checkout
        here.parents[4] / "share" / "reflex_ros" if len(here.parents) > 4 else here.parents[1],
        Path(sys.prefix) / "share" / "reflex_ros",
    ]
    for candidate in candidates:
        if (candidate / "config" / "embodiments").is_dir():
            return candidate
    tried = ", ".join(str(candidate) for candidate in candidates)
    raise ConfigurationError(f"the package's config/ and models/ were not installed: looked in {tried}")


def embedded_policy() -> Path:
    """The export that is served when none is named."""
    return share() / "models" / "reach_panda"
