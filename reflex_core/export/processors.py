# SPDX-License-Identifier: Apache-2.0
"""LeRobot's policy_preprocessor.json and policy_postprocessor.json: what happens before and after the network.

Every step is known and applied, or known to change nothing at inference, or refused by its name; a step that changes
nothing because it is disabled passes. LeRobot 0.4 to 0.6.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reflex_core.errors import ExportError
from reflex_core.files.json_fields import JsonError, JsonFields, is_whole, read_object, refusing
from reflex_core.files.regular_file import unreadable
from reflex_core.normalization.affine import IDENTITY, LEAST_EPS, MODES
from reflex_core.text.untrusted import escaped, shown

PREPROCESSOR, POSTPROCESSOR = "policy_preprocessor.json", "policy_postprocessor.json"
STATE, ACTION = "observation.state", "action"
PI05_TEMPLATE = "Task: {instruction}, State: {state};\nAction: "
MOST_DOMAIN = 1_000_000
PADDED_STATE = 32  # LeRobot 0.4 wrote its zero-padded state into the prompt

RENAME, NEWLINE, TOKENIZER, PREPARE = "rename", "newline", "tokenizer", "prepare_state"
RELATIVE, NORMALIZE, IMAGENET, DOMAIN = "relative", "normalize", "imagenet", "domain"
UNNORMALIZE, ABSOLUTE, NOTHING = "unnormalize", "absolute", ""

_BEFORE = {
    "rename_observations_processor": RENAME,
    "to_batch_processor": NOTHING,
    "device_processor": NOTHING,
    "action_tokenizer_processor": NOTHING,  # makes tokens of actions in training
    "xvla_image_to_float": NOTHING,  # pixels are 0..1 here
    "smolvla_new_line_processor": NEWLINE,
    "pi0_new_line_processor": NEWLINE,
    "tokenizer_processor": TOKENIZER,
    "pi05_prepare_state_tokenizer_processor_step": PREPARE,
    "pi0_fast_prepare_state_tokenizer_processor_step": PREPARE,
    "delta_actions_processor": RELATIVE,  # its name in 0.5
    "relative_actions_processor": RELATIVE,
    "normalizer_processor": NORMALIZE,
    "xvla_imagenet_normalize": IMAGENET,
    "xvla_add_domain_id": DOMAIN,
}
_AFTER = {
    "unnormalizer_processor": UNNORMALIZE,
    "absolute_actions_processor": ABSOLUTE,
    "device_processor": NOTHING,
    "to_batch_processor": NOTHING,
}
# what LeRobot's families do, in their order; steps that change nothing may stand anywhere
_ORDERS_BEFORE = (
    (RENAME, NEWLINE, TOKENIZER, RELATIVE, NORMALIZE),
    (RENAME, RELATIVE, NORMALIZE, PREPARE, TOKENIZER),
    (RENAME, TOKENIZER, IMAGENET, DOMAIN, NORMALIZE),
)
_ORDERS_AFTER = ((UNNORMALIZE, ABSOLUTE),)


@dataclass(frozen=True, slots=True)
class Normalizer:
    """A normalizer or unnormalizer step. modes: feature type (STATE, ACTION, VISUAL, ENV) -> mode, a key of MODES or identity.

    types: feature -> type, as far as the step lists its features; None where it lists none. only: the observations that are
    normalised, None for all. state_file: its statistics, None where it names none. widths: feature -> how many numbers it
    has, where the step lists a shape of one axis that is not padded.
    """

    modes: Mapping[str, str]
    eps: float
    types: Mapping[str, str] | None
    only: frozenset[str] | None
    state_file: Path | None
    widths: Mapping[str, int]

    def mode(self, feature: str, kind: str) -> str:
        """Return how a feature is normalised. kind: its type where the step does not list it."""
        if self.only is not None and feature != ACTION and feature not in self.only:
            return IDENTITY
        if self.types is not None and feature != ACTION and feature not in self.types:
            return IDENTITY
        return self.modes.get((self.types or {}).get(feature, kind), IDENTITY)


@dataclass(frozen=True, slots=True)
class RelativeActions:
    """Actions are offsets from the state that they were computed from, but for the dimensions that are left out."""

    exclude_joints: tuple[str, ...] = ()
    action_names: tuple[str, ...] = ()

    def mask(self, dim: int) -> NDArray[np.bool_]:
        """Return (dim,) True where an action is an offset: LeRobot's rule, by what the names contain."""
        mask = np.ones(dim, dtype=bool)
        tokens = [name.lower() for name in self.exclude_joints if name]
        for index, name in enumerate(self.action_names[:dim]):
            mask[index] = not any(token in name.lower() for token in tokens)
        return mask


@dataclass(frozen=True, slots=True)
class Processors:
    """Both pipelines as far as they matter at inference.

    rename: the robot's name of an observation -> the name in features and statistics. language, state: what the steps
    fix of those blocks of reflex_config.json. imagenet: images are normalised by ImageNet's mean and deviation. domain_id:
    the number of the robot that X-VLA is fed, None without that step.
    """

    normalizer: Normalizer | None = None
    unnormalizer: Normalizer | None = None
    relative: RelativeActions | None = None
    rename: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    language: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    state: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    imagenet: bool = False
    domain_id: int | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """The state files that the steps name."""
        steps = (self.normalizer, self.unnormalizer)
        return tuple(step.state_file for step in steps if step is not None and step.state_file is not None)


def read_processors(folder: Path, max_state_dim: int = PADDED_STATE) -> Processors | None:
    """Return the pipelines of an export; None where it brings neither file. Raises ExportError that names file and step."""
    before, after = folder / PREPROCESSOR, folder / POSTPROCESSOR
    there = [path for path in (before, after) if path.exists() or path.is_symlink()]
    if not there:
        return None
    if len(there) == 1:
        missing = after if there == [before] else before
        raise ExportError(
            f"{missing}: missing: {there[0].name} is there, and the one without the other is half of what the policy does",
            "export-file-missing",
        )
    pre, listed = _read(before, _BEFORE, _ORDERS_BEFORE)
    post, _ = _read(after, _AFTER, _ORDERS_AFTER)
    relative = _relative(pre.get(RELATIVE))
    absolute = post.get(ABSOLUTE)
    if (relative is not None) != (absolute is not None):
        having, lacks = (before, after) if relative is not None else (after, before)
        raise ExportError(
            f"{having}: has relative actions enabled and {lacks.name} has not: the state that they start from is taken"
            " before the network and added after it, so both must say it"
        )
    return Processors(
        normalizer=_normalizer(before, pre.get(NORMALIZE)),
        unnormalizer=_normalizer(after, post.get(UNNORMALIZE)),
        relative=relative,
        rename=_rename(before, pre.get(RENAME)),
        language=_language(pre),
        state=_state(pre, listed, max_state_dim),
        imagenet=IMAGENET in pre,
        domain_id=pre[DOMAIN].config.whole("domain_id", 0, MOST_DOMAIN, 0) if DOMAIN in pre else None,
    )


@dataclass(frozen=True, slots=True)
class _Step:
    name: str
    config: JsonFields
    state_file: Any


def _read(
    file: Path, known: Mapping[str, str], orders: Sequence[Sequence[str]]
) -> tuple[dict[str, _Step], frozenset[str]]:
    """Return (function of a step -> the step, in order; the names of all listed steps)."""
    try:
        steps = read_object(file).get("steps")
    except JsonError as error:
        raise ExportError(f"{file}: {error}") from error
    except OSError as error:
        raise ExportError(f"{file}: cannot be read: {error.strerror or error}") from error
    if not isinstance(steps, list) or not all(isinstance(step, dict) for step in steps):
        raise ExportError(f"{file}: 'steps' must be a list of objects, got {shown(steps)}")
    found: dict[str, _Step] = {}
    for entry in steps:
        step = _step(file, entry)
        if step is None:
            continue
        if step.name not in known:
            raise ExportError(
                f"{file}: step '{step.name}' is not known here, so what it does to the policy's inputs or actions cannot be"
                f" done: known are {', '.join(sorted(known))}",
                "unknown-processor-step",
            )
        if step.name == "device_processor" and step.config.get("float_dtype") not in (None, "float32"):
            raise ExportError(
                f"{file}: step 'device_processor' has float_dtype {shown(step.config['float_dtype'])}: only float32 is served"
            )
        does = known[step.name]
        if does == NOTHING:
            continue
        if does in found:
            raise ExportError(f"{file}: step '{step.name}' stands there twice")
        found[does] = step
        if not any(_is_within(tuple(found), order) for order in orders):
            raise ExportError(
                f"{file}: step '{step.name}' stands after {', '.join(found[name].name for name in list(found)[:-1])}, where no"
                " policy of LeRobot has it: another order computes something else",
                "processor-step-order",
            )
    return found, frozenset(str(entry.get("registry_name")) for entry in steps)


def _is_within(names: Sequence[str], order: Sequence[str]) -> bool:
    left = iter(order)
    return all(name in left for name in names)


def _step(file: Path, entry: Mapping[str, Any]) -> _Step | None:
    """Read one entry; None for a step that is disabled."""
    config = entry.get("config", {})
    config = {} if config is None else config
    name = entry.get("registry_name")
    called = escaped(str(name or entry.get("class") or "without a name"))
    refuse = refusing(f"{file}: step '{called}'", ExportError)
    if not isinstance(config, dict):
        raise refuse("config", "an object", config)
    if not isinstance(name, str) or not name:
        raise ExportError(
            f"{file}: step '{called}' is a class of third-party code: only the registered steps of LeRobot are done here",
            "unknown-processor-step",
        )
    fields = JsonFields(config, refuse)
    enabled = fields.truth("enabled", default=name not in _OPTIONAL)
    return _Step(called, fields, entry.get("state_file")) if enabled else None


_FEATURE_TYPES = ("STATE", "VISUAL", "ENV", "ACTION", "REWARD", "LANGUAGE")
_NORMALIZER_KEYS = ("eps", "features", "norm_map", "normalize_observation_keys", "device", "dtype", "enabled")
_OPTIONAL = ("delta_actions_processor", "relative_actions_processor", "absolute_actions_processor")


def _normalizer(file: Path, step: _Step | None) -> Normalizer | None:
    if step is None:
        return None
    where = f"{file}: step '{step.name}'"
    eps, norm_map = step.config.number("eps", LEAST_EPS, 1, 1e-8), step.config.fields("norm_map")
    if more := [
        key for key, value in step.config.items() if key not in _NORMALIZER_KEYS and value is not None
    ]:
        raise ExportError(
            f"{where}: '{escaped(more[0], 40)}' is not known here, so what it does to the numbers cannot be done: known are"
            f" {', '.join(_NORMALIZER_KEYS)}"
        )
    modes = {}
    for kind, mode in norm_map.items():
        _require_type(f"{where}: norm_map", kind)
        modes[kind] = str(mode).lower()
        if modes[kind] not in (*MODES, IDENTITY):
            allowed = ", ".join(name.upper() for name in (*MODES, IDENTITY))
            raise ExportError(
                f"{where}: norm_map.{escaped(str(kind))} must be one of {allowed}, got {shown(mode)}"
            )
    only = None
    if step.config.get("normalize_observation_keys") is not None:
        only = frozenset(step.config.names("normalize_observation_keys"))
    return Normalizer(
        MappingProxyType(modes), eps, _types(where, step.config.get("features")),
        only, _state_file(file, step), _widths(step.config.get("features")),
    )  # fmt: skip


def _types(where: str, features: Any) -> Mapping[str, str] | None:
    if features is None:
        return None
    if not isinstance(features, dict) or not all(isinstance(entry, dict) for entry in features.values()):
        raise ExportError(f"{where}: 'features' must be an object of objects, got {shown(features)}")
    for name, entry in features.items():
        _require_type(f"{where}: features.{escaped(name, 60)}.type", entry.get("type"))
    return MappingProxyType({name: entry["type"] for name, entry in features.items()})


def _widths(features: Any) -> Mapping[str, int]:
    """Return the features' widths, without padded ones: a policy tuned from a padded one still lists its padded shapes."""
    shapes = ((name, entry.get("shape")) for name, entry in (features or {}).items())
    flat = {name: shape[0] for name, shape in shapes if isinstance(shape, list) and len(shape) == 1}
    return MappingProxyType({name: width for name, width in flat.items() if width != PADDED_STATE})


def _require_type(where: str, kind: Any) -> None:
    """Raise ExportError for a type of features that LeRobot does not have: nothing of it would be normalised."""
    if kind not in _FEATURE_TYPES:
        raise ExportError(f"{where} must be one of {', '.join(_FEATURE_TYPES)}, got {shown(kind)}")


def _state_file(file: Path, step: _Step) -> Path | None:
    name = step.state_file
    if name is None:
        return None
    if (
        not isinstance(name, str)
        or not name
        or "/" in name
        or "\\" in name
        or "\0" in name
        or name.startswith(".")
    ):
        raise ExportError(
            f"{file}: step '{step.name}': 'state_file' must be a file beside it, got {shown(name)}"
        )
    path = file.parent / name
    if why := unreadable(path):
        raise ExportError(
            f"{path}: {why}: step '{step.name}' of {file.name} names it as its state file",
            "export-file-missing",
        )
    return path


def _relative(step: _Step | None) -> RelativeActions | None:
    if step is None:
        return None
    keys = ("exclude_joints", "action_names")
    return RelativeActions(
        *(step.config.names(key) if step.config.get(key) is not None else () for key in keys)
    )


def _rename(file: Path, step: _Step | None) -> Mapping[str, str]:
    if step is None:
        return MappingProxyType({})
    names = step.config.get("rename_map", {})
    right = isinstance(names, dict) and all(isinstance(new, str) for new in names.values())
    if not right or len(set(names.values())) != len(names):
        raise ExportError(
            f"{file}: step '{step.name}': 'rename_map' must map names to different names, got {shown(names)}"
        )
    return MappingProxyType(dict(names))


def _language(pre: Mapping[str, _Step]) -> Mapping[str, Any]:
    """Return the keys of the block `language` that the steps fix; none of them without a tokenizer or a prompt step."""
    block: dict[str, Any] = {}
    if PREPARE in pre:
        template = PI05_TEMPLATE
        if pre[PREPARE].name.startswith("pi0_fast"):
            template = PI05_TEMPLATE.removesuffix("Action: ")
        block |= {"template": template, "strip": True, "replace": {"_": " ", "\n": " "}, "newline": False}
    elif TOKENIZER in pre or NEWLINE in pre:
        block |= {"template": "{instruction}", "strip": False, "replace": {}, "newline": NEWLINE in pre}
    if TOKENIZER not in pre:
        return MappingProxyType(block)
    step = pre[TOKENIZER]
    for key, kind, allowed in _TOKENIZER_KEYS:
        value = step.config.get(key)
        if value is None:
            continue
        wrong = not isinstance(value, kind) or (allowed and value not in allowed)
        if wrong or (kind is int and not is_whole(value, 1, 100_000)):
            raise step.config.refusal(key, " or ".join(map(str, allowed)) or "a whole number of tokens")
        block[key] = value
    if step.config.get("task_key", "task") != "task":
        raise step.config.refusal("task_key", "'task', the instruction")
    return MappingProxyType(block)


_TOKENIZER_KEYS: tuple[tuple[str, type, tuple[object, ...]], ...] = (
    ("max_length", int, ()),
    ("padding_side", str, ("right", "left")),
    ("truncation", bool, (True, False)),
)


def _state(pre: Mapping[str, _Step], listed: frozenset[str], max_state_dim: int) -> Mapping[str, Any]:
    """Return the keys of the block `state` that the steps fix."""
    if PREPARE not in pre:
        return MappingProxyType({})
    # no file names its version; from 0.5 on every pi0.5 pipeline lists the step of relative actions, enabled or not
    old = listed >= _WHOLE and not listed & set(_OPTIONAL)
    return MappingProxyType({"enters": "prompt", "bins": 256, "pad": max_state_dim if old else 0})


_WHOLE = {"rename_observations_processor", "to_batch_processor"}
