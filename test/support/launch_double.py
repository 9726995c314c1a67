# SPDX-License-Identifier: Apache-2.0
"""What the launch files need of launch and launch_ros, which are on no registry: used where ROS is not installed."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any

from repository import ROOT


class Context(SimpleNamespace):
    """Where a launch file finds the arguments: `Context(launch_configurations={...})`."""


class Entity(SimpleNamespace):
    """Anything that a launch file describes, with what it was given."""


def _entity(kind: str, *positional: str) -> Callable[..., Entity]:
    return lambda *given, **named: Entity(kind=kind, **dict(zip(positional, given, strict=False)), **named)


def _module(name: str, **members: Any) -> ModuleType:
    made = ModuleType(name)
    vars(made).update(members)
    return made


@contextmanager
def launch_modules() -> Iterator[bool]:
    """Make `launch` and `launch_ros` importable; yields True where these are the doubles."""
    if importlib.util.find_spec("launch_ros") is not None:
        yield False
        return
    actions = _module(
        "launch.actions",
        DeclareLaunchArgument=_entity("argument", "name"),
        SetEnvironmentVariable=_entity("environment", "name", "value"),
        OpaqueFunction=_entity("function"),
    )
    nodes = {"Node": _entity("node"), "LifecycleNode": _entity("node")}
    description = _entity("description", "entities")
    made = {
        "launch": _module("launch", LaunchContext=Context, LaunchDescription=description, actions=actions),
        "launch.actions": actions,
        "launch_ros": _module("launch_ros"),
        "launch_ros.actions": _module("launch_ros.actions", **nodes),
    }
    known = {name: sys.modules.get(name) for name in made}
    sys.modules.update(made)
    try:
        yield True
    finally:
        for name, module in known.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


LAUNCH = ROOT / "launch"


def described(name: str) -> Any:
    """The launch description of a file; the doubles stand in where there is no ROS install."""
    spec = importlib.util.spec_from_file_location(name, LAUNCH / f"{name}.launch.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with launch_modules():
        spec.loader.exec_module(module)
        return module.generate_launch_description()
