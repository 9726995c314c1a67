# SPDX-License-Identifier: Apache-2.0
"""What programs and people of the first version ask for is still there: reply fields, metrics, options."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from first_version import MADE
from servers import Server

from reflex_ros.cli.main import main

ANSWERS = MADE / "answers"


def names(file: str) -> Any:
    return json.loads((ANSWERS / file).read_text())


@pytest.fixture
def server(serve: Callable[..., Server]) -> Server:
    return serve("calm", export_dir=str(MADE / "exports" / "calm"))


def test_every_field_of_every_answer_is_still_there(server: Server) -> None:
    answers = {"act": server.client.act()}
    for path in ("health", "config", "guard/status", "policies"):
        answers[path.replace("/", "_")] = server.client.ask("GET", f"/{path}")
    for name, answer in answers.items():
        assert answer.status == 200, answer.body
        assert set(names(f"{name}.json")) - set(answer.json) == set(), name


def test_every_metric_is_still_there(server: Server) -> None:
    said = server.client.ask("GET", "/metrics").body.decode()
    assert set(names("metrics.json")) - set(re.findall(r"^(\w+)", said, re.MULTILINE)) == set()


@pytest.mark.parametrize("command", names("options.json"))
def test_every_option_of_every_command_is_still_there(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with suppress(SystemExit):
        main([*command.split(), "--help"])
    now = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", capsys.readouterr().out))
    assert set(names("options.json")[command]) - now == set()
