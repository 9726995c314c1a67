# SPDX-License-Identifier: Apache-2.0
"""The cameras of a policy_package: which of them each image input is, its size, and how its pixels are scaled."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from reflex_core.errors import ExportError
from reflex_core.export.tensor import TensorInfo
from reflex_core.files.json_fields import JsonFields, is_whole
from reflex_core.normalization.affine import MODES
from reflex_core.text.untrusted import is_name, shown
from reflex_export.importing.description_of import REFUSED
from reflex_export.importing.graph_file import GraphFile
from reflex_export.importing.package_statistics import statistics_block
from reflex_export.importing.package_steps import Steps, scaling_of

_PREFIXES = ("observation.images.", "images.", "observation.image.", "image.")
_ALONE = ("images", "image", "observation.image", "observation.images")  # an input of the only camera
_COLOURS, _MOST_SIDE = 3, 8192

Size = tuple[int | None, int | None]


def image_slots(
    graph: GraphFile, manifest: JsonFields, steps: Steps, where: str
) -> tuple[list[dict[str, Any]], list[str]]:
    """Return (`images` of reflex_config.json, what was taken for granted about them).

    Raises ExportError where a camera of the manifest has no input, sizes contradict each other, or an image is scaled in a way
    that cannot be described.
    """
    inputs = [info for name, info in graph.inputs.items() if name.startswith(_PREFIXES) or name in _ALONE]
    cameras = _cameras(manifest)
    names = _matched(inputs, cameras, where)
    slots = [_slot(info, names[info.name], cameras.get(names[info.name]), steps, where) for info in inputs]
    granted = [
        f"the image input {name} is camera {camera}"
        for name, camera in names.items()
        if camera not in cameras
    ]
    if inputs and not steps.converted and not any(scaling_of(steps.before, (info.name,)) for info in inputs):
        granted.append("images are pixels from 0 to 1 where the graph takes floating-point numbers")
    if inputs and steps.size is None:
        granted.append("images are not resized: cameras have to give exactly the graph's size")
    return slots, granted


def _cameras(manifest: JsonFields) -> dict[str, tuple[int, ...]]:
    """Return name -> (channels, height, width) of every camera, () where the shape is not written."""
    hardware = manifest.fields("hardware", optional=True)
    listed = hardware.get("cameras") or []
    if not isinstance(listed, list):
        raise hardware.refusal("cameras", "a list of cameras")
    found: dict[str, tuple[int, ...]] = {}
    for number, entry in enumerate(listed):
        camera = JsonFields(entry, hardware.refusal, f"cameras[{number}]")
        name, shape = camera.get("name"), camera.get("shape") or []
        if not is_name(name) or name in found:
            raise camera.refusal("name", "a name, different from the others'")
        right = isinstance(shape, list) and all(is_whole(size, 1, _MOST_SIDE) for size in shape)
        if not right or len(shape) not in (0, 3) or (shape and shape[0] != _COLOURS):
            raise camera.refusal("shape", f"[3, height, width] with sides up to {_MOST_SIDE}")
        found[str(name)] = tuple(shape)
    return found


def _matched(inputs: list[TensorInfo], cameras: Mapping[str, Any], where: str) -> dict[str, str]:
    """Return input -> camera. An input of the only camera has no camera's name in its own."""
    if len(inputs) == len(cameras) == 1 and inputs[0].name in _ALONE:
        return {inputs[0].name: next(iter(cameras))}
    names = {info.name: _camera_of(info.name) for info in inputs}
    if len(set(names.values())) < len(names):
        raise ExportError(
            f"{where}: two inputs of the graph are one camera: {shown(list(names), 200)}", REFUSED
        )
    for camera in cameras:
        if camera not in names.values():
            raise ExportError(
                f"{where}: the graph has no input for its camera {shown(camera)}; its images are"
                f" {', '.join(names) or 'none'}",
                REFUSED,
            )
    return names


def _camera_of(name: str) -> str:
    prefix = next((prefix for prefix in _PREFIXES if name.startswith(prefix)), "")
    return name.removeprefix(prefix) if prefix else "camera"


def _slot(
    info: TensorInfo, camera: str, shape: tuple[int, ...] | None, steps: Steps, where: str
) -> dict[str, Any]:
    if len(info.shape) < 4:
        raise ExportError(
            f"{where}: the graph's input '{info.name}' must be images of four axes, got {info.shape}", REFUSED
        )
    last = info.shape[-1] == _COLOURS and info.shape[-3] != _COLOURS
    if last and steps.converted:
        raise ExportError(
            f"{where}: its steps put the colours of '{info.name}' first, and the graph takes {info.shape}",
            REFUSED,
        )
    height, width = _size(info.name, info.shape[-3:-1] if last else info.shape[-2:], shape, steps, where)
    slot: dict[str, Any] = {
        "camera": camera, "input": info.name, "mask": None, "height": height, "width": width,
        "layout": "nhwc" if last else "nchw", **_pixels(info, steps, where), **steps.images,
    }  # fmt: skip
    if steps.size is None and None not in (height, width):
        slot["size"] = "exact"
    return {key: value for key, value in slot.items() if value is not None or key == "mask"}


def _size(
    name: str, graph: tuple[int | None, ...], shape: tuple[int, ...] | None, steps: Steps, where: str
) -> Size:
    """Return height and width: of the graph, else what images are resized to, else the camera's."""
    wanted = steps.size or (shape[1:] if shape else (None, None))
    for side, own, other in zip(("height", "width"), graph, wanted, strict=True):
        if own is not None and other is not None and own != other:
            what = "its steps resize images to" if steps.size else "its camera has"
            raise ExportError(
                f"{where}: the {side} of '{name}' is {own} in the graph, and {what} {other}", REFUSED
            )
    height, width = (own or other for own, other in zip(graph, wanted, strict=True))
    return height, width


def _pixels(info: TensorInfo, steps: Steps, where: str) -> dict[str, Any]:
    """Return how pixels are scaled: by statistics, else to 0..1, or not at all for a graph that takes bytes."""
    found = scaling_of(steps.before, (info.name,))
    if found is None:
        whole = not issubclass(info.dtype, np.floating)
        if whole and steps.converted:
            raise ExportError(
                f"{where}: its steps make floats of '{info.name}', which takes integers", REFUSED
            )
        return {"range": [0.0, 255.0] if whole else [0.0, 1.0]}
    scaled, _ = found
    if steps.size is not None and not scaled.resized:
        raise ExportError(
            f"{scaled.where}: scales images before they are resized, which is not done here", REFUSED
        )
    block = statistics_block(scaled.table[info.name], scaled.mode, _COLOURS, scaled.where, info.name)
    first, second = (np.array(block[key]) for key in MODES[scaled.mode])
    if scaled.mode == "mean_std":
        return {"mean": first.tolist(), "std": second.tolist()}
    return {"mean": ((first + second) / 2).tolist(), "std": ((second - first) / 2).tolist()}
