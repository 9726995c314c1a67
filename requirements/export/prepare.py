# SPDX-License-Identifier: Apache-2.0
"""Make what export.sh installed importable: LeRobot by Python 3.11, torchvision beside a torch that its wheel was not built for.

prepare.py SITE_PACKAGES    A second run changes nothing. LeRobot's code computes what it computed: only annotations change.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

# The three statements of PEP 695 that LeRobot uses. Its bounds are for type checkers only.
ALIAS = re.compile(r"^type (\w+) = ", re.MULTILINE)
GENERIC_CLASS = re.compile(r"^class (\w+)\[([^\]]+)\](?:\(([^)]*)\))?:", re.MULTILINE)
GENERIC_FUNCTION = re.compile(r"^(\s*(?:async )?def \w+)\[([^\]]+)\]\(", re.MULTILINE)
FUTURE = re.compile(r"^from __future__ import .*\n", re.MULTILINE)

ADDED = "# Added by reflex_ros: "
# Looked up when torchvision is imported, and never called by a policy.
OPERATORS = f"""
{ADDED}the compiled part was built for another torch; its operators are declared, without a body.
if not _has_ops():
    _DECLARED = torch.library.Library("torchvision", "FRAGMENT")
    for _name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, _name):
            _DECLARED.define(f"{{_name}}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
"""


def without_pep695(source: str) -> str:
    """Return a module's source with the type parameters of Python 3.12 written as Python 3.11 reads them."""
    names: set[str] = set()

    def parameters(listed: str) -> list[str]:
        found = [parameter.partition(":")[0].strip() for parameter in listed.split(",")]
        names.update(found)
        return found

    def generic_class(found: re.Match[str]) -> str:
        bases = [found[3]] if found[3] else []
        bases.append(f"_Generic[{', '.join(parameters(found[2]))}]")
        return f"class {found[1]}({', '.join(bases)}):"

    def generic_function(found: re.Match[str]) -> str:
        parameters(found[2])
        return f"{found[1]}("

    source = ALIAS.sub(r"\1 = ", source)
    source = GENERIC_CLASS.sub(generic_class, source)
    source = GENERIC_FUNCTION.sub(generic_function, source)
    if not names:
        return source
    declared = "from typing import Generic as _Generic, TypeVar as _TypeVar\n"
    declared += "".join(f'{name} = _TypeVar("{name}")\n' for name in sorted(names))
    future = FUTURE.search(source)
    start = future.end() if future else 0
    return source[:start] + declared + source[start:]


def rewrite_lerobot(package: Path) -> int:
    """Rewrite the modules that this Python cannot read; returns how many, raises SyntaxError where one stays unreadable."""
    count = 0
    for module in sorted(package.rglob("*.py")):
        source = module.read_text(encoding="utf-8")
        rewritten = without_pep695(source)
        if rewritten == source:
            continue
        compile(rewritten, str(module), "exec")
        module.write_text(rewritten, encoding="utf-8")
        count += 1
    return count


def declare_operators(package: Path) -> None:
    """Let torchvision be imported where its compiled part cannot be loaded."""
    extension = package / "extension.py"
    source = extension.read_text(encoding="utf-8")
    if ADDED not in source:
        extension.write_text(source + OPERATORS, encoding="utf-8")


def main(site_packages: Path) -> int:
    """Prepare the packages of one environment."""
    if sys.version_info < (3, 12):
        print(f"rewrote {rewrite_lerobot(site_packages / 'lerobot')} modules of LeRobot for Python 3.11")
    declare_operators(site_packages / "torchvision")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
