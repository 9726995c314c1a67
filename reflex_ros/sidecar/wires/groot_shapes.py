# SPDX-License-Identifier: Apache-2.0
"""Observations and actions in the shapes of Isaac-GR00T: keys in groups, one more axis for the time steps, one for the batch.

N1.5 names its keys `video.front`, `state.arm` and `annotation.human.task_description`; N1.6 and N1.7 put the first two in
maps `video` and `state`, and the third as it is in a map `language`. Here they have the names of N1.5, so that one
`wire_keys` is for all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from reflex_core.errors import ObservationError
from reflex_core.export.binding import UNMEASURED, Binding
from reflex_core.text.untrusted import escaped
from reflex_core.values import Floats
from reflex_ros.sidecar.wires.numpy_tags import Array

VIDEO, STATE, LANGUAGE, ACTION = "video", "state", "language", "action"
INSTRUCTION = "annotation.human.task_description"
# axes of one time step
AXES = {VIDEO: 3, STATE: 1}
ALONE = "single_arm"  # the group of a robot that has none, as NVIDIA's own examples call it
REST = "rest"  # columns that no key of the state measures, of a group without a name
MOST_KEYS = 256


@dataclass(frozen=True, slots=True)
class Shaped:
    """An observation. steps: its time steps as flat maps, oldest first; nested: its keys were in maps; batched: with that axis."""

    steps: tuple[dict[str, Any], ...]
    nested: bool
    batched: bool

    def sizes(self) -> dict[str, int]:
        """Return how many numbers each key of the newest step holds."""
        return {
            key: int(value.size) for key, value in self.steps[-1].items() if isinstance(value, np.ndarray)
        }


def shaped(observation: Mapping[Any, Any], most_steps: int) -> Shaped:
    """Return an observation by time steps. Raises ObservationError for a batch of several, and for more steps than these."""
    by_key: dict[str, list[Any]] = {}
    nested = batched = False
    for group, key, value, within in _entries(observation):
        if len(by_key) >= MOST_KEYS:
            raise ObservationError(f"an observation must have at most {MOST_KEYS} values", "bad-body")
        nested = nested or within
        if group in AXES and isinstance(value, np.ndarray):
            batched = batched or value.ndim > AXES[group] + 1
            by_key[key] = _array_steps(key, value, AXES[group], most_steps)
        elif isinstance(value, list | tuple):
            by_key[key] = _text_steps(key, value)
        elif not isinstance(value, np.ndarray) or value.ndim < AXES[VIDEO]:  # what is no video is no image
            by_key[key] = [value]
    count = max((len(values) for values in by_key.values()), default=1)
    steps = tuple(
        {key: values[-back] for key, values in by_key.items() if len(values) >= back}
        for back in range(count, 0, -1)
    )
    return Shaped(steps, nested, batched)


def _entries(observation: Mapping[Any, Any]) -> Iterator[tuple[str, str, Any, bool]]:
    """Yield (group, key as N1.5 has it, value, whether it was in a map)."""
    for name, value in observation.items():
        group = _text(name)
        if isinstance(value, dict):
            for inner, item in value.items():
                key = _text(inner)
                yield group, key if group == LANGUAGE else f"{group}.{key}", item, True
        else:
            yield group.partition(".")[0], group, value, False


def _array_steps(key: str, value: Array, axes: int, most: int) -> list[Array]:
    """Return the time steps of an array of `axes` axes each, with or without axes for time and batch before them."""
    if value.ndim > axes + 1:
        if value.ndim != axes + 2 or value.shape[0] != 1:
            raise ObservationError(
                f"'{escaped(key)}' must be of one robot, (1, time, ...), got an array of shape {value.shape}",
                "bad-batch",
            )
        value = value[0]
    if value.ndim <= axes:
        return [value.reshape(-1) if axes == 1 else value]
    if not 0 < len(value) <= most:  # an axis may be long and cost nothing on the wire
        raise ObservationError(
            f"'{escaped(key)}' must have 1 to {most} time steps, as get_modality_config says, got shape {value.shape}",
            "bad-history",
        )
    return list(value)


def _text_steps(key: str, value: Sequence[Any]) -> list[Any]:
    """Return the newest of texts in a list, or in a list for each robot of a batch; other lists as they are."""
    if value and isinstance(value[0], list | tuple):
        if len(value) > 1:
            raise ObservationError(
                f"'{escaped(key)}' must be of one robot, got a list of {len(value)}", "bad-batch"
            )
        value = value[0]
    return [value[-1]] if value and isinstance(value[-1], str) else [list(value)]


def groups_of(state: Sequence[tuple[str, int]], binding: Binding) -> dict[str, list[int]]:
    """Return the action columns of each group, in the client's own order.

    state: the keys that the policy's state was made of, with how many numbers each had. A column belongs to the key that
    holds what measures it; where none does, to the group of the robot's description.
    """
    columns = range(len(binding.action_names))
    owners = [name_in(key, STATE) for key, size in state for _ in range(size)]
    measured = _measuring(binding, len(owners))
    found: dict[str, list[tuple[int, int]]] = {name: [] for name in owners}
    for column in columns:
        place = measured[column]
        owner = owners[place] if 0 <= place < len(owners) else _described(binding, column, bool(owners))
        found.setdefault(owner, []).append((place, column))
    return {name: [column for _, column in sorted(pairs)] for name, pairs in found.items() if pairs}


def actions_of(
    rows: Floats, groups: Mapping[str, Sequence[int]], *, prefix: str, batched: bool
) -> dict[str, Floats]:
    """Return (time, columns) of each group, or (1, time, columns)."""
    made = {
        f"{prefix}{name}": np.ascontiguousarray(rows[:, list(columns)]) for name, columns in groups.items()
    }
    return {name: part[None] if batched else part for name, part in made.items()}


def declared_groups(binding: Binding, keys: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the state's groups for a client that asks before it sends any. keys: of `wire_keys`."""
    if keys:
        return tuple(name_in(key, STATE) for key in keys)
    names = tuple(group.name for group in binding.groups)
    return names if names and all(names) and _in_order(binding) else (ALONE,)


def name_in(key: str, group: str) -> str:
    """Return a key without its group: `arm` of `state.arm`."""
    return key.removeprefix(f"{group}.")


def _in_order(binding: Binding) -> bool:
    """Return whether the robot's groups one after another are its state."""
    if binding.hold_columns is None:
        return False
    places = [int(binding.hold_columns[column]) for group in binding.groups for column in group.columns]
    return places == list(range(len(places))) and len(places) == (binding.state_dim or len(places))


def _measuring(binding: Binding, numbers: int) -> list[int]:
    """Return for each action column which number of the state measures it; without names, they are in the same order."""
    count = len(binding.action_names)
    if binding.hold_columns is not None:
        return [int(place) for place in binding.hold_columns]
    return list(range(count)) if numbers == count else [UNMEASURED] * count


def _described(binding: Binding, column: int, beside: bool) -> str:
    """Return the group of a column by the robot's description. beside: there are groups of the client's own."""
    names = [group.name for group in binding.groups if column in group.columns]
    if names and names[0]:
        return names[0]
    return REST if beside else ALONE


def _text(name: Any) -> str:
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)
