# SPDX-License-Identifier: Apache-2.0
"""Read a LEAPP bundle (Isaac Lab, Isaac ROS Deploy) with one ONNX graph as one of our exports.

Source of the format: leapp 0.7.2, files of version 1.3. Each tensor says by its `kind` what it is; the graph holds its own pre- and
post-processing, so nothing is normalised here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from reflex_core.doctor.export_files import sha256
from reflex_core.errors import ExportError
from reflex_core.export.families import DETERMINISTIC
from reflex_core.export.tensor import TensorInfo
from reflex_core.files.json_fields import JsonFields, is_whole, refusing
from reflex_core.normalization.affine import IDENTITY
from reflex_core.text.untrusted import shown
from reflex_export.importing.description_of import (
    MISSING,
    REFUSED,
    Found,
    ImportOptions,
    about_robot,
    joint_names,
)
from reflex_export.importing.graph_file import GraphFile, inside, read_graph
from reflex_export.importing.leapp_yaml import read_leapp_yaml

FORMAT = "leapp"
POSITION, IMAGE, TARGET = "state/joint/position", "state/camera/image", "target/joint/position"
TEMPORAL = "__temporal_axis__"
_MOST_STATE_BYTES = 16 << 20
_COLOURS = 3


@dataclass(frozen=True, slots=True)
class _Tensor:
    """One described input or output. names: of its last axis, () where none are written. period_ms: of its temporal axis, if any."""

    name: str
    kind: str
    names: tuple[str, ...]
    period_ms: float | None
    temporal: bool


def read_leapp(file: Path, options: ImportOptions) -> Found:
    """Describe the bundle of a YAML file. Raises ExportError for everything that cannot be served as it was meant."""
    where, folder = str(file), file.parent
    document = JsonFields(read_leapp_yaml(file), refusing(where, ExportError))
    name, model = _only_model(document)
    pipeline = document.fields("pipeline")
    _check_edges(pipeline, where)
    parameters = model.fields("parameters")
    graph = _graph(folder, parameters, where)
    inputs = [_tensor(each, graph.inputs) for each in _listed(model, "inputs")]
    outputs = [_tensor(each, graph.outputs) for each in _listed(model, "outputs")]
    constants = _initial_values(folder, pipeline, name, inputs, where)
    state, images = _sorted_inputs([each for each in inputs if each.name not in constants], where)
    target = _target(outputs, where)
    rows, width = _chunk(graph.outputs[target.name], graph.path)
    names = joint_names(where, "actions", "--names", target.names, options.names, width)
    robot, granted = about_robot(options, names)
    rate = _rate(target, rows, pipeline, options, where)
    if rate:
        granted = [line for line in granted if "control rate" not in line]
    config = {
        "model_id": file.stem,
        "model_type": FORMAT,
        "export_kind": "monolithic",
        "graphs": {"monolithic": graph.path.name},
        "policy": DETERMINISTIC,
        "actions_output": target.name,
        "chunk_size": rows,
        "action_dim": width,
        "action_names": names,
        **robot,
        **rate,
        "images": [_slot(graph.inputs[image.name], options, where) for image in images],
        **_state(state, graph, options, where),
        **({"constants": constants} if constants else {}),
        "normalization": {"state": {"mode": IDENTITY}, "action": {"mode": IDENTITY}},
        "source": {"type": FORMAT, "sha256": parameters["sha256sum"], "verified": False},
    }
    granted += ["cameras have to give exactly the graph's size"] if images else []
    read = (
        f"LEAPP bundle, model {name}",
        *(f"{each.name}: {each.kind}" for each in (*inputs, *outputs) if each.kind),
    )
    return Found(config, graph.files, read, tuple(granted))


def _only_model(document: JsonFields) -> tuple[str, JsonFields]:
    models = document.fields("models")
    if len(models) != 1:
        raise models.refusal(
            "models", "one model, as bundles of several graphs are not imported", sorted(models)
        )
    name = next(iter(models))
    return name, models.fields(name)


def _check_edges(pipeline: JsonFields, where: str) -> None:
    """Raise ExportError for an output that is an input again: of the next step, or of another graph."""
    for key, what in (("feedback_flow", "feeds back"), ("data_flow", "passes on")):
        edges = pipeline.fields(key, optional=True)
        for source, targets in edges.items():
            raise ExportError(
                f"{where}: {what} {shown(source)} to {shown(targets)}, and a policy here keeps nothing from one step to the"
                " next",
                REFUSED,
            )


def _graph(folder: Path, parameters: JsonFields, where: str) -> GraphFile:
    backend = parameters.text("backend")
    if backend != "onnx":
        raise parameters.refusal("backend", 'onnx, which is what is served: export with export_with="onnx"')
    if parameters.get("warp_segments", 0) != 0:
        raise parameters.refusal("warp_segments", "0, as no operator of Warp is run here")
    graph = read_graph(folder, parameters.get("model_path"), where)
    if (expected := parameters.text("sha256sum")) != (got := sha256(graph.path)):
        raise ExportError(
            f"{graph.path}: is another file than the bundle was written with: SHA-256 {got}, {where} says"
            f" {shown(expected)}",
            REFUSED,
        )
    return graph


def _listed(model: JsonFields, key: str) -> list[JsonFields]:
    value = model.get(key)
    if not isinstance(value, list) or not value or not all(isinstance(entry, Mapping) for entry in value):
        raise model.refusal(key, "a list of descriptions of tensors")
    return [JsonFields(entry, model.refusal, f"{key}[{number}]") for number, entry in enumerate(value)]


def _tensor(entry: JsonFields, graph: Mapping[str, TensorInfo]) -> _Tensor:
    name, shape = entry.text("name"), entry.get("shape")
    if name not in graph:
        raise entry.refusal("name", f"a tensor of the graph ({', '.join(graph)[:200]})")
    right = isinstance(shape, list) and all(is_whole(size, 0, 1_000_000_000) for size in shape)
    if not right or not graph[name].takes(shape or ()):
        raise entry.refusal("shape", f"{list(graph[name].shape)}, as the graph has")
    axes = entry.get("element_names") or []
    if not isinstance(axes, list) or len(axes) > max(1, len(graph[name].shape)):
        raise entry.refusal("element_names", "a list with an entry for each axis")
    last = axes[-1] if axes and isinstance(axes[-1], list) else []
    if any(isinstance(axis, list) for axis in axes[:-1]) or not all(isinstance(one, str) for one in last):
        raise entry.refusal("element_names", "names of the last axis alone")
    period = (
        entry.number("temporal_period_ms", 1e-3, 1e6) if entry.get("temporal_period_ms") is not None else None
    )
    return _Tensor(name, entry.text("kind", ""), tuple(last), period, TEMPORAL in axes)


def _sorted_inputs(inputs: list[_Tensor], where: str) -> tuple[_Tensor | None, list[_Tensor]]:
    """Return (joint positions, images). Raises ExportError for every other kind, and for inputs over time."""
    for tensor in inputs:
        if tensor.kind not in (POSITION, IMAGE):
            what = f"is of kind {shown(tensor.kind)}" if tensor.kind else "has no kind"
            raise ExportError(
                f"{where}: input '{tensor.name}' {what}, which has no equivalent here: {POSITION} and {IMAGE} have",
                REFUSED,
            )
        if tensor.temporal or tensor.period_ms is not None:
            raise ExportError(
                f"{where}: input '{tensor.name}' holds several observations over time, which is not imported",
                REFUSED,
            )
    states = [tensor for tensor in inputs if tensor.kind == POSITION]
    if len(states) > 1:
        raise ExportError(
            f"{where}: inputs '{states[0].name}' and '{states[1].name}' are both {POSITION}, and one state is served",
            REFUSED,
        )
    return next(iter(states), None), [tensor for tensor in inputs if tensor.kind == IMAGE]


def _target(outputs: list[_Tensor], where: str) -> _Tensor:
    """Return the positions that are commanded. A robot that lacked another output would move otherwise than it was trained to."""
    for tensor in outputs:
        if tensor.kind != TARGET:
            what = f"is of kind {shown(tensor.kind)}" if tensor.kind else "has no kind"
            raise ExportError(
                f"{where}: output '{tensor.name}' {what}, which cannot be commanded here: {TARGET} can",
                REFUSED,
            )
    if len(outputs) > 1:
        raise ExportError(f"{where}: has {len(outputs)} outputs of kind {TARGET}, and one is served", REFUSED)
    return outputs[0]


def _chunk(info: TensorInfo, graph: Path) -> tuple[int, int]:
    if (
        len(info.shape) != 3
        or info.shape[0] not in (1, None)
        or info.shape[1] is None
        or info.shape[2] is None
    ):
        raise ExportError(
            f"{graph}: its output '{info.name}' must be a chunk (1, rows, joints), got {info.shape}: export it with an axis of"
            " rows, one for a policy that gives one row",
            REFUSED,
        )
    return info.shape[1], info.shape[2]


def _rate(
    target: _Tensor, rows: int, pipeline: JsonFields, options: ImportOptions, where: str
) -> dict[str, Any]:
    """Return `frequency_hz`: of the rows by their temporal axis; of a policy of one row by the rate that it is run at."""
    rate = None
    if target.period_ms is not None:
        rate = 1000 / target.period_ms
    elif rows == 1 and pipeline.fields("configs", optional=True).get("frequency") is not None:
        rate = pipeline.fields("configs").number("frequency", 1e-6, 1000)
    if rate is None:
        return {}
    if options.fps is not None and abs(options.fps - rate) > 1e-6 * rate:
        raise ExportError(
            f"{where}: its rows are due at {rate:g} Hz, and --fps says {options.fps:g}", REFUSED
        )
    return {"frequency_hz": rate}


def _slot(info: TensorInfo, options: ImportOptions, where: str) -> dict[str, Any]:
    if len(info.shape) != 4 or _COLOURS not in (info.shape[-1], info.shape[1]):
        raise ExportError(
            f"{where}: image '{info.name}' must be (1, height, width, 3), got {info.shape}", REFUSED
        )
    whole = info.dtype.__name__ == "uint8"
    if not whole and options.image_range is None:
        raise ExportError(
            f"{where}: says not in which range the pixels of '{info.name}' are: name it with --image-range 0,1 or 0,255",
            MISSING,
        )
    low, high = (0.0, 255.0) if whole or options.image_range is None else options.image_range
    last = info.shape[-1] == _COLOURS
    height, width = info.shape[1:3] if last else info.shape[2:]
    exact = {"size": "exact", "height": height, "width": width} if None not in (height, width) else {}
    return {
        "camera": info.name, "input": info.name, "mask": None, "layout": "nhwc" if last else "nchw", "range": [low, high], **exact,
    }  # fmt: skip


def _state(state: _Tensor | None, graph: GraphFile, options: ImportOptions, where: str) -> dict[str, Any]:
    if state is None:
        return {}
    shape = graph.inputs[state.name].shape
    width = shape[-1] if shape else None
    if width is None:
        raise ExportError(f"{where}: the graph's input '{state.name}' has no width that is known", MISSING)
    names = joint_names(
        where, "numbers of the state", "--state-names", state.names, options.state_names, width
    )
    return {"state": {"input": state.name, "names": names}}


def _initial_values(
    folder: Path, pipeline: JsonFields, model: str, inputs: list[_Tensor], where: str
) -> dict[str, Any]:
    """Return the inputs that keep the value they begin with, as nothing outside or inside the bundle changes it."""
    if pipeline.get("initial_values") is None:
        return {}
    path = inside(folder, pipeline["initial_values"], where, "its initial values")
    if path.stat().st_size > _MOST_STATE_BYTES:
        raise ExportError(f"{path}: must have at most {_MOST_STATE_BYTES} bytes", REFUSED)
    outside = pipeline.fields("inputs", optional=True).names(model, ())
    free = {tensor.name for tensor in inputs if tensor.name not in outside}
    found: dict[str, Any] = {}
    try:
        with safe_open(str(path), framework="np") as tensors:
            for key in tensors.keys():  # noqa: SIM118  (not a mapping)
                node, _, name = key.partition("/")
                if node != model or name not in free:
                    raise ValueError(f"{shown(key)} is no input that nothing else gives")
                found[name] = tensors.get_tensor(key).tolist()
    except (OSError, SafetensorError, TypeError, ValueError, AttributeError) as error:
        raise ExportError(f"{path}: not usable as initial values: {error}", REFUSED) from error
    return found
