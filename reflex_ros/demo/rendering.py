# SPDX-License-Identifier: Apache-2.0
"""Headless OpenGL for MuJoCo: render camera images with a backend that works.

The context is created here and not by mujoco.Renderer, which fixes the backend when mujoco is first imported;
this way MUJOCO_GL may be set, or left to us, in any import order.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from reflex_ros.demo.opengl import choose_backend


class CameraRenderer:
    """Draws a model's cameras off screen; one per model, used from any one thread at a time."""

    def __init__(self, model: Any) -> None:
        width, height = model.vis.global_.offwidth, model.vis.global_.offheight
        self.max_size = (int(width), int(height))
        backend = choose_backend()
        # PyOpenGL reads this when it is first imported, which the next line may do.
        os.environ.setdefault("PYOPENGL_PLATFORM", backend)
        self._context = importlib.import_module(f"mujoco.{backend}").GLContext(width, height)
        self._context.make_current()
        self._model = model
        self._scene = mujoco.MjvScene(model, maxgeom=200)
        # Shadows and reflections cost two thirds of the frame rate of a software renderer.
        self._scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = 0
        self._scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0
        self._option = mujoco.MjvOption()
        self._draw_context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._draw_context)

    def render(
        self, data: Any, camera_name: str, width: int, height: int, *, shadows: bool = False
    ) -> NDArray[np.uint8]:
        """Return uint8 [height, width, 3] RGB, top row first; shadows: of the model's lights that cast them."""
        self._scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = shadows
        if not (0 < width <= self.max_size[0] and 0 < height <= self.max_size[1]):
            raise ValueError(
                f"Image size {width}x{height} is outside 1x1..{self.max_size[0]}x{self.max_size[1]}."
            )
        camera = mujoco.MjvCamera()
        camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        camera.fixedcamid = self._model.camera(camera_name).id
        self._context.make_current()
        mujoco.mjv_updateScene(
            self._model, data, self._option, None, camera, mujoco.mjtCatBit.mjCAT_ALL.value, self._scene
        )
        viewport = mujoco.MjrRect(0, 0, width, height)
        mujoco.mjr_render(viewport, self._scene, self._draw_context)
        pixels = np.empty((height, width, 3), dtype=np.uint8)
        mujoco.mjr_readPixels(pixels, None, viewport, self._draw_context)
        return np.ascontiguousarray(pixels[::-1])

    def close(self) -> None:
        self._context.make_current()
        self._draw_context.free()
        self._context.free()
