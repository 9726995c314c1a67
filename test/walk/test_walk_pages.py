# SPDX-License-Identifier: Apache-2.0
"""Every command of README, tutorials and how-to guides is run as printed by test_walk.py, or listed with a reason."""

from __future__ import annotations

from pathlib import Path

import pytest
from repository import ROOT
from walk_pages import (
    COMMANDS,
    INSTALL,
    NOT_HERE,
    PAGES,
    PLACES,
    REASONS,
    WORKSPACE,
    Step,
    needs,
    page_steps,
    steps,
    walks,
)
from walk_substitutes import SUBSTITUTES


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_is_run_or_listed_with_a_reason(page: Path) -> None:
    for step in page_steps(page):
        if step.block.kind in COMMANDS:
            runs = bool(step.places and step.commands.strip())
            assert runs or step.listed, f"{page.name}: neither run nor listed:\n{step.block.code}"


def test_readme_and_tutorials_are_walked_in_every_place() -> None:
    found = {(place, page.stem) for place, page in walks()}
    assert {(place, "README") for place in PLACES} <= found
    tutorials = {page.stem for page in (ROOT / "docs" / "tutorials").glob("*.md")}
    # the first commands of that one need torch; test/export runs it
    assert tutorials - {name for _, name in found} <= {"from_lerobot_checkpoint"}
    for place in PLACES:
        assert {name for where, name in found if where == place} & tutorials, place


def test_nothing_is_installed_into_the_environment_of_the_tests() -> None:
    """The workspace is on the ROS that the tests run with."""
    for page in PAGES:
        for step in page_steps(page):
            assert step.block.kind != INSTALL or WORKSPACE not in step.places, page.name


def test_what_a_page_has_a_reader_install_is_found() -> None:
    text = (
        "With `pip install 'reflex_ros[view]'`; `--plot` needs matplotlib, the test pytest; `pip install .`"
    )
    assert needs(text) == [
        "pip install 'reflex_ros[plot]'",
        "pip install 'reflex_ros[view]'",
        "pip install pytest",
    ]


def test_every_reason_and_every_substitute_is_used() -> None:
    every = [step for page in PAGES for step in page_steps(page)]
    assert set(REASONS) - {key for step in every for key in step.listed} == set()
    assert set(NOT_HERE.values()) <= set(REASONS)
    code = "".join(step.commands for step in every if step.places)
    assert [each.word for each in SUBSTITUTES if each.word not in code] == []


def only(text: str) -> Step:
    (found,) = steps(text)
    return found


def test_a_block_runs_where_the_page_says() -> None:
    page = (
        "```\none\n```\n<!-- walk: ros-free workspace -->\n```bash\ntwo\n```\n"
        "<!-- walk: skip gpu -->\n```\nthree\n```\n```\nfour\n```\n<!-- walk: nowhere training -->\n```\nfive\n```\n"
    )
    found = steps(page)
    assert [step.places for step in found] == [
        ("checkout",), ("ros-free", "workspace"), (), ("ros-free", "workspace"), (),
    ]  # fmt: skip
    assert [step.listed for step in found] == [[], [], ["gpu"], [], ["training"]]


def test_lines_of_programs_that_are_not_here_are_left_out_and_listed() -> None:
    step = only("```\ncolcon build\nX=1 ros2 launch reflex_ros \\\n  serve.launch.py\nsource a\n```\n")
    assert step.commands == "colcon build\nsource a\n"
    assert step.listed == ["robot"]


def test_a_prompt_is_not_part_of_a_command_and_a_robot_block_is_listed() -> None:
    assert only("```\n$ reflex ab report traces/\n```\n").commands == "reflex ab report traces/\n"
    assert only("```bash robot\nros2 topic list\n```\n").listed == ["robot"]
    assert only("<!-- walk: while make demo -->\n```\ncurl\n```\n").beside == "make demo"


@pytest.mark.parametrize(
    "page",
    ["```sh\nls\n```\n", "<!-- walk: skip tired -->\n```\nls\n```\n", "<!-- walk: moon -->\n```\nls\n```\n"],
)
def test_a_label_and_a_comment_that_mean_nothing_are_refused(page: str) -> None:
    with pytest.raises(ValueError, match="walk|labelled"):
        steps(page)
