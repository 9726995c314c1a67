# SPDX-License-Identifier: Apache-2.0
"""Read ROS parameter files (YAML) as a whole, match them with a node's name, and refuse faults with one sentence.

ROS ignores a file that has nothing for a node, and stops with a traceback at one that it cannot read. The rules of
names are those of rcl: `/**`, `/*/reflex`, `/robot1/reflex`; a name without a slash is one in the root namespace.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from reflex_core.errors import SettingError
from reflex_core.text.suggestions import nearest

PARAMETERS = "ros__parameters"
LARGEST_BYTES = 1 << 20
ALMOST = 0.9  # of difflib's ratio: reflx is almost reflex, arm is another node
DEEPEST = 32  # levels that are looked into to see what a file is; each token of a scan costs as many steps as it has above
MISSPELT = 0.75  # embodimnt is meant for embodiment; timeout, of some other program, is no setting

log = logging.getLogger(__name__)

_TAG = "tag:yaml.org,2002:"
_PLAIN = "plain"  # a scalar without quotes and without a tag of its own
_KNOWN_TAGS = (_PLAIN, *(_TAG + name for name in ("str", "int", "float", "bool", "null", "seq", "map")))
_WORDS: dict[str, object] = {
    "": None, "~": None, "null": None, "true": True, "yes": True, "on": True, "false": False, "no": False, "off": False,
}  # fmt: skip
_INT = re.compile(r"[-+]?(0|[1-9][0-9]*)|0x[0-9a-fA-F]+")  # 08 is the name of a robot
_EXPONENT = r"[eE][-+]?[0-9]+"
_FLOAT = re.compile(
    rf"[-+]?([0-9]+\.[0-9]*|\.[0-9]+)({_EXPONENT})?|[-+]?[0-9]+{_EXPONENT}|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
)

_MAPPINGS = (yaml.BlockMappingStartToken, yaml.FlowMappingStartToken)
_STARTS = (*_MAPPINGS, yaml.BlockSequenceStartToken, yaml.FlowSequenceStartToken)
_ENDS = (yaml.BlockEndToken, yaml.FlowMappingEndToken, yaml.FlowSequenceEndToken)

Section = tuple[str, dict[str, Any]]


class _Loader(yaml.SafeLoader):
    """Leaves it to us what a scalar is: YAML 1.1 makes 90 of 1:30 and text of 1e3."""

    DEFAULT_SCALAR_TAG = _PLAIN  # type: ignore[misc]
    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  (as the class above has it)


def read_parameters(path: Path, node: str, *, plain: bool = False) -> dict[str, object]:
    """Return the parameters that a file has for a node, nested names joined by dots, the nearest section last.

    node: full name, `/robot1/reflex`. plain: a mapping of settings without sections is taken too. Raises SettingError for
    a file that is missing, is no parameter file, or has no section for this node.
    """
    document = _document(path)
    sections = list(_sections(document, path, ""))
    if not sections and plain:
        return dict(_flat(document, path))
    if not sections:
        raise SettingError(
            f"{path}: no section has {PARAMETERS} (two underscores): write /**: and below it {PARAMETERS}: above the"
            " settings, or give a plain list of settings to --config"
        )
    own = sorted((section for section in sections if matches(section[0], node)), key=_wildness)
    if not own:
        found = ", ".join(name for name, _ in sections)
        raise SettingError(
            f"{path}: nothing is for the node {node}: its sections are for {found:.300}; write /**: for every node, or"
            f" {node}:"
        )
    _warn_of_the_rest(path, node, [name for name, _ in sections])
    return {name: value for _, parameters in own for name, value in parameters.items()}


def resembles(text: str, settings: Collection[str]) -> bool:
    """Return whether a text is a parameter file by its structure, whatever its values and whether or not they are right.

    settings: the names that a file without sections may have; most of its own must be such names, or nearly.
    """
    keys = _keys(text) if len(text) <= LARGEST_BYTES else []
    if any(nearest(name, [PARAMETERS], ALMOST) for name in dict(keys)):
        return True
    leaves = [name for name, leaf in keys if leaf]
    meant = {name for name in set(leaves) if nearest(name, settings, MISSPELT)}
    return sum(name in meant for name in leaves) * 2 > len(leaves)


def _keys(text: str) -> list[tuple[str, bool]]:
    """Return every (key, whether its value is none but a mapping) of a YAML text, as far as it is YAML."""
    found, before, depth = list[tuple[str, bool]](), None, 0
    try:
        for token in yaml.scan(text, Loader=_Loader):
            if isinstance(token, yaml.ScalarToken) and isinstance(before, yaml.KeyToken):
                found.append((token.value, True))
            elif isinstance(token, _MAPPINGS) and isinstance(before, yaml.ValueToken) and found:
                found[-1] = found[-1][0], False
            depth += isinstance(token, _STARTS) - isinstance(token, _ENDS)
            if depth > DEEPEST:
                break
            before = token
    except yaml.YAMLError:
        pass  # its reader says what is wrong and in which line; what comes before shows what the file is meant to be
    return found


def _warn_of_the_rest(path: Path, node: str, sections: list[str]) -> None:
    """Warn of a section whose name resembles this node's: it was probably meant for it; other nodes may share the file."""
    last = node.rpartition("/")[2]
    for section in sections:
        if (
            not matches(section, node)
            and "/" not in section.strip("/")
            and nearest(section.strip("/"), [last], ALMOST)
        ):
            log.warning("%s: its section %s is not for the node %s", path, section, node)


def matches(section: str, node: str) -> bool:
    """Return whether a section is for the node of this full name; `*` is one part of it, `**` any number."""
    parts = {"**": "(/[^/]+)*", "*": "/[^/]+"}
    pattern = "".join(parts.get(part, "/" + re.escape(part)) for part in section.split("/") if part)
    return re.fullmatch(pattern, node) is not None


def parameter_value(text: str) -> object:
    """Return the value of `-p name:=text`. Raises SettingError for what is no YAML."""
    try:
        node = yaml.compose(text, Loader=_Loader)
    except (yaml.YAMLError, RecursionError) as error:
        raise SettingError(f"{text!r:.100} is no YAML ({_why(error)}): write text in quotes") from error
    return "" if node is None else _value(node, "the value", set())


def _document(path: Path) -> dict[str, Any]:
    """Return the whole file as a mapping. Raises SettingError."""
    try:
        with path.open("rb") as stream:
            data = stream.read(LARGEST_BYTES + 1)
    except (OSError, ValueError) as error:
        raise SettingError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    if len(data) > LARGEST_BYTES:
        raise SettingError(f"{path}: is larger than {LARGEST_BYTES} bytes, which no parameter file is")
    try:
        node = yaml.compose(data, Loader=_Loader)
    except (yaml.YAMLError, RecursionError) as error:
        raise SettingError(f"{path}: is not YAML: {_why(error)}") from error
    if node is None:
        raise SettingError(f"{path}: is empty")
    try:
        found = _value(node, str(path), set())
    except RecursionError as error:
        raise SettingError(f"{path}: is nested too deeply") from error
    if not isinstance(found, dict):
        raise SettingError(f"{path}: must hold settings as name: value, got {_kind(found)}")
    return found


def _value(node: yaml.Node, where: str, seen: set[int]) -> Any:
    line = f"{where}, line {node.start_mark.line + 1}"
    if id(node) in seen:
        raise SettingError(f"{line}: YAML aliases are not read, as ROS reads none: write the value out")
    seen.add(id(node))
    if node.tag not in _KNOWN_TAGS:
        raise SettingError(f"{line}: the tag {node.tag!r:.100} is not read")
    if isinstance(node, yaml.ScalarNode):
        return _scalar(node)
    if isinstance(node, yaml.SequenceNode):
        return [_value(item, where, seen) for item in node.value]
    found: dict[str, Any] = {}
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise SettingError(f"{line}: a name must be text, got {_kind(_value(key, where, seen))}")
        if key.value in found:
            raise SettingError(f"{where}, line {key.start_mark.line + 1}: {key.value!r:.100} is there twice")
        found[key.value] = _value(value, where, seen)
    return found


def _scalar(node: yaml.ScalarNode) -> object:
    text = str(node.value)
    if node.tag == _TAG + "str" or (node.tag == _PLAIN and node.style is not None):
        return text
    if text in (text.lower(), text.upper(), text.capitalize()) and text.lower() in _WORDS:
        return _WORDS[text.lower()]
    if _INT.fullmatch(text) and len(text) < 100:
        return int(text, 16 if text.startswith("0x") else 10)
    if _FLOAT.fullmatch(text):
        return float(text.replace(".inf", "inf").replace(".nan", "nan") if text[-1].isalpha() else text)
    return text


def _sections(table: Mapping[str, Any], path: Path, prefix: str) -> Iterator[Section]:
    """Yield (node, parameters) of every section; nothing where the document has none at all."""
    if PARAMETERS in table and not prefix:
        raise SettingError(f"{path}: {PARAMETERS} stands below no node: write /**: above it")
    inside = [(name, _sectioned(value)) for name, value in table.items() if name != PARAMETERS]
    if not prefix and not any(has for _, has in inside):
        return
    for name, has in inside:
        if not has:
            raise SettingError(
                f"{path}: '{prefix}{name:.100}' stands outside of {PARAMETERS}: indent it below that"
            )
    if PARAMETERS in table:
        parameters = {} if table[PARAMETERS] is None else table[PARAMETERS]
        if not isinstance(parameters, dict):
            raise SettingError(
                f"{path}: {PARAMETERS} of {prefix[:-1]} must hold name: value, got {_kind(parameters)}"
            )
        yield prefix[:-1], dict(_flat(parameters, path))
    for name, _ in inside:
        yield from _sections(table[name], path, f"{prefix}{name}/")


def _sectioned(value: Any) -> bool:
    return isinstance(value, dict) and (PARAMETERS in value or any(map(_sectioned, value.values())))


def _flat(table: Mapping[str, Any], path: Path, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yield `a: {b: 1}` as `a.b: 1`, as ROS names it. A name in both spellings is refused."""
    seen = set[str]()
    for name, value in table.items():
        own = (
            _flat(value, path, f"{prefix}{name}.")
            if isinstance(value, dict)
            else iter([(f"{prefix}{name}", value)])
        )
        for full, each in own:
            if full in seen:
                raise SettingError(f"{path}: {full!r:.100} is there twice")
            seen.add(full)
            yield full, each


def _wildness(section: Section) -> tuple[bool, bool]:
    """Return a sort key: sections for many nodes before those for few, as the later one wins."""
    return "**" not in section[0], "*" not in section[0]


def _kind(value: object) -> str:
    kinds = {dict: "a mapping", list: "a list", type(None): "nothing"}
    return kinds.get(type(value), f"{value!r:.60}")


def _why(error: Exception) -> str:
    """Return one line of a YAML parser's message."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
    where = f" in line {mark.line + 1}" if mark is not None else ""
    return " ".join(str(problem).split())[:200] + where
