# SPDX-License-Identifier: Apache-2.0
"""Merge the model family and LeRobot's processors into the configuration of an export.

Both are defaults to what reflex_config.json holds itself; but where it contradicts the processors, it is refused.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from reflex_core.errors import ExportError
from reflex_core.export.export import Export
from reflex_core.export.families import Config, language_row
from reflex_core.export.processors import PREPROCESSOR, Processors
from reflex_core.export.prompt import CLEAN, read_prompt
from reflex_core.export.read_normalization import EVERY_PICTURE
from reflex_core.files.json_fields import JsonFields, leaves, refusing
from reflex_core.normalization.affine import Affine
from reflex_core.text.untrusted import shown

IMAGES = "observation.images."
DOMAIN = "domain_id"  # X-VLA's name of the input


def with_processors(export: Export, config: Config, inputs: Collection[str]) -> Config:
    """Return the configuration with prompts, relative actions and the normalisation of images.

    Args:
        export: The directory.
        config: With the defaults of layout and family, but for `language`.
        inputs: Inputs of the graphs.

    Raises:
        ExportError: Two sources contradict each other.
    """
    processors = export.processors or Processors()
    language, state = _language(export, config, processors, inputs)
    config = _with_domain(export, config, processors, inputs)
    return _with_pictures(export, config | {"language": language, "state": state}, processors)


def _with_domain(export: Export, config: Config, processors: Processors, inputs: Collection[str]) -> Config:
    """Return the configuration with the robot's number of X-VLA's pipeline among its constants, where a graph takes it."""
    written = config.get("constants") or {}
    number = processors.domain_id
    if number is None or DOMAIN not in inputs or not isinstance(written, Mapping):
        return config
    value = written.get(DOMAIN, [number])
    if list(leaves(value)) != [number]:
        raise _contradiction(export, f"constants.{DOMAIN}", value, number)
    return config | {"constants": dict(written) | {DOMAIN: value}}


def _language(
    export: Export, config: Config, processors: Processors, inputs: Collection[str]
) -> tuple[Any, Any]:
    """Return (`language`, `state`): by family, by the processors, and as written."""
    base, state, own = config.get("language"), config.get("state"), export.config.get("language") or {}
    if not isinstance(base, Mapping) or not isinstance(own, Mapping) or not isinstance(state, Mapping | None):
        return base, state  # refused where they are read
    row = language_row(export.path, config, takes_state=state is None or str(state.get("input")) in inputs)
    if "template" in own:  # a text of its own ends as it says
        row = {key: value for key, value in row.items() if key != "newline"}
    default = dict(base) | row | dict(processors.language)
    language = _overwritten(default, own)
    _check_language(export, default, language, own, processors.language)
    if state is None:
        return language, None
    fixed = dict(processors.state)
    if not fixed and "template" not in own and "{state}" in str(language.get("template")):
        fixed = {"enters": "prompt"}
    return language, dict(state) | fixed | dict(export.config.get("state") or {})


def _overwritten(default: Config, own: Mapping[str, Any]) -> Config:
    """Merge `own` over the default; its `clean` is short for `strip` and `replace`."""
    short: Config = {}
    if "clean" in own:
        short = {"strip": own["clean"], "replace": CLEAN if own["clean"] is True else {}}
    return {key: value for key, value in (default | short | dict(own)).items() if key != "clean"}


def _check_language(
    export: Export, default: Config, language: Config, own: Mapping[str, Any], fixed: Mapping[str, Any]
) -> None:
    """Raise ExportError where `language` as it is written makes other tokens than the processors do."""
    for key in ("max_length", "padding_side", "truncation"):
        if key in own and key in fixed and own[key] != fixed[key]:
            raise _contradiction(export, f"language.{key}", own[key], fixed[key])
    if "template" in fixed:
        fail = refusing(str(export.config_path), ExportError)
        theirs, ours = (read_prompt(JsonFields(block, fail, "language")) for block in (default, language))
        if ours != theirs:
            raise _contradiction(export, "language", ours, theirs)


def _contradiction(export: Export, key: str, ours: object, theirs: object) -> ExportError:
    return ExportError(
        f"{export.config_path}: '{key}' is {shown(ours, 200)} here and {shown(theirs, 200)} in {PREPROCESSOR}: take one"
        " of them out",
        "export-contradiction",
    )


def _with_pictures(export: Export, config: Config, processors: Processors) -> Config:
    """Return the image slots under the robot's names of the cameras, with the mean and deviation of each."""
    images = config.get("images")
    if export.processors is None or not isinstance(images, list):
        return config
    slots = [dict(slot) if isinstance(slot, Mapping) else slot for slot in images]
    named = [slot for slot in slots if isinstance(slot, dict) and isinstance(slot.get("camera"), str)]
    features = _features(export, named, processors)
    old_names = {new: old for old, new in processors.rename.items()}
    for slot, feature in zip(named, features, strict=True):
        if feature in old_names and slot["camera"] == feature.removeprefix(IMAGES):
            slot["camera"] = old_names[feature].removeprefix(IMAGES)
        statistics = export.normalization.pictures
        numbers = statistics.get(feature, statistics.get(EVERY_PICTURE))
        if numbers is not None:
            slot.update(_normalised(export, slot, numbers))
    return config | {"images": slots}


def _features(export: Export, slots: list[dict[str, Any]], processors: Processors) -> list[str]:
    """Return the policy's feature of every slot: as configured, by its camera, else in the order in which the policy lists them."""
    known = [
        name for name, kind in ((processors.normalizer and processors.normalizer.types) or {}).items()
        if kind == "VISUAL"
    ]  # fmt: skip
    known += [name for name in export.normalization.pictures if name and name not in known]
    found = []
    for slot in slots:
        feature = slot.get("feature", IMAGES + slot["camera"])
        if not isinstance(feature, str):
            raise ExportError(
                f"{export.config_path}: 'feature' of camera {shown(slot['camera'])} in 'images' must be the name of a feature in"
                f" {PREPROCESSOR}, got {shown(feature)}"
            )
        found.append(processors.rename.get(feature, feature))
    if not export.normalization.pictures or EVERY_PICTURE in export.normalization.pictures:
        return found
    if not set(found) & set(known):
        found = known[: len(slots)] + found[len(known) :]
    pairs = zip(slots, found, strict=True)
    # a slot that may stay empty has had no camera in training where the policy lists none
    missing = [
        slot["camera"] for slot, feature in pairs if feature not in known and slot.get("required", True)
    ]
    if missing:
        raise ExportError(
            f"{export.config_path}: {PREPROCESSOR} normalises pictures by statistics of {', '.join(known)}: say which"
            f" of them camera '{missing[0]}' is, with 'feature' in 'images'"
        )
    return found


def _normalised(export: Export, slot: Mapping[str, Any], numbers: Affine) -> Config:
    """Return `mean`, `std`, `bars` and `fill` of a slot whose pixels in 0..1 are normalised before the graph's own `range`."""
    mean, std = numbers.shift, numbers.scale
    if "mean" in slot or "std" in slot:
        try:
            same = np.allclose(slot["mean"], mean, atol=1e-4) and np.allclose(slot["std"], std, atol=1e-4)
        except (KeyError, TypeError, ValueError):
            return {}  # refused where it is read
        if not same:
            raise _contradiction(
                export,
                f"images ({slot.get('input')})",
                [slot["mean"], slot["std"]],
                [mean.tolist(), std.tolist()],
            )
        return {}
    span = slot.get("range", (0.0, 1.0))
    try:
        low, high = span
        deviation = std / (high - low) if high != low else None
    except (TypeError, ValueError):
        return {}
    if deviation is None:
        return {}  # refused where it is read
    made: Config = {"mean": (mean - low * deviation).tolist(), "std": deviation.tolist()}
    # LeRobot pads after it normalises, with zeros: the mean's colour
    return made | {"bars": slot.get("bars", mean.tolist()), "fill": slot.get("fill", low)}
