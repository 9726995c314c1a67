# SPDX-License-Identifier: Apache-2.0
"""The steps of a policy_package by their short types: what each does to images, state, instruction and actions.

Types and parameters: physicalai 0.3.0. A `class_path` is an import of any installed code, and is refused whatever it names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reflex_core.errors import ExportError
from reflex_core.files.json_fields import JsonFields, is_whole
from reflex_core.normalization.affine import IDENTITY
from reflex_core.text.untrusted import shown
from reflex_export.importing.description_of import REFUSED
from reflex_export.importing.graph_file import inside
from reflex_export.importing.package_statistics import (
    PACKAGE_MODES,
    Table,
    read_statistics_file,
    written_statistics,
)

NORMALIZE, DENORMALIZE = "normalize", "denormalize"
# callbacks that only measure
_WATCHING = ("latency_monitor", "throughput_monitor", "rtc_latency")
_MOST_SIDE, _MOST_ROWS, _MOST_TOKENS = 8192, 1000, 100_000


@dataclass(frozen=True, slots=True)
class Scaled:
    """One `normalize` or `denormalize`.

    features: () for all that the statistics hold. where: for refusals. resized: images had been resized before it.
    """

    mode: str
    features: tuple[str, ...]
    table: Table
    where: str
    resized: bool


@dataclass(slots=True)
class Steps:
    """What all steps of a package do together, filled in as they are read.

    images: keys of an image slot. size: (height, width) that images are resized to. converted: some step makes floats in 0..1
    of images. tokens: the tokenizer's window. chunk: rows that the runner expects. rows: how many of them are executed before the
    next inference.
    """

    before: list[Scaled] = field(default_factory=list)
    after: list[Scaled] = field(default_factory=list)
    images: dict[str, Any] = field(default_factory=dict)
    size: tuple[int, int] | None = None
    converted: bool = False
    newline: bool = False
    tokens: int | None = None
    chunk: int | None = None
    rows: int | None = None
    applied: list[str] = field(default_factory=list)


def read_steps(folder: Path, model: JsonFields, where: str) -> Steps:
    """Read the runner and all steps of `model`. Raises ExportError for any that is not known here, by its name."""
    steps = Steps()
    _apply(_entries(model, "preprocessors"), _BEFORE, steps, folder, where, "preprocessor")
    _apply(_entries(model, "postprocessors"), _AFTER, steps, folder, where, "postprocessor")
    for number, entry in enumerate(_entries(model, "callbacks")):
        kind = _short_type(entry, f"callback {number}", where)
        if kind not in _WATCHING:
            raise _unknown(where, "callback", kind, _WATCHING)
    for key in ("input_features", "output_features"):
        for number, entry in enumerate(_entries(model, key)):
            if "class_path" in entry:
                raise _code(where, f"{key} {number}", entry)
    _runner(model, steps, where)
    return steps


def scaling_of(scalings: Iterable[Scaled], names: tuple[str, ...]) -> tuple[Scaled, str] | None:
    """Return the step that scales the first of these features that one does, and its name; None where none does.

    Raises ExportError where two do.
    """
    found = [
        (scaled, name)
        for scaled in scalings
        for name in dict.fromkeys(names)
        if scaled.mode != IDENTITY and name in scaled.table and name in (scaled.features or scaled.table)
    ]
    if len(found) > 1:
        raise ExportError(
            f"{found[1][0].where}: scales '{found[1][1]}', which another step scales too", REFUSED
        )
    return found[0] if found else None


def _entries(model: JsonFields, key: str) -> list[JsonFields]:
    value = model.get(key) or []
    if not isinstance(value, list) or not all(isinstance(entry, Mapping) for entry in value):
        raise model.refusal(key, "a list of objects")
    return [JsonFields(entry, model.refusal, f"{key}[{number}]") for number, entry in enumerate(value)]


def _short_type(entry: JsonFields, what: str, where: str) -> str:
    if "class_path" in entry:
        raise _code(where, what, entry)
    return entry.text("type", expected="the short name of a step")


def _code(where: str, what: str, entry: Mapping[str, Any]) -> ExportError:
    return ExportError(
        f"{where}: {what} names the class {shown(entry['class_path'])}, which is code of another program and is not run: only"
        " steps with a short 'type' are read",
        REFUSED,
    )


def _unknown(where: str, what: str, kind: str, known: Iterable[str]) -> ExportError:
    return ExportError(
        f"{where}: the {what} of type {shown(kind)} is not known here, so what it does cannot be done: known are"
        f" {', '.join(known)}",
        REFUSED,
    )


Read = Callable[[JsonFields, Steps, Path, str], None]


def _apply(
    entries: Iterable[JsonFields],
    known: Mapping[str, Read],
    steps: Steps,
    folder: Path,
    where: str,
    what: str,
) -> None:
    for number, entry in enumerate(entries):
        kind = _short_type(entry, f"{what} {number}", where)
        if kind not in known:
            raise _unknown(where, what, kind, known)
        known[kind](entry, steps, folder, f"{where}: {what} {number} ({kind})")
        steps.applied.append(kind)


def _scaled(entry: JsonFields, steps: Steps, folder: Path, where: str) -> Scaled:
    entry.only(("type", "mode", "features", "artifact", "stats_path", "stats"))
    mode = entry.choice("mode", (*PACKAGE_MODES, IDENTITY), "mean_std")
    named = [entry[key] for key in ("artifact", "stats_path") if entry.get(key) is not None]
    if entry.get("stats") is not None:
        table = written_statistics(entry.fields("stats"))
    elif named:
        table = read_statistics_file(inside(folder, named[0], where, "its statistics"))
    else:
        raise ExportError(
            f"{where}: names no statistics: 'artifact' has to be a safetensors file of the folder", REFUSED
        )
    features = entry.names("features") if entry.get("features") else ()
    return Scaled(mode, features, table, where, resized=steps.size is not None)


def _normalize(entry: JsonFields, steps: Steps, folder: Path, where: str) -> None:
    steps.before.append(_scaled(entry, steps, folder, where))


def _denormalize(entry: JsonFields, steps: Steps, folder: Path, where: str) -> None:
    steps.after.append(_scaled(entry, steps, folder, where))


def _resize(entry: JsonFields, steps: Steps, _: Path, where: str) -> None:
    entry.only(("type", "image_resolution", "image_layout", "mode", "pad_value"))
    size = entry.get("image_resolution")
    if not isinstance(size, list) or len(size) != 2 or not all(is_whole(one, 1, _MOST_SIDE) for one in size):
        raise entry.refusal("image_resolution", f"height and width, from 1 to {_MOST_SIDE}")
    if steps.size is not None:
        raise ExportError(f"{where}: resizes images a second time, which is not done here", REFUSED)
    mode = entry.choice("mode", ("letterbox", "stretch"), "letterbox")
    bars = entry.number("pad_value", 0, 255, 0)
    if 0 < bars <= 1:  # of 0..1 or of 0..255, depending on what a camera gives
        raise entry.refusal("pad_value", "0, or above 1, as images are pixels from 0 to 255 here")
    steps.size, steps.converted = (size[0], size[1]), True
    steps.images = {"resize": mode, "filter": "bilinear", "bars": bars / 255}


def _to_floats(entry: JsonFields, steps: Steps, _: Path, __: str) -> None:
    entry.only(("type",))
    steps.converted = True


def _new_line(entry: JsonFields, steps: Steps, _: Path, __: str) -> None:
    entry.only(("type",))
    steps.newline = True


def _tokenizer(entry: JsonFields, steps: Steps, _: Path, __: str) -> None:
    entry.only(("type", "tokenizer_name", "revision", "max_token_len"))
    steps.tokens = entry.whole("max_token_len", 1, _MOST_TOKENS, 512)


def _trimmer(entry: JsonFields, steps: Steps, _: Path, __: str) -> None:
    entry.only(("type", "n_action_steps"))
    _execute(steps, entry.whole("n_action_steps", 1, _MOST_ROWS))


def _execute(steps: Steps, rows: int) -> None:
    steps.rows = rows if steps.rows is None else min(rows, steps.rows)


def _runner(model: JsonFields, steps: Steps, where: str) -> None:
    runner = model.fields("runner", optional=True)
    if not runner:
        return
    kind = _short_type(runner, "runner", where)
    if kind not in _RUNNERS:
        raise _unknown(where, "runner", kind, _RUNNERS)
    runner.only(_RUNNERS[kind])
    if kind == CHUNKING and runner.get("runner") is not None:
        inner = runner.fields("runner")
        if (within := _short_type(inner, "the runner's runner", where)) != SINGLE:
            raise _unknown(where, "runner's runner", within, (SINGLE,))
    if runner.get("chunk_size") is not None:
        steps.chunk = runner.whole("chunk_size", 1, _MOST_ROWS)
    if runner.get("n_action_steps") is not None:
        _execute(steps, runner.whole("n_action_steps", 1, _MOST_ROWS))
    steps.applied.append(kind)


SINGLE, CHUNKING = "single_pass", "action_chunking"
_RUNNERS: Mapping[str, tuple[str, ...]] = {
    SINGLE: ("type", "chunk_size", "n_action_steps"),
    CHUNKING: ("type", "runner", "chunk_size", "n_action_steps"),
}
_BEFORE: Mapping[str, Read] = {
    NORMALIZE: _normalize,
    "resize": _resize,
    "to_float_tensor": _to_floats,
    "new_line": _new_line,
    "hf_tokenizer": _tokenizer,
}
_AFTER: Mapping[str, Read] = {DENORMALIZE: _denormalize, "action_chunk_trimmer": _trimmer}
