# SPDX-License-Identifier: Apache-2.0
"""Do the tests notice a fault? Changes one operator, constant or line at a time and runs the tests that should fail.

    python -m benchmarks.mutants reflex_core/robot/limits/check.py --tests test/core/robot/limits/test_limits_check.py

Works on a copy of this checkout and never touches it. Prints every mutant that the tests let live; exits with 1 when
there are any. A survivor is a missing test, or a change that makes no difference: read each.
"""

from __future__ import annotations

import argparse
import ast
import copy
import importlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
COPIED = (
    "reflex_core",
    "reflex_ros",
    "benchmarks",
    "test",
    "config",
    "models",
    "docs",
    "pyproject.toml",
    "package.xml",
)
COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr, ast.FloorDiv: ast.Mult,
}  # fmt: skip
SWAPPED = {
    "minimum": "maximum", "maximum": "minimum", "min": "max", "max": "min", "fmin": "fmax", "fmax": "fmin",
    "any": "all", "all": "any",
}  # fmt: skip
CHANGED = (
    ast.Compare, ast.BoolOp, ast.BinOp, ast.AugAssign, ast.UnaryOp, ast.comprehension, ast.Attribute, ast.Name,
    ast.Constant, ast.If, ast.IfExp, ast.While, ast.Expr, ast.Assign,
)  # fmt: skip
VARIANTS = 3  # the most ways in which one place is changed


@dataclass(frozen=True)
class Mutant:
    """One changed place. what: [column] and the change. source: the whole file with it."""

    path: Path
    line: int
    what: str
    source: str


def mutants_of(path: Path) -> Iterator[Mutant]:
    """Every mutant of a file, one change each; annotations, decorators, imports and messages are left alone."""
    text = path.read_text()
    for index, node in enumerate(_places(ast.parse(text))):
        if not isinstance(node, CHANGED):
            continue
        for variant in range(VARIANTS):
            if not isinstance(node, ast.If | ast.While) and not _change(copy.deepcopy(node), variant):
                continue
            tree = ast.parse(text)
            what = _change(_places(tree)[index], variant)
            if what:
                source = ast.unparse(ast.fix_missing_locations(tree))
                where = node.target if isinstance(node, ast.comprehension) else node
                line, column = getattr(where, "lineno", 0), getattr(where, "col_offset", 0)
                yield Mutant(path, line, f"[{column}] {what}", source)


def _places(node: ast.AST) -> list[ast.AST]:
    """What of a tree is behaviour, in a fixed order."""
    found = [node]
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and not isinstance(
                child, ast.JoinedStr | ast.Import | ast.ImportFrom
            ):
                found += _places(child)
    return found


def _change(node: ast.AST, variant: int) -> str:
    """Change `node` in place; what was changed, empty where there is nothing to change in that way."""
    if isinstance(node, ast.Compare) and variant < len(node.ops):
        return _renamed(node.ops, variant, COMPARISONS)
    if isinstance(node, ast.BoolOp) and variant == 0:
        node.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        return "and <-> or"
    if isinstance(node, ast.BinOp | ast.AugAssign) and variant == 0 and type(node.op) in OPERATORS:
        before = type(node.op).__name__
        node.op = OPERATORS[type(node.op)]()
        return f"{before} -> {type(node.op).__name__}"
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not) and variant == 0:
        node.op, node.operand = ast.Not(), ast.UnaryOp(ast.Not(), node.operand)
        return "not dropped"
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and variant == 0:
        node.op = ast.UAdd()
        return "minus dropped"
    if isinstance(node, ast.comprehension) and variant < len(node.ifs):
        node.ifs[variant] = ast.Constant(True)
        return "filter dropped"
    if isinstance(node, ast.Attribute | ast.Name) and variant == 0:
        name = "attr" if isinstance(node, ast.Attribute) else "id"
        if (before := getattr(node, name)) in SWAPPED:
            setattr(node, name, SWAPPED[before])
            return f"{before} -> {SWAPPED[before]}"
    if isinstance(node, ast.Constant) and type(node.value) in (int, float, bool):
        before_value = node.value
        if type(before_value) is bool and variant == 0:
            node.value = not before_value
        elif type(before_value) is not bool and variant < 2:
            node.value = before_value + 1 if variant == 0 else before_value * 2 + 0.5
        else:
            return ""
        return f"{before_value} -> {node.value}"
    if isinstance(node, ast.If | ast.IfExp | ast.While) and variant < (
        1 if isinstance(node, ast.While) else 2
    ):
        node.test = ast.Constant(bool(variant))
        return f"condition -> {bool(variant)}"
    return _dropped(node) if variant == 0 else ""


def _renamed(ops: list[ast.cmpop], index: int, table: dict[type[ast.cmpop], type[ast.cmpop]]) -> str:
    before = type(ops[index])
    if before not in table:
        return ""
    ops[index] = table[before]()
    return f"{before.__name__} -> {table[before].__name__}"


def _dropped(node: ast.AST) -> str:
    """Leave out a bare call that is no log line, or what is stored in an attribute or under a key."""
    before = ast.unparse(node)[:60] if isinstance(node, ast.Expr | ast.Assign) else ""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and "log." not in before:
        node.value = ast.Constant(None)
        return f"dropped: {before}"
    if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Attribute | ast.Subscript):
        node.targets = [ast.Name("_", ast.Store())]
        return f"dropped: {before}"
    return ""


def survives(copy_of: Path, mutant: Mutant, tests: list[str], limit_s: float) -> bool:
    """Run the tests on a copy with the mutant in a fork of this process, where the libraries are loaded already."""
    where = copy_of / mutant.path.relative_to(ROOT)
    whole = where.read_text()
    where.write_text(mutant.source)
    try:
        pid = os.fork()
        if pid == 0:
            _run_tests(copy_of, tests)
        return _passed(pid, limit_s)
    finally:
        where.write_text(whole)


def _passed(pid: int, limit_s: float) -> bool:
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status) == 0
        time.sleep(0.02)
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return False  # an endless loop was noticed: the suite would not end


def _run_tests(copy_of: Path, tests: list[str], loaded: Path | None = None) -> NoReturn:
    """Be a fork that runs the tests and ends: with 0 when they pass, with something else whatever else happens.

    Never returns and never raises: that would run the `finally` of whoever forked, which deletes the copy of all.
    """
    code = 1
    try:
        code = _run_pytest(copy_of, tests, plain=loaded is None)
        if loaded is not None:
            loaded.write_text("\n".join(_libraries()))
    finally:
        os._exit(code)


def _run_pytest(copy_of: Path, tests: list[str], *, plain: bool) -> int:
    """Run pytest in the copy, without a word. plain: leave no compiled files behind."""
    import pytest

    os.setsid()
    os.chdir(copy_of)
    sys.path[:] = [str(copy_of), *[entry for entry in sys.path if entry not in ("", str(ROOT))]]
    sys.modules.pop("benchmarks", None)
    sys.dont_write_bytecode = plain
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
        os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # the tests of one file need none of them
        return int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", *tests]))


def _libraries() -> list[str]:
    """What is loaded and installed: no file of this project, no test."""
    found = [(name, getattr(module, "__file__", None)) for name, module in sys.modules.items()]
    return [
        name
        for name, file in found
        if file and "site-packages" in file and "pytest" not in name and name.split(".")[0] not in COPIED
    ]


def _prepare(copy_of: Path, paths: list[Path], tests: list[str], limit_s: float) -> bool:
    """Run the tests without a mutant. True when they pass; what they load is then loaded here too, for every fork.

    The clean run leaves compiled files behind, which no file that will be changed may have.
    """
    loaded = copy_of / "loaded"
    pid = os.fork()
    if pid == 0:
        _run_tests(copy_of, tests, loaded)
    if not _passed(pid, limit_s):
        return False
    for name in loaded.read_text().split():
        with suppress(Exception):
            importlib.import_module(name)
    for path in paths:
        where = copy_of / path.relative_to(ROOT)
        for compiled in (where.parent / "__pycache__").glob(f"{where.stem}.*"):
            compiled.unlink()
    return True


def main(arguments: list[str] | None = None) -> int:
    """Try the mutants of the given files and print those that live."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--tests", nargs="+", required=True, help="what pytest runs, the most telling first")
    parser.add_argument("--sample", type=int, default=0, help="try only so many, chosen by --seed; 0: all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--lines", type=int, nargs="+", default=[], help="try only the mutants of these lines"
    )
    parser.add_argument(
        "--limit-s", type=float, default=60.0, help="a run that takes longer counts as noticed"
    )
    parser.add_argument(
        "--noconftest", action="store_true", help="quicker, for tests that use nothing of conftest.py"
    )
    chosen = parser.parse_args(arguments)
    if chosen.noconftest:
        chosen.tests.append("--noconftest")
    mutants = [mutant for path in chosen.files for mutant in mutants_of(path.resolve())]
    if chosen.lines:
        mutants = [mutant for mutant in mutants if mutant.line in chosen.lines]
    if not mutants:
        print("nothing to change", file=sys.stderr)
        return 2
    if chosen.sample and chosen.sample < len(mutants):
        mutants = random.Random(chosen.seed).sample(mutants, chosen.sample)
    with tempfile.TemporaryDirectory() as folder:
        copy_of = Path(folder)
        for name in COPIED:
            source = ROOT / name
            (shutil.copytree if source.is_dir() else shutil.copy)(source, copy_of / name)
        subprocess.run(
            ["find", str(copy_of), "-name", "__pycache__", "-prune", "-exec", "rm", "-r", "{}", "+"],
            check=True,
        )
        if not _prepare(copy_of, [path.resolve() for path in chosen.files], chosen.tests, chosen.limit_s * 5):
            print("the tests fail without any mutant", file=sys.stderr)
            return 2
        alive = 0
        for mutant in sorted(mutants, key=lambda each: (each.path, each.line)):
            if survives(copy_of, mutant, chosen.tests, chosen.limit_s):
                alive += 1
                print(f"survived  {mutant.path.relative_to(ROOT)}:{mutant.line}  {mutant.what}", flush=True)
    print(f"{len(mutants)} mutants, {alive} survived")
    return 1 if alive else 0


if __name__ == "__main__":
    sys.exit(main())
