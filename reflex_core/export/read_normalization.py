# SPDX-License-Identifier: Apache-2.0
"""Find the statistics an export is served with: LeRobot's processors, else reflex_config.json, else files next to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from reflex_core.errors import ExportError
from reflex_core.export.processors import ACTION, POSTPROCESSOR, PREPROCESSOR, STATE, Normalizer, Processors
from reflex_core.files.json_fields import JsonFields, json_text
from reflex_core.normalization.affine import (
    EPS,
    IDENTITY,
    LEAST_EPS,
    LEROBOT,
    MEAN_STD,
    MODES,
    Affine,
    affine,
)
from reflex_core.normalization.buffers import read_buffers
from reflex_core.normalization.statistics_file import STATISTICS, Table, chosen, read_table
from reflex_core.text.suggestions import nearest
from reflex_core.text.untrusted import shown

EVERY_PICTURE = ""  # key of what counts for a camera that has no statistics of its own
IMAGENET = Affine(np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225]))

_KEYS, _ALMOST = (
    ("state", "action", "mode", "eps", "dataset"),
    0.85,
)  # of difflib's ratio: actions is almost action
_FEATURES = {"state": STATE, "action": ACTION}


@dataclass(frozen=True, slots=True)
class Normalization:
    """state, action: None where they are used as they are. *_mode: as declared, '' where it is not.

    pictures: feature (`observation.images.top`) -> mean and deviation of pixels in 0..1, per RGB channel; only where LeRobot's
    processors normalise images. notes: for the log. files: that hold the statistics.
    """

    state: Affine | None = None
    action: Affine | None = None
    state_mode: str = ""
    action_mode: str = ""
    pictures: Mapping[str, Affine] = field(default_factory=lambda: MappingProxyType({}))
    notes: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()


def read_normalization(
    path: Path, config: Mapping[str, Any], where: str, processors: Processors | None
) -> Normalization:
    """Read the statistics of the export at `path`. where: prefix of errors about `config`.

    Raises ExportError where they are missing, ambiguous, no statistics, or contradict each other.
    """
    written = _Written(path, config, where)
    if processors is not None:
        return written.checked_against(_of_steps(path, processors, written.dataset))
    found = written.normalization()
    return found if found is not None else _of_files(path, written)


class _Written:
    """The block `normalization` of reflex_config.json."""

    def __init__(self, path: Path, config: Mapping[str, Any], where: str) -> None:
        self.where = f"{where}: normalization"

        def refuse(key: str, expected: str, got: object) -> ExportError:
            return ExportError(f"{where}: {key} must be {expected}, got {json_text(got)}")

        block = JsonFields(config.get("normalization") or {}, refuse, "normalization")
        for key in block:
            if key not in _KEYS and (meant := nearest(key, _KEYS, _ALMOST)):
                raise ExportError(f"{self.where} has no key {shown(key)}; did you mean {meant}?")
        self._path, self._block = path, block
        source = config.get("source", LEROBOT)
        # what is no text is an exporter's note of where the weights come from
        self.source = source if isinstance(source, str) else LEROBOT
        if self.source not in EPS:
            raise ExportError(f"{where}: 'source' must be {' or '.join(EPS)}, got {shown(self.source)}")
        self.eps = self._eps(block)
        self.dataset = block.text("dataset", "", "the name of a data set")

    def _eps(self, block: JsonFields) -> float | None:
        return None if block.get("eps") is None else block.number("eps", LEAST_EPS, 1)

    def mode(self, name: str) -> str:
        """Return the mode of `state` or `action`, '' where the block does not name one."""
        general = self._block.get("mode", "")
        if isinstance(general, Mapping):
            general = general.get(name, "")
        own = self._block.get(name)
        mode, where = general, f"{self.where}.mode"
        if isinstance(own, Mapping) and "mode" in own:
            mode, where = own["mode"], f"{self.where}.{name}.mode"
        if mode != "" and (not isinstance(mode, str) or mode not in (*MODES, IDENTITY)):
            raise ExportError(
                f"{where} must be one of {', '.join(MODES)} or {IDENTITY}, got {json_text(mode)}"
            )
        return str(mode)

    def numbers(self, name: str) -> tuple[bool, Affine | None]:
        """Return (whether the block holds everything about `state` or `action`, its statistics)."""
        if name not in self._block:
            return False, None
        own, where = self._block.fields(name), f"{self.where}.{name}"
        mode = self.mode(name) or MEAN_STD
        if mode == IDENTITY:
            return True, None
        if not set(own) & set(STATISTICS):
            return False, None
        eps = self._eps(own)
        eps = self.eps if eps is None else eps
        first, second = (own.get(part) for part in MODES[mode])
        return True, affine(mode, first, second, where, eps=eps, source=self.source)

    def normalization(self) -> Normalization | None:
        """Return all of it; None where files have to be read."""
        (state_complete, state), (action_complete, action) = self.numbers("state"), self.numbers("action")
        if not (state_complete or action_complete):
            return None
        for name, complete in (("state", state_complete), ("action", action_complete)):
            if not complete and name in self._block:
                return None  # it names a mode, and the numbers are in a file
        return Normalization(
            state, action,
            (self.mode("state") or MEAN_STD) if state_complete else "",
            (self.mode("action") or MEAN_STD) if action_complete else "",
        )  # fmt: skip

    def checked_against(self, found: Normalization) -> Normalization:
        """Return the processors' statistics if the block does not contradict them. Raises ExportError otherwise."""
        pairs = (
            ("state", found.state, found.state_mode, PREPROCESSOR),
            ("action", found.action, found.action_mode, POSTPROCESSOR),
        )
        for name, theirs, mode, file in pairs:
            own = self.mode(name)
            complete, numbers = self.numbers(name)
            if complete and own == "":
                own = MEAN_STD
            if own not in ("", mode):
                raise ExportError(
                    f"{self.where}: the {name} is normalised by {own} here and by {mode} in {self._path / file}: take one of"
                    " them out",
                    "export-contradiction",
                )
            if numbers is not None and not _agree(numbers, theirs):
                raise ExportError(
                    f"{self.where}.{name} has other numbers than the state file that {self._path / file} names: take one of"
                    " them out",
                    "export-contradiction",
                )
        return found


def _agree(one: Affine, other: Affine | None) -> bool:
    if other is None or one.dim != other.dim:
        return False
    pairs = ((one.shift, other.shift), (one.scale, other.scale))
    return all(np.allclose(ours, theirs, rtol=1e-4, atol=1e-5) for ours, theirs in pairs)


def _of_steps(path: Path, processors: Processors, dataset: str) -> Normalization:
    before, after = processors.normalizer, processors.unnormalizer
    tables = {file: read_table(file) for file in processors.files}
    state_mode = before.mode(STATE, "STATE") if before else IDENTITY
    action_mode = after.mode(ACTION, "ACTION") if after else IDENTITY
    notes: list[str] = []
    state = _of_step(before, STATE, state_mode, tables, dataset)
    action = _of_step(after, ACTION, action_mode, tables, dataset)
    if action_mode != IDENTITY and action is None:
        raise ExportError(
            f"{path / POSTPROCESSOR}: un-normalises actions by {action_mode}, but no state file of it has statistics of 'action'",
            "export-file-missing",
        )
    if state_mode != IDENTITY and state is None:
        notes.append(
            f"{PREPROCESSOR} normalises the state by {state_mode}, but its state file has no {STATE}: the state goes in as it"
            " is, as in LeRobot"
        )
    if before is not None and before.types is not None and "ENV" in before.types.values():
        name = next(name for name, kind in before.types.items() if kind == "ENV")
        raise ExportError(f"{path / PREPROCESSOR}: the policy reads '{name}', which no robot measures")
    pictures = {EVERY_PICTURE: IMAGENET} if processors.imagenet else {}
    if before is not None and not processors.imagenet:
        pictures = _pictures(before, tables, dataset)
    return Normalization(
        state, action, state_mode, action_mode, MappingProxyType(pictures), tuple(notes), processors.files
    )


def _of_step(
    step: Normalizer | None, feature: str, mode: str, tables: Mapping[Path, Table], dataset: str
) -> Affine | None:
    if step is None or mode == IDENTITY or step.state_file is None:
        return None
    found = chosen(tables[step.state_file], feature, dataset, step.state_file)
    if found is None:
        return None
    numbers = _of_table(found[1], mode, step.state_file, feature, step.eps, LEROBOT)
    if numbers.dim != (width := step.widths.get(feature, numbers.dim)):
        raise ExportError(
            f"{step.state_file}: {feature} must have {width} numbers, as the step's features say, got {numbers.dim}",
            "bad-statistics",
        )
    return numbers


def _pictures(step: Normalizer, tables: Mapping[Path, Table], dataset: str) -> dict[str, Affine]:
    """Return the statistics of every image that the step normalises and has statistics of."""
    if step.state_file is None:
        return {}
    listed = step.types or {}
    names = {name for name in tables[step.state_file] if name.startswith("observation.image")}
    found = {}
    for name in sorted(names | {name for name, kind in listed.items() if kind == "VISUAL"}):
        mode = step.mode(name, "VISUAL")
        entry = chosen(tables[step.state_file], name, dataset, step.state_file)
        if mode == IDENTITY or entry is None:
            continue
        numbers = _of_table(entry[1], mode, step.state_file, name, step.eps, LEROBOT)
        if numbers.dim != 3:
            raise ExportError(
                f"{step.state_file}: {name} must have 3 numbers, one per channel, got {numbers.dim}"
            )
        found[name] = numbers
    return found


def _of_table(
    statistics: Mapping[str, Any], mode: str, file: Path, feature: str, eps: float | None, source: str
) -> Affine:
    lacks = [part for part in MODES[mode] if part not in statistics]
    if lacks:
        raise ExportError(
            f"{file}: {feature} is normalised by {mode}, which needs {' and '.join(lacks)}; the file has"
            f" {', '.join(sorted(statistics))}",
            "bad-statistics",
        )
    first, second = (statistics[part] for part in MODES[mode])
    return affine(mode, first, second, f"{file}: {feature}", eps=eps, source=source)


def _of_files(path: Path, written: _Written) -> Normalization:
    """Read the state files without the JSON that belongs to them, or the weights of LeRobot 0.3."""
    globs = {"state": "policy_preprocessor", "action": "policy_postprocessor"}
    files = {name: sorted(path.glob(f"{begin}*.safetensors")) for name, begin in globs.items()}
    modes = {name: written.mode(name) or MEAN_STD for name in globs}
    if not any(files.values()):
        return _of_buffers(path, written)
    datasets: dict[str, str] = {}
    found: dict[str, Affine | None] = {}
    used: list[Path] = []
    here: set[str] = set()  # what reflex_config.json holds itself
    for name, mode in modes.items():
        complete, found[name] = written.numbers(name)
        if complete:
            here.add(name)
        if complete or mode == IDENTITY or not files[name]:
            continue
        entry = _of_one_file(files[name], name, mode, written)
        if entry is not None:
            datasets[name], found[name], file = entry
            used.append(file)
    for name, mode in modes.items():
        if mode != IDENTITY and not files[name] and name not in here:
            there = next(names[0].name for names in files.values() if names)
            raise ExportError(
                f"{path}: brings no {globs[name]}*.safetensors beside {there}: the {name} would go as it is; copy the file, or"
                " write into reflex_config.json what holds:"
                f' "normalization": {{"{name}": {{"mode": "identity"}}, "{_other(name)}": {{"mode": "{modes[_other(name)]}"}}}}',
                "export-file-missing",
            )
    if found["action"] is None and modes["action"] != IDENTITY:
        raise ExportError(
            f"{files['action'][0]}: holds no statistics of 'action', so nothing says what the network's actions are in the"
            " robot's units",
            "bad-statistics",
        )
    if len({name for name in datasets.values() if name}) > 1:
        raise ExportError(
            f"{path}: the state's statistics are of dataset '{datasets['state']}', the action's of '{datasets['action']}':"
            ' say which one holds with "normalization": {"dataset": NAME} in reflex_config.json',
            "dataset-ambiguous",
        )
    state_mode = "" if found["state"] is None and modes["state"] != IDENTITY else modes["state"]
    notes = [
        f"its statistics are those of dataset '{name}'" for name in sorted(set(datasets.values())) if name
    ]
    return Normalization(
        found["state"], found["action"], state_mode, modes["action"], notes=tuple(notes), files=tuple(used)
    )


def _other(name: str) -> str:
    return "action" if name == "state" else "state"


def _of_one_file(
    files: Sequence[Path], name: str, mode: str, written: _Written
) -> tuple[str, Affine, Path] | None:
    """Return (dataset, statistics, file) of `state` or `action`: only one of the files may have them."""
    feature = _FEATURES[name]
    there = {}
    for file in files:
        entry = chosen(read_table(file), feature, written.dataset, file)
        if entry is not None:
            there[file] = entry
    if len(there) > 1:
        raise ExportError(
            f"{', '.join(map(str, there))}: each holds statistics of {feature}: leave the one that the policy was trained"
            " with",
            "bad-statistics",
        )
    for file, (dataset, statistics) in there.items():
        numbers = _of_table(statistics, mode, file, feature, written.eps, written.source)
        return dataset, numbers, file
    return None


def _of_buffers(path: Path, written: _Written) -> Normalization:
    """Read the statistics of LeRobot 0.3 in model.safetensors; nothing where there is no such file, or none of its buffers in it."""
    buffers = read_buffers(path)
    if buffers is None:
        modes = {name: written.mode(name) for name in ("state", "action")}
        complete = {name: mode if mode == IDENTITY else "" for name, mode in modes.items()}
        return Normalization(state_mode=complete["state"], action_mode=complete["action"])
    numbers: dict[str, Affine | None] = {}
    modes = {}
    for name in ("state", "action"):
        modes[name] = written.mode(name) or buffers.modes.get(name, IDENTITY)
        numbers[name] = None
        if modes[name] != IDENTITY:
            numbers[name] = _of_table(
                buffers.statistics.get(name, {}), modes[name], buffers.file, _FEATURES[name], written.eps, written.source
            )  # fmt: skip
    return Normalization(
        numbers["state"], numbers["action"], modes["state"], modes["action"], files=(buffers.file,)
    )
