# SPDX-License-Identifier: Apache-2.0
"""Read a `policy_package` (manifest.json of LeRobot and of Intel's physicalai) as one of our exports.

Source of the format: physicalai 0.3.0, inference/manifest.py. The graph's own names and shapes say what it takes; the manifest
says what is done before and after it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from reflex_core.errors import ExportError
from reflex_core.export.families import DETERMINISTIC, FLOW_MATCHING
from reflex_core.export.tensor import TensorInfo
from reflex_core.files.json_fields import JsonError, JsonFields, read_object, refusing
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
from reflex_export.importing.graph_file import ONNX, GraphFile, read_graph
from reflex_export.importing.language import language_block
from reflex_export.importing.package_images import image_slots
from reflex_export.importing.package_statistics import statistics_block
from reflex_export.importing.package_steps import Scaled, Steps, read_steps, scaling_of

MANIFEST = "manifest.json"
FORMAT = "policy_package"
_MODEL_KEYS = (
    "n_obs_steps", "runner", "artifacts", "preprocessors", "postprocessors", "callbacks", "input_features", "output_features",
)  # fmt: skip
_STATES = ("state", "observation.state")
_ACTIONS = ("action", "actions")
_NOISE = "noise"  # an input that a flow policy with its loop inside the graph starts from
STEPS_IN_GRAPH = 10  # of a loop inside a graph, which nothing says; it only counts what replies report


def is_policy_package(folder: Path) -> bool:
    """Return whether a folder holds the manifest of a policy_package. Raises ExportError for a manifest that cannot be read."""
    file = folder / MANIFEST
    try:
        return read_object(file).get("format") == FORMAT
    except OSError:
        return False
    except JsonError as error:
        raise ExportError(f"{file}: {error}", REFUSED) from error


def read_policy_package(folder: Path, options: ImportOptions) -> Found:
    """Describe the package. Raises ExportError for everything that cannot be served as it was meant, and for what is missing."""
    file = folder / MANIFEST
    where = str(file)
    manifest = _manifest(file)
    model = manifest.fields("model").only(_MODEL_KEYS)
    steps = read_steps(folder, model, where)
    graph = read_graph(folder, _artifact(model), where)
    action = _action(graph, where)
    rows, width = action.shape[1] or steps.chunk, action.shape[2]
    if rows is None or width is None:
        raise ExportError(
            f"{graph.path}: its actions have the shape {action.shape}, and nothing says their size", MISSING
        )
    if steps.chunk not in (None, 1, rows):
        raise ExportError(
            f"{where}: its runner has a chunk_size of {steps.chunk}, the graph makes {rows} rows", REFUSED
        )
    robots = _robot(manifest)
    images, taken = image_slots(graph, manifest, steps, where)
    state = next((graph.inputs[name] for name in _STATES if name in graph.inputs), None)
    language, words = language_block(graph, steps, folder, options.tokenizer, where)
    fed = {slot["input"] for slot in images} | {
        language[key] for key in ("tokens", "mask") if language.get(key)
    }
    fed |= {state.name} if state is not None else set()
    noise = graph.inputs.get(_NOISE)
    _check_fed(graph, fed | ({_NOISE} if noise is not None else set()), where)
    names = joint_names(where, "actions", "--names", _order(robots, "action"), options.names, width)
    robot, granted = about_robot(options, names)
    config = {
        "model_id": _model_id(manifest, folder),
        "model_type": FORMAT,
        "export_kind": "monolithic",
        "graphs": {"monolithic": graph.path.name},
        **_kind(noise, action.name),
        "chunk_size": rows,
        "action_dim": width,
        "action_names": names,
        **({"n_action_steps": min(steps.rows, rows)} if steps.rows is not None else {}),
        **_observations(model),
        **robot,
        "images": images,
        "language": language or None,
        "state": _state(state, robots, names, options, where),
        "normalization": _normalization(steps, state, action, width, {slot["input"] for slot in images}),
        "source": {"type": FORMAT, "version": manifest["version"], "verified": False},
    }
    granted += taken + _notes(steps, noise, graph, action.name)
    read = (f"{FORMAT} {manifest['version']}", f"steps: {', '.join(steps.applied) or 'none'}")
    files = {**graph.files, **words}
    return Found(
        {key: value for key, value in config.items() if value is not None}, files, read, tuple(granted)
    )


def _manifest(file: Path) -> JsonFields:
    try:
        manifest = JsonFields(read_object(file), refusing(str(file), ExportError))
    except JsonError as error:
        raise ExportError(f"{file}: {error}", REFUSED) from error
    version = manifest.text("version", "1.0")
    if version.split(".")[0] != "1":
        raise manifest.refusal("version", "1.x, the format that is known here")
    return JsonFields({"version": version, **manifest}, refusing(str(file), ExportError))


def _model_id(manifest: JsonFields, folder: Path) -> str:
    return manifest.fields("policy", optional=True).text("name", "") or folder.resolve().name


def _artifact(model: JsonFields) -> str:
    """Return the file of the one ONNX graph; another runtime's model where there is none, so that its kind is refused."""
    artifacts = model.fields("artifacts", optional=True)
    files = [artifacts.text(key, expected="the name of a file") for key in artifacts]
    graphs = [name for name in files if name.lower().endswith(ONNX)]
    if len(graphs) > 1:
        raise artifacts.refusal(
            "onnx", "the only graph, as policies of several graphs are not imported", graphs
        )
    if not files:
        raise model.refusal("artifacts", 'an object that names the model, such as {"onnx": "model.onnx"}')
    return graphs[0] if graphs else files[0]


def _action(graph: GraphFile, where: str) -> TensorInfo:
    outputs = graph.outputs
    found = next((outputs[name] for name in _ACTIONS if name in outputs), None)
    if found is None and len(outputs) == 1:
        found = next(iter(outputs.values()))
    if found is None:
        raise ExportError(
            f"{where}: none of the graph's outputs is called action: {', '.join(outputs)[:200]}", REFUSED
        )
    if len(found.shape) != 3 or found.shape[0] not in (1, None):
        raise ExportError(
            f"{graph.path}: its output '{found.name}' must be a chunk (1, rows, actions), got {found.shape}",
            REFUSED,
        )
    return found


def _robot(manifest: JsonFields) -> JsonFields:
    hardware = manifest.fields("hardware", optional=True)
    robots = hardware.get("robots") or []
    if not isinstance(robots, list) or len(robots) > 1:
        raise hardware.refusal("robots", "a list of one robot, as one is served")
    return JsonFields(robots[0] if robots else {}, hardware.refusal, "robots[0]")


def _order(robot: JsonFields, what: str) -> tuple[str, ...]:
    block = robot.fields(what, optional=True)
    return block.names("order") if block.get("order") else ()


def _check_fed(graph: GraphFile, fed: set[str], where: str) -> None:
    if unknown := [name for name in graph.inputs if name not in fed]:
        raise ExportError(
            f"{where}: nothing says what the graph's input {shown(unknown[0])} {graph.inputs[unknown[0]].shape} is:"
            " images, a state, tokens and start noise are known",
            REFUSED,
        )


def _kind(noise: TensorInfo | None, output: str) -> dict[str, Any]:
    if noise is None:
        return {"policy": DETERMINISTIC, "actions_output": output}
    return {
        "policy": FLOW_MATCHING, "flow": {"noise": noise.name, "actions": output}, "num_denoising_steps": STEPS_IN_GRAPH,
    }  # fmt: skip


def _observations(model: JsonFields) -> dict[str, Any]:
    steps = model.whole("n_obs_steps", 1, 1000, 1)
    return {"observation_steps": steps} if steps > 1 else {}


def _state(
    state: TensorInfo | None, robot: JsonFields, actions: list[str], options: ImportOptions, where: str
) -> dict[str, Any] | None:
    if state is None:
        return None
    width = state.shape[-1] if state.shape else None
    if width is None:
        raise ExportError(f"{where}: the graph's input '{state.name}' has no width that is known", MISSING)
    order, given = _order(robot, "state"), options.state_names
    if not order and not given and width == len(actions):
        return {"input": state.name, "names": actions}
    return {
        "input": state.name,
        "names": joint_names(where, "numbers of the state", "--state-names", order, given, width),
    }


def _normalization(
    steps: Steps, state: TensorInfo | None, action: TensorInfo, width: int, images: set[str]
) -> dict[str, Any]:
    blocks: dict[str, Any] = {"state": {"mode": IDENTITY}, "action": {"mode": IDENTITY}}
    if state is not None and (found := scaling_of(steps.before, (state.name,))) is not None:
        scaled, feature = found
        size = state.shape[-1] or 0
        blocks["state"] = statistics_block(scaled.table[feature], scaled.mode, size, scaled.where, feature)
    if (found := scaling_of(steps.after, (action.name, *_ACTIONS))) is not None:
        scaled, feature = found
        blocks["action"] = statistics_block(scaled.table[feature], scaled.mode, width, scaled.where, feature)
    _check_features(steps.before, {*images, *([state.name] if state is not None else [])})
    _check_features(steps.after, {action.name, *_ACTIONS})
    return blocks


def _check_features(scalings: list[Scaled], known: set[str]) -> None:
    for scaled in scalings:
        if unknown := [name for name in scaled.features if name not in known]:
            raise ExportError(
                f"{scaled.where}: the graph has no {shown(unknown[0])} that could be scaled; it has"
                f" {', '.join(sorted(known))}",
                REFUSED,
            )
        if lacks := [
            name for name in scaled.features if scaled.mode != IDENTITY and name not in scaled.table
        ]:
            raise ExportError(
                f"{scaled.where}: its statistics hold nothing of {shown(lacks[0])}", "bad-statistics"
            )


def _notes(steps: Steps, noise: TensorInfo | None, graph: GraphFile, output: str) -> list[str]:
    notes = []
    if not steps.before:
        notes.append("no step normalises: the graph takes the state as it is")
    if not steps.after:
        notes.append("no step un-normalises: the graph gives actions in the robot's units")
    if noise is not None:
        notes.append(f"the loop in the graph counts as {STEPS_IN_GRAPH} denoise steps")
    if others := [name for name in graph.outputs if name != output]:
        notes.append(f"outputs that are not read: {', '.join(others)[:200]}")
    return notes
