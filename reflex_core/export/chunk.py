# SPDX-License-Identifier: Apache-2.0
"""What an export says of its network's chunk: which tensor it is or starts from, how it is sampled, which rows count."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from reflex_core.export.families import DETERMINISTIC, DIFFUSION, Config, kind_of, row_of
from reflex_core.export.flow import Flow, read_flow
from reflex_core.export.sampler_table import SamplerTable, check_times, read_sampler
from reflex_core.export.tensor import TensorInfo
from reflex_core.files.json_fields import JsonFields, Refuse, is_whole

# beyond these a number is a mistake, or a way to fill the memory; the others have 1000
MOST = {"width": 10_000, "length": 10_000, "bins": 65_536, "observation_steps": 64}

MOST_COEFFICIENT = 10.0  # of temporal ensembling: beyond it one prediction has all the weight

Tensors = Mapping[str, TensorInfo]


@dataclass(frozen=True, slots=True)
class Chunk:
    """The chunk of an export: the fields of Contract of the same names. names: `flow_names` there."""

    names: Mapping[str, str]
    horizon: int
    width: int
    flow: Flow
    sampler: SamplerTable | None
    first_row: int
    n_action_steps: int | None
    temporal_ensemble_coeff: float | None


def read_chunk(
    config: Config, written: Mapping[str, Any], inputs: Tensors, outputs: Tensors, fail: Refuse
) -> Chunk:
    """Return the checked chunk.

    Args:
        config: With all defaults.
        written: What the export itself writes.
        inputs: Of all graphs.
        outputs: Of the last graph.
        fail: Makes the error of (key, expected, got).
    """
    names = _names(config, outputs, fail)
    horizon, width = _shape(config, _tensor(config, names, inputs, outputs, fail), fail)
    sampler = _sampler(config, written, names, inputs, fail)
    first_row = _whole(config, "first_row", 0, horizon - 1, fail) or 0
    n_action_steps = _whole(config, "n_action_steps", 1, horizon - first_row, fail)
    ensemble = config.get("temporal_ensemble_coeff")
    if ensemble is not None:
        ensemble = JsonFields(config, fail).number(
            "temporal_ensemble_coeff", -MOST_COEFFICIENT, MOST_COEFFICIENT
        )
    return Chunk(
        names,
        horizon,
        width,
        _flow(config, sampler, inputs, fail),
        sampler,
        first_row,
        n_action_steps,
        ensemble,
    )


def count(holder: Mapping[str, Any], key: str, fail: Refuse, fallback: int | None = None) -> int:
    """Return a positive integer. Raises fail's error for one that is none, or that is beyond all reason."""
    value, most = holder.get(key, fallback), MOST.get(key, 1000)
    if not is_whole(value, 1, most):
        raise fail(key, f"a positive integer up to {most}", value)
    return value


def require_floats(key: str, info: TensorInfo, fail: Refuse, what: str = "an input that takes") -> None:
    """Raise fail's error where a graph would truncate radians or noise to integers."""
    if not issubclass(info.dtype, np.floating):
        raise fail(key, f"{what} floating-point numbers", f"{info.name}: {np.dtype(info.dtype)}")


def _is_deterministic(config: Config) -> bool:
    return kind_of(config) == DETERMINISTIC


def _names(config: Config, outputs: Tensors, fail: Refuse) -> dict[str, str]:
    """Return the graph's name of every tensor of the flow; of a deterministic policy that of the chunk alone."""
    block = JsonFields(config.get("flow") or {}, fail, "flow")
    if not _is_deterministic(config):
        return {key: str(value) for key, value in block.items() if isinstance(value, str)}
    for key in ("flow", "sampler"):
        if config.get(key):
            raise fail(key, f"left out, as a {DETERMINISTIC} policy has no noise", config[key])
    output = config.get("actions_output")
    if not isinstance(output, str) or output not in outputs:
        raise fail("actions_output", f"an output of the graph ({_known(outputs)})", output)
    return {"actions": output}


def _tensor(
    config: Config, names: Mapping[str, str], inputs: Tensors, outputs: Tensors, fail: Refuse
) -> TensorInfo:
    """Return the input that a chunk starts from, or the output that it is."""
    if _is_deterministic(config):
        return outputs[names["actions"]]
    start = names.get("noise") or names.get("x") or ""
    if start not in inputs:
        raise fail("flow", f"naming an input of the graphs ({_known(inputs)})", start)
    return inputs[start]


def _known(tensors: Tensors) -> str:
    return ", ".join(sorted(tensors))[:300]


def _shape(config: Config, info: TensorInfo, fail: Refuse) -> tuple[int, int]:
    """Return (horizon, width) of the chunk."""
    made = _is_deterministic(config)
    key, role = ("actions_output", "output") if made else (f"flow ({info.name})", "input")
    if len(info.shape) != 3:
        raise fail(key, f"a (1, horizon, action) {role}", info.shape)
    require_floats(key, info, fail, "an output of" if made else "an input that takes")
    declared = config.get("chunk_size") or config.get("action_chunk_size")
    horizon = info.shape[1] or count({"chunk_size": declared}, "chunk_size", fail)
    if declared is not None and declared != horizon:
        raise fail("chunk_size", f"{horizon}, as the graph's {role} '{info.name}' has", declared)
    width = info.shape[2] or count(config, "action_dim", fail)
    count({"chunk_size": horizon}, "chunk_size", fail)
    return horizon, count({"action_dim": width}, "action_dim", fail)


def _sampler(
    config: Config, written: Mapping[str, Any], names: Mapping[str, str], inputs: Tensors, fail: Refuse
) -> SamplerTable | None:
    """Return the table that samples; None for Euler steps, for a loop inside the graph, and where nothing is sampled."""
    block = config.get("sampler")
    if block is None:
        if kind_of(config) == DIFFUSION:
            raise fail("sampler", f"an object with 'columns' and 'rows', as a {DIFFUSION} policy has", None)
        return None
    if "noise" in names:
        raise fail("sampler", "left out where 'flow.noise' names the input of a loop inside the graph", block)
    table = read_sampler(JsonFields(block, fail, "sampler"), written.get("num_denoising_steps"), fail)
    time = inputs.get(names.get("time", ""))
    if time is not None:
        check_times(table, time, fail)
    return table


def _flow(config: Config, sampler: SamplerTable | None, inputs: Tensors, fail: Refuse) -> Flow:
    if sampler is not None:
        return Flow(steps=len(sampler.rows))
    if _is_deterministic(config):
        if config.get("num_denoising_steps") not in (0, 1):
            expected = f"left out, as a {DETERMINISTIC} policy has no denoise steps"
            raise fail("num_denoising_steps", expected, config.get("num_denoising_steps"))
        return Flow(steps=1)
    block = JsonFields(config.get("flow") or {}, fail, "flow")
    time = None if isinstance(block.get("noise"), str) else inputs.get(str(block.get("time")))
    steps = count(config, "num_denoising_steps", fail)
    return read_flow(block, steps, time, row_of(config).time_buckets, fail)


def _whole(config: Config, key: str, low: int, high: int, fail: Refuse) -> int | None:
    """Return a whole number from `low` to `high`, None where the export writes none."""
    return None if config.get(key) is None else JsonFields(config, fail).whole(key, low, high)
