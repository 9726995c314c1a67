# SPDX-License-Identifier: Apache-2.0
"""The ONNX graph of a bundle: inside its folder, with its external data, loaded once for the names and shapes in it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from reflex_core.errors import ExportError
from reflex_core.export.onnx_data import external_data
from reflex_core.export.tensor import TensorInfo
from reflex_core.files.regular_file import unreadable
from reflex_core.policy.providers import Placement, providers_for
from reflex_core.policy.session import EagerSession
from reflex_core.text.untrusted import shown
from reflex_export.importing.description_of import REFUSED

ONNX = ".onnx"
# what other runtimes take, and how the bundle is made again for ours
_OTHERS: Mapping[str, str] = {
    ".xml": "an OpenVINO model",
    ".bin": "weights of an OpenVINO model",
    ".pt": "a torch model",
    ".pth": "a torch model",
    ".pt2": "a torch program",
    ".ckpt": "a torch checkpoint",
    ".jit": "a TorchScript model",
    ".pte": "an ExecuTorch program",
    ".engine": "a TensorRT engine",
    ".plan": "a TensorRT engine",
}


@dataclass(frozen=True, slots=True)
class GraphFile:
    """One graph. data: name as the graph writes it -> file, for what it keeps outside itself."""

    path: Path
    inputs: Mapping[str, TensorInfo]
    outputs: Mapping[str, TensorInfo]
    data: Mapping[str, Path]

    @property
    def files(self) -> dict[str, Path]:
        """The graph and its data under the names that they have in an export."""
        return {self.path.name: self.path, **self.data}


def inside(folder: Path, name: object, where: str, purpose: str) -> Path:
    """Return a file of the bundle. Raises ExportError for an absolute name, one that leads outside, and for no regular file.

    Judged by name and not by the target of a link: caches of model hubs are made of links.
    """
    if not isinstance(name, str) or not name or not name.isprintable() or "\\" in name:
        raise ExportError(f"{where}: {purpose} must be the name of a file, got {shown(name)}", REFUSED)
    root, path = Path(os.path.abspath(folder)), Path(os.path.abspath(folder / name))
    if Path(name).is_absolute() or not path.is_relative_to(root) or path == root:
        raise ExportError(
            f"{where}: {purpose} {shown(name)} lies outside the folder: copy it into {folder} and name it there",
            REFUSED,
        )
    if why := unreadable(path):
        what = "is missing" if why == "not there" else f"is {why}"
        raise ExportError(f"{where}: {purpose} {shown(name)} {what}", "export-file-missing")
    return path


def read_graph(folder: Path, name: object, where: str) -> GraphFile:
    """Load the graph that a bundle names, for its inputs and outputs. Raises ExportError for what is no ONNX graph of the folder."""
    suffix = Path(name).suffix.lower() if isinstance(name, str) else ""
    if suffix in _OTHERS:
        raise ExportError(
            f"{where}: its model {shown(name)} is {_OTHERS[suffix]}, and ONNX is what is served: export the policy again with"
            " the ONNX backend",
            REFUSED,
        )
    path = inside(folder, name, where, "its model")
    if suffix != ONNX:
        raise ExportError(f"{where}: its model must be an {ONNX} file, got {shown(name)}", REFUSED)
    data = {each: inside(path.parent, each, str(path), "its external data") for each in external_data(path)}
    session = EagerSession(path, Placement(tuple(providers_for("cpu")), 1))
    return GraphFile(path, session.inputs, session.outputs, data)
