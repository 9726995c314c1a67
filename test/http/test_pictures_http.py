# SPDX-License-Identifier: Apache-2.0
"""What a client's picture becomes on its way to the network, asked through a server; one server for all cases."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from http_client import Client, text
from numpy.typing import NDArray

from reflex_core.engine.engine import Engine
from reflex_core.images.resize import placed, resized
from reflex_core.settings.table import settings_from
from reflex_ros.sidecar.server import Sidecar

ExportDir = Callable[[str], Path]
SIDE = 64


@pytest.fixture(scope="module")
def client(export_dir: ExportDir, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Asks a server of `echo`, which describes itself in a tether_config.json alone."""
    folder = tmp_path_factory.mktemp("echo")
    for file in export_dir("echo").iterdir():
        name = "tether_config.json" if file.name == "reflex_config.json" else file.name
        (folder / name).write_bytes(file.read_bytes())
    settings = settings_from({"export_dir": str(folder), "device": "cpu", "intra_op_threads": 1, "port": 0})
    engine = Engine(settings)
    engine.load()
    engine.warm_up()
    sidecar = Sidecar(engine, settings)
    sidecar.start()
    yield Client(sidecar.port)
    sidecar.stop()
    engine.unload()


def reply_of(client: Client, picture: NDArray[np.uint8], **fields: Any) -> dict[str, Any]:
    encoded = text(cv2.imencode(".png", picture[:, :, ::-1])[1].tobytes())
    answer = client.act({"image": encoded, "instruction": "look"} | fields)
    assert answer.status == 200, answer.body
    found: dict[str, Any] = answer.json
    return found


@pytest.mark.parametrize("size", [(480, 640), (640, 480), (101, 97), (64, 64), (333, 517)])
def test_a_picture_over_http_is_padded_at_the_left_and_top_for_smolvla(
    client: Client, size: tuple[int, int]
) -> None:
    white = reply_of(client, np.full((*size, 3), 255, np.uint8))
    rows, columns = (np.array(white["actions"])[:, part] for part in (slice(0, 3), slice(3, 6)))
    box = placed(*size, SIDE, SIDE, "letterbox_top_left")
    assert box.top + box.height == box.left + box.width == SIDE
    np.testing.assert_allclose(rows[: box.top], -1, atol=1e-6)
    np.testing.assert_allclose(columns[: box.left], -1, atol=1e-6)
    np.testing.assert_allclose(rows[box.top :], 2 * box.width / SIDE - 1, atol=1e-6)
    np.testing.assert_allclose(columns[box.left :], 2 * box.height / SIDE - 1, atol=1e-6)


def test_a_picture_over_http_is_shrunk_as_lerobot_shrinks_it(client: Client) -> None:
    noise = np.random.default_rng(3).integers(0, 256, (480, 640, 3), np.uint8)
    found = np.array(reply_of(client, noise)["actions"])[16:, :3]
    means = {how: resized(noise, 48, 64, how).mean(axis=1) / 127.5 - 1 for how in ("bilinear", "area")}
    np.testing.assert_allclose(found, means["bilinear"], atol=1e-5)
    assert np.abs(found - means["area"]).max() > 0.05


def test_every_reply_says_which_cameras_gave_no_picture(client: Client) -> None:
    grey = np.full((64, 64, 3), 127, np.uint8)
    alone = reply_of(client, grey)
    assert alone["masked_cameras"] == ["cam2"]
    assert set(np.array(alone["actions"])[:, 6]) == {0.0}
    second = text(cv2.imencode(".png", grey)[1].tobytes())
    both = reply_of(client, grey, image_wrist=second)
    assert both["masked_cameras"] == []
    assert set(np.array(both["actions"])[:, 6]) == {1.0}


def test_an_export_of_another_exporter_is_served_with_what_it_says(client: Client) -> None:
    reply = client.get("/config").json
    assert reply["model_type"] == "smolvla"
    assert reply["effective"]["model_version"].startswith("echo@")
    assert reply["effective"]["unfed_cameras"] == []  # no robot is known, so all may be sent
