# SPDX-License-Identifier: Apache-2.0
"""Pick an OpenGL backend that draws without a screen. Imports no MuJoCo: `make` checks here before each first demo."""

from __future__ import annotations

import functools
import os
import subprocess
import sys

BACKENDS = ("egl", "osmesa")
PACKAGES = "libegl1 libegl-mesa0 libgl1-mesa-dri, or libosmesa6"
PROBE = "from mujoco.{backend} import GLContext; c = GLContext(16, 16); c.make_current(); c.free()"
PROBE_TIMEOUT_S = 60.0


class RenderingUnavailable(RuntimeError):  # noqa: N818 - it says what happened
    """No OpenGL backend can draw on this machine."""


def backend_works(backend: str) -> bool:
    """Return whether a backend works, tried in a child process: a failure would leave PyOpenGL on the wrong platform."""
    environment = {**os.environ, "MUJOCO_GL": backend, "PYOPENGL_PLATFORM": backend}
    try:
        probe = subprocess.run(
            [sys.executable, "-c", PROBE.format(backend=backend)],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=PROBE_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False
    return probe.returncode == 0


@functools.cache
def choose_backend() -> str:
    """Return MUJOCO_GL where it is set, else `egl` or `osmesa`, and writes the choice to MUJOCO_GL.

    Raises RenderingUnavailable, naming the Debian packages, when neither works.
    """
    wanted = os.environ.get("MUJOCO_GL", "").strip().lower()
    if wanted and wanted not in BACKENDS:
        raise RenderingUnavailable(
            f"MUJOCO_GL is {wanted!r}, expected {' or '.join(BACKENDS)} for a machine without a screen."
        )
    for backend in (wanted,) if wanted else BACKENDS:
        if backend_works(backend):
            os.environ["MUJOCO_GL"] = backend
            return backend
    tried = f"MUJOCO_GL={wanted} does not work" if wanted else "neither EGL nor OSMesa works"
    raise RenderingUnavailable(f"No headless OpenGL: {tried}; install the Debian packages {PACKAGES}.")
