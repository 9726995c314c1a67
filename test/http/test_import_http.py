# SPDX-License-Identifier: Apache-2.0
"""Imported exports over HTTP answer as their graphs in onnxruntime do between their own formulas."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
from bundles import HEIGHT, MEANS, WIDTH, by_hand, package
from http_client import picture, text
from repository import FIXTURES
from servers import Server

from reflex_export.importing.description_of import ImportOptions
from reflex_export.importing.import_folder import run

Serve = Callable[..., Server]
TOLERANCE = 1e-5


def test_an_imported_package_answers_over_http_as_its_own_graph(serve: Serve, tmp_path: Path) -> None:
    folder = package(tmp_path / "package")
    run(folder, tmp_path / "out", ImportOptions(fps=20.0), lambda _: None)
    server = serve("act", export_dir=str(tmp_path / "out"), embodiment="", robot_id="")
    pixels = picture(height=HEIGHT, width=WIDTH)
    state = MEANS + np.float32(0.1)
    image = {"data": text(pixels.tobytes()), "encoding": "rgb8", "height": HEIGHT, "width": WIDTH}
    reply = server.client.act(
        {"images": {"top": image}, "instruction": "reach", "state": state.tolist()}
    ).json
    assert reply["source"] == "policy"
    assert reply["num_actions"] == 16
    np.testing.assert_allclose(reply["actions"], by_hand(folder, pixels, state), atol=TOLERANCE)


def test_an_imported_bundle_answers_over_http_as_its_own_graph(serve: Serve, tmp_path: Path) -> None:
    folder = FIXTURES / "leapp" / "reach"
    run(folder, tmp_path / "out", ImportOptions(image_range=(0.0, 1.0)), lambda _: None)
    server = serve("act", export_dir=str(tmp_path / "out"), embodiment="", robot_id="")
    pixels = picture(height=HEIGHT, width=WIDTH)
    image = {"data": text(pixels.tobytes()), "encoding": "rgb8", "height": HEIGHT, "width": WIDTH}
    state = MEANS + np.float32(0.1)
    reply = server.client.act(
        {"images": {"top": image}, "instruction": "reach", "state": state.tolist()}
    ).json
    session = onnxruntime.InferenceSession(folder / "policy.onnx", providers=["CPUExecutionProvider"])
    feeds = {"joint_pos": state[None], "top": (pixels / 255).astype(np.float32)[None]}
    assert reply["source"] == "policy"
    np.testing.assert_allclose(reply["actions"], session.run(None, feeds)[0][0], atol=TOLERANCE)
