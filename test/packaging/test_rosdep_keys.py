# SPDX-License-Identifier: Apache-2.0
"""Every key of package.xml is one that rosdep resolves, on every distribution of the stored copy."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from catkin_pkg.package import parse_package
from pyproject_file import requirements
from repository import ROOT

STORED = yaml.safe_load((ROOT / "test/packaging/rosdep_keys.yaml").read_text(encoding="utf-8"))
UBUNTU: dict[str, str] = STORED["distributions"]


def keys() -> set[str]:
    package = parse_package(str(ROOT / "package.xml"))
    kinds = (package.buildtool_depends, package.build_depends, package.exec_depends, package.test_depends)
    return {dependency.name for dependencies in kinds for dependency in dependencies}


def resolved(key: str, release: str) -> list[str]:
    """What rosdep would install of a key on an Ubuntu release, pip packages as `pip:NAME`."""
    rules: Any = STORED["rosdep"][key]
    for name in ("ubuntu", release):
        if isinstance(rules, dict) and "pip" not in rules:
            rules = rules.get(name, rules.get("*"))
    if isinstance(rules, dict):
        return [f"pip:{name}" for name in rules["pip"]["packages"]]
    return list(rules or [])


@pytest.mark.parametrize("distribution", UBUNTU)
def test_every_key_of_package_xml_resolves(distribution: str) -> None:
    unresolved = {key for key in keys() - set(STORED["released"]) if not resolved(key, UBUNTU[distribution])}
    assert unresolved == set()


def test_the_stored_copy_names_no_key_that_package_xml_does_not() -> None:
    assert {*STORED["released"], *STORED["rosdep"]} == keys()


def test_a_release_that_a_key_leaves_out_is_found() -> None:
    STORED["rosdep"]["test-key"] = {"ubuntu": {"*": ["something"], "jammy": None}}
    try:
        assert [resolved("test-key", release) for release in ("noble", "jammy")] == [["something"], []]
    finally:
        del STORED["rosdep"]["test-key"]


def test_pip_keys_bring_what_the_wheel_asks_for() -> None:
    brought = {name for key in STORED["rosdep"] for name in resolved(key, "noble")}
    pip = {name.removeprefix("pip:") for name in brought if name.startswith("pip:")}
    assert "onnxruntime" in pip
    assert pip <= requirements("cpu", "ros", "demo", "test").keys()
