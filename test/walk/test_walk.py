# SPDX-License-Identifier: Apache-2.0
"""README, tutorials and how-to guides, command by command as printed: in a fresh clone, a colcon workspace, without ROS."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tutorial import Block
from walk_pages import WORKSPACE, Step, needs, page_steps, walks
from walk_places import PLACES as MAKES
from walk_places import Place, alone, home, install
from walker import Walker, walker


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Place]:
    """`places("checkout")`: made on first use."""
    made: dict[str, Place] = {}

    def find(name: str) -> Place:
        if name not in made:
            made[name] = MAKES[name](tmp_path_factory.mktemp(name))
        return made[name]

    return find


WALKS = [pytest.param(place, page, id=f"{place}-{page.stem}") for place, page in walks()]


@pytest.mark.slow
@pytest.mark.parametrize(("place", "page"), WALKS)
def test_the_page_holds(place: str, page: Path, places: Callable[[str], Place], tmp_path: Path) -> None:
    for command in needs(page.read_text(encoding="utf-8")) if place != WORKSPACE else ():
        install(places(place), command)
    with alone() as enter, walker(places(place), enter, tmp_path) as reader:
        reader.walk(page_steps(page))
    assert reader.ran


@pytest.fixture
def empty(tmp_path: Path) -> Place:
    """A place with nothing in it but this shell."""
    (tmp_path / "folder").mkdir()
    return Place("checkout", tmp_path / "folder", home(tmp_path / "home"), "")


def here(kind: str, code: str, before: str = "") -> Step:
    return Step(Block(kind, code, before), ("checkout",))


def test_a_command_that_fails_and_output_that_differs_are_found(empty: Place, tmp_path: Path) -> None:
    reader = Walker(empty, [], tmp_path)
    reader.walk([here("bash", "echo one two; echo three\n"), here("text", "one...\nthree\n")])
    assert reader.ran == ["echo one two; echo three\n"]
    for wrong in (
        [here("bash", "false | cat\n")],
        [here("bash fails", "true\n")],
        [here("bash", "echo one\n"), here("text", "two\n")],
    ):
        with pytest.raises(AssertionError):
            reader.walk(wrong)


def test_a_file_is_saved_under_the_name_that_the_text_says(empty: Place, tmp_path: Path) -> None:
    Walker(empty, [], tmp_path).walk(
        [
            here("python", "print(6 * 7)\n", "Save as `a.py`:\n\n"),
            here("bash", "python3 a.py\n"),
            here("text", "42\n"),
        ]
    )
