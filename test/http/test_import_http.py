# SPDX-License-Identifier: Apache-2.0
"""An imported package over HTTP answers as its graph in onnxruntime does between its own formulas."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from bundles import HEIGHT, MEANS, WIDTH, by_hand, package
from http_client import picture, text
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
