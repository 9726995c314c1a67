# SPDX-License-Identifier: Apache-2.0
"""The contract of an export: which inputs carry images, language and state, and how its flow runs.

`read_contract` turns reflex_config.json (docs/reference/exports.md) and the graphs' own names and shapes into one checked value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from reflex_core.errors import ExportError
from reflex_core.export.action_space import ActionColumn, read_action_space, tool_of
from reflex_core.export.batch import ONE, read_batch
from reflex_core.export.chunk import count, read_chunk, require_floats
from reflex_core.export.config_schema import PLAIN_RTC, CacheRule, RtcBlock, read_cache_rule, read_rtc_block
from reflex_core.export.constant_inputs import Constants, read_constants
from reflex_core.export.export import Export
from reflex_core.export.families import PADDED_WIDTH, Config, is_padded
from reflex_core.export.flow import Adaptive, Flow
from reflex_core.export.image_slots import ImageSlot, read_images
from reflex_core.export.prompt import LanguageSlot, read_prompt, read_window
from reflex_core.export.relative import read_mask
from reflex_core.export.sampler_table import SamplerTable
from reflex_core.export.state_space import StateSpace, read_state_space
from reflex_core.export.tensor import TensorInfo
from reflex_core.files.json_fields import JsonFields, refusing

SLOWEST_HZ = 1e-6  # of rows; below it the time between two of them is no number

Graphs = Mapping[str, Mapping[str, TensorInfo]]  # role -> input name -> info


@dataclass(frozen=True, slots=True)
class StateSlot:
    """Where the state enters: a graph input padded to `width`, or, with input None, the prompt in `bins` steps.

    With neither, the network does not see it, and its actions start from it. pad: how many numbers the prompt has at
    least, the missing ones as zeros. lead: the axes of the input before its width: (), (1,), (1, 1), or (1, observations).
    steps: how many observations it holds, oldest first; None where it has no such axis and takes the newest one. space: which
    numbers are a tool's pose or joints of another name; None where the export does not say.
    """

    input: str | None
    width: int
    bins: int
    names: tuple[str, ...]
    pad: int = 0
    lead: tuple[int, ...] = (1,)
    steps: int | None = None
    space: StateSpace | None = None


@dataclass(frozen=True, slots=True)
class Contract:
    """The checked configuration of an export, as the policy uses it.

    observation_steps: how many observations, one control period apart, the network sees, the newest one included.
    constants: graph inputs that are always the same. batch: sizes that every row was verified at.
    horizon, width: of the network's chunk. flow: its `steps` are the network calls of one inference, whatever the kind; the
    times are of flow matching alone. sampler: what samples in place of Euler steps, None for those. first_row: the first row
    of the chunk that is served; those before it are of the past. n_action_steps: how many rows the policy was made to execute
    before its next inference, None where the export does not say. temporal_ensemble_coeff: of the weights with which the chunks
    of an episode are averaged, None where they are not. relative: which of the actions are offsets from the state;
    () where none is. action_space: how each of the actions is counted; () where the export does not say.
    """

    images: tuple[ImageSlot, ...]
    language: LanguageSlot | None
    state: StateSlot | None
    flow: Flow
    flow_names: Mapping[str, str]
    links: Mapping[str, str]
    horizon: int
    width: int
    action_dim: int
    action_names: tuple[str, ...]
    frequency_hz: float | None
    adaptive: Adaptive | None = None
    prefix_cache: CacheRule | None = None
    rtc: RtcBlock = PLAIN_RTC
    relative: tuple[bool, ...] = ()
    action_space: tuple[ActionColumn, ...] = ()
    observation_steps: int = 1
    constants: Constants = field(default_factory=dict)
    batch: tuple[int, ...] = ONE
    sampler: SamplerTable | None = None
    first_row: int = 0
    n_action_steps: int | None = None
    temporal_ensemble_coeff: float | None = None

    @property
    def described(self) -> set[str]:
        """The graph inputs that are made from an observation, and the constant ones."""
        names = {slot.input for slot in self.images}
        names |= {slot.mask for slot in self.images if slot.mask}
        if self.language is not None:
            names |= {self.language.tokens, self.language.mask or self.language.tokens}
        if self.state is not None and self.state.input:
            names.add(self.state.input)
        if "positions" in self.flow_names:
            names.add(self.flow_names["positions"])
        return names | set(self.constants)

    @property
    def rows(self) -> int:
        """How many rows of the network's chunk can be served."""
        return self.horizon - self.first_row

    @property
    def fused(self) -> bool:
        """True when the whole denoise loop is inside the graph."""
        return "noise" in self.flow_names


def read_contract(
    export: Export, config: Config, graphs: Graphs, outputs: Mapping[str, TensorInfo]
) -> Contract:
    """Check the description against the graphs. outputs: of the last graph.

    Raises ExportError naming file, key, expected and got.
    """
    return _Reading(export, config, graphs, outputs).contract()


class _Reading:
    """One reading of one export, so that every complaint can name the file."""

    def __init__(
        self, export: Export, config: Config, graphs: Graphs, outputs: Mapping[str, TensorInfo]
    ) -> None:
        self.fail = refusing(str(export.config_path), ExportError)
        self._export = export
        self._config, self._outputs = config, outputs
        self._inputs: dict[str, TensorInfo] = {}
        for inputs in graphs.values():
            self._inputs |= inputs

    def block(self, key: str) -> JsonFields:
        return JsonFields(self._config.get(key) or {}, self.fail, key)

    def is_input(self, name: Any) -> bool:
        return isinstance(name, str) and name in self._inputs

    def count(self, holder: Mapping[str, Any], key: str, fallback: int | None = None) -> int:
        return count(holder, key, self.fail, fallback)

    def names(self, key: str, value: Any) -> tuple[str, ...]:
        if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
            raise self.fail(key, "a list of names", value)
        if len(set(value)) != len(value):
            raise self.fail(key, "different names", value)
        return tuple(value)

    def contract(self) -> Contract:
        chunk = read_chunk(self._config, self._export.config, self._inputs, self._outputs, self.fail)
        action_dim = self.action_dim(chunk.width)
        action_names = self.names("action_names", self._config.get("action_names", []))
        if action_names and len(action_names) != action_dim:
            raise self.fail("action_names", f"{action_dim} names, one per action dimension", action_names)
        relative = read_mask(self._export, self._config, action_dim, action_names, self.fail)
        says = "relative_actions" in self._config or self._export.processors is not None
        space = read_action_space(
            self._config, action_dim, action_names, relative if says else None, self.fail
        )
        starts = bool(relative) or any(column.starts for column in space)
        observations = self.count(self._config, "observation_steps", 1)
        found = Contract(
            images=read_images(self._config.get("images", []), self._inputs, self.fail, observations),
            language=self.language(),
            # what starts from a tool's pose starts from no number of its own name
            state=self.described_state(
                action_names if starts and tool_of(space) is None else (), observations, starts=starts
            ),
            flow=chunk.flow,
            flow_names=chunk.names,
            links={str(key): str(value) for key, value in self.block("links").items()},
            horizon=chunk.horizon,
            width=chunk.width,
            action_dim=action_dim,
            action_names=action_names,
            frequency_hz=self.frequency(),
            adaptive=self.adaptive(),
            prefix_cache=read_cache_rule(self.block("prefix_cache")),
            rtc=read_rtc_block(self.block("rtc"), chunk.flow.end),
            relative=relative,
            action_space=space,
            observation_steps=observations,
            sampler=chunk.sampler,
            first_row=chunk.first_row,
            n_action_steps=chunk.n_action_steps,
            temporal_ensemble_coeff=chunk.temporal_ensemble_coeff,
        )
        self.check_history(found)
        fed = {*found.described, *chunk.names.values()}
        constants = read_constants(self.block("constants"), self._inputs, fed)
        start = {chunk.names.get(key, "") for key in ("noise", "x")}
        rows = {name: self._inputs[name] for name in found.described | start if name in self._inputs}
        return replace(found, constants=constants, batch=read_batch(self.block("batch"), rows))

    def check_history(self, found: Contract) -> None:
        """Raise where several observations are asked for and no input of the graphs takes more than one."""
        takes = any(slot.steps for slot in found.images) or bool(found.state and found.state.steps)
        if found.observation_steps > 1 and not takes:
            raise self.fail(
                "observation_steps", "1, as no input of the graphs has an axis of observations",
                found.observation_steps,
            )  # fmt: skip

    def known(self) -> str:
        return ", ".join(sorted(self._inputs))[:300]

    def action_dim(self, width: int) -> int:
        statistics = self._export.action_statistics
        declared = self.count(self._config, "action_dim", width)
        # padded families write the padded width; the statistics know the robot's
        padded = declared == width and is_padded(self._export.config, width)
        dim = statistics.dim if statistics is not None and padded else declared
        if dim > width:
            raise self.fail("action_dim", f"at most {width}, the width of the graph's actions", dim)
        if statistics is not None and statistics.dim not in (dim, width):
            raise self.fail(
                "normalization.action", f"{dim} numbers, one per action dimension", statistics.dim
            )
        return dim

    def adaptive(self) -> Adaptive | None:
        """Read when the loop may stop early; None where it has not been measured."""
        block = self.block("adaptive")
        if not block:
            return None
        threshold = block.number("threshold", 0, 10)
        if not threshold:
            raise block.refusal("threshold", "a number in (0, 10]")
        block.fields("measured", optional=True)
        return Adaptive(threshold, self.count(block, "min_steps"), self.count(block, "patience", fallback=1))

    def frequency(self) -> float | None:
        if self._config.get("frequency_hz") is None:
            return None
        return JsonFields(self._config, self.fail).number("frequency_hz", SLOWEST_HZ, 1000)

    def language(self) -> LanguageSlot | None:
        block = self.block("language")
        tokens = block.get("tokens")
        if not self.is_input(tokens):
            if self._export.config.get("language") is not None:
                raise self.fail("language.tokens", f"an input of the graphs ({self.known()})", tokens)
            return None
        mask = block.get("mask")
        if mask is not None and not self.is_input(mask):
            raise self.fail("language.mask", f"an input of the graphs ({self.known()})", mask)
        info = self._inputs[str(tokens)]
        if not info.shape:
            raise self.fail("language.tokens", "a (1, length) input", info.shape)
        if info.dtype not in (
            np.int64,
            np.int32,
            np.float32,
            np.float64,
        ):  # the others do not hold every token
            raise self.fail("language.tokens", "an input of int64 or int32", np.dtype(info.dtype))
        length = self.count({"length": info.shape[-1]} if info.shape[-1] else block, "length")
        if block.get("length", length) != length:
            raise self.fail(
                "language.length", f"{length}, as the graph's input '{tokens}' has", block["length"]
            )
        prompt = read_prompt(block)
        window = read_window(block, length)
        return LanguageSlot(str(tokens), mask, length, self.tokenizer(block), prompt, **window)

    def tokenizer(self, block: Mapping[str, Any]) -> str:
        """Return the tokenizer file: `language.tokenizer`, or where the known exporters put it."""
        declared = block.get("tokenizer")
        if declared:
            self._export.file(str(declared), "the tokenizer")
            return str(declared)
        folder = str(self._config.get("tokenizer_path") or "tokenizer")
        for name in (f"{folder}/tokenizer.json", "tokenizer/tokenizer.json", "tokenizer.json"):
            if (self._export.path / name).is_file():
                self._export.file(name, "the tokenizer")  # refuses what lies outside
                return name
        self._export.file("tokenizer.json", "the tokenizer of its language input")
        raise AssertionError("unreachable")

    def described_state(self, names: tuple[str, ...], observations: int, *, starts: bool) -> StateSlot | None:
        """Read `state` as a whole: where it enters, and what its numbers are."""
        slot = self.state(names, observations, starts=starts)
        if slot is None:
            return None
        return replace(slot, space=read_state_space(self.block("state"), slot.names, slot.width))

    def state(self, names: tuple[str, ...], observations: int, *, starts: bool) -> StateSlot | None:
        """Read the state input; None where there is none.

        names: of its numbers where the export does not name them. observations: how many of them an input with such an axis
        holds. starts: the actions are offsets from it.
        """
        block = self.block("state")
        statistics = self._export.state_statistics
        if block.get("names") or (statistics is not None and statistics.dim != len(names)):
            names = self.names("state.names", block.get("names", []))
        template = str(self.block("language").get("template", ""))
        if ("{state}" in template) != (block.get("enters") == "prompt"):
            raise self.fail(
                "state.enters", "'prompt' exactly where language.template holds {state}", block.get("enters")
            )
        if block.get("enters") == "prompt":
            width = statistics.dim if statistics is not None else PADDED_WIDTH
            pad = self.count(block, "pad") if block.get("pad") else 0
            return StateSlot(None, width, self.count(block, "bins", 256), names, pad)
        name = block.get("input")
        if not self.is_input(name):
            if name == "state" and "vision" in self.block("graphs"):
                # the vlm stack takes it through a projection of its own
                return StateSlot("state", PADDED_WIDTH, 0, names)
            written = self._export.config.get("state")
            if written is not None and not isinstance(written, Mapping):
                raise self.fail("state", "an object", written)
            if written is not None and not (starts and "input" not in written):
                raise self.fail("state.input", f"an input of the graphs ({self.known()})", name)
            return StateSlot(None, PADDED_WIDTH, 0, names) if starts else None
        shape = self._inputs[str(name)].shape
        require_floats("state.input", self._inputs[str(name)], self.fail)
        lead, steps = self.state_lead(self._inputs[str(name)], observations)
        width = self.count({"width": shape[-1]} if shape[-1] else block, "width")
        if statistics is not None and statistics.dim > width:
            raise self.fail(
                "normalization.state", f"at most {width} numbers, the graph's state width", statistics.dim
            )
        return StateSlot(str(name), width, 0, names, lead=lead, steps=steps)

    def state_lead(self, info: TensorInfo, observations: int) -> tuple[tuple[int, ...], int | None]:
        """Return the axes of the state input before its width, and its number of observations."""
        leads: tuple[tuple[int, ...], ...] = ((), (1,), (1, observations))
        lead = leads[len(info.shape) - 1] if 1 <= len(info.shape) <= len(leads) else None
        if lead is None or not replace(info, shape=info.shape[:-1]).takes(lead):
            ranks = f"(width), (1, width) or (1, {observations}, width)"
            raise self.fail(
                "state.input", f"an input of shape {ranks}, as observation_steps says", info.shape
            )
        return lead, observations if len(lead) == 2 else None
