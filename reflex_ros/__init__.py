# SPDX-License-Identifier: Apache-2.0
"""The ROS and HTTP side of reflex.

Its interfaces are generated from msg/, srv/ and action/ and are in `reflex_ros.msg`, `.srv` and `.action` once built.
Importing this package needs no ROS; importing those does.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from pathlib import Path
from pkgutil import extend_path

# Python code that runs from a checkout still finds the generated modules where they were installed.
__path__ = extend_path(__path__, __name__)

# Each needs the ones before it.
_MESSAGE_LIBRARIES = (
    "generator_c",
    "typesupport_fastrtps_cpp",
    "typesupport_fastrtps_c",
    "typesupport_introspection_c",
    "typesupport_c",
)


def _preload_message_libraries() -> None:
    """Load the message libraries by path, so that the middleware, which asks by name, finds them loaded.

    LD_LIBRARY_PATH does not name our lib/ when we are pip-installed next to a sourced ROS 2.
    """
    for package_directory in __path__:
        parents = Path(package_directory).resolve().parents  # lib/pythonX.Y/site-packages/reflex_ros
        if len(parents) < 3:
            continue
        for name in _MESSAGE_LIBRARIES:
            library = parents[2] / f"libreflex_ros__rosidl_{name}.so"
            if not library.is_file():
                continue
            # Without ROS on this machine the libraries they need are absent, and HTTP alone must still work;
            # `import reflex_ros.msg` then says what is missing.
            with contextlib.suppress(OSError):
                ctypes.CDLL(str(library))


def _point_ament_at_the_virtual_environment() -> None:
    """Set AMENT_PREFIX_PATH where it is empty; ament_index_python raises then and the wheels leave it so."""
    if os.environ.get("AMENT_PREFIX_PATH"):
        return
    if (Path(sys.prefix) / "share" / "ament_index").is_dir():
        os.environ["AMENT_PREFIX_PATH"] = sys.prefix


_preload_message_libraries()
_point_ament_at_the_virtual_environment()
