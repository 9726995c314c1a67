# SPDX-License-Identifier: Apache-2.0
"""What programs and people of the first version ask for is still there: reply fields, metrics, options."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from first_version import MADE
from http_client import STATE
from recordings import jpeg
from servers import Server

from reflex_ros.cli.main import main
from reflex_ros.cli.verbs import VERBS
from reflex_ros.sidecar.cloud_client import answer_of

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
    text = server.client.ask("GET", "/metrics").body.decode()
    assert set(names("metrics.json")) - set(re.findall(r"^(\w+)", text, re.MULTILINE)) == set()


@pytest.mark.parametrize("command", names("options.json"))
def test_every_option_of_every_command_is_still_there(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with suppress(SystemExit):
        main([*command.split(), "--help"])
    now = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", capsys.readouterr().out))
    if " " not in command:  # of those that are off by default help names the one that switches them on
        now |= {
            option for action in VERBS[command].load().parser().actions for option in action.option_strings
        }
    assert set(names("options.json")[command]) - now == set()


def test_a_server_of_the_first_version_may_be_the_cloud_of_this_one() -> None:
    reply = names("act_reply.json")
    answer = answer_of(200, json.dumps(reply).encode(), reply["request_id"])
    assert np.array_equal(answer.actions, np.array(reply["actions"], np.float32))
    assert (answer.names, answer.dt_s, answer.source) == (
        tuple(reply["action_names"]),
        reply["dt_s"],
        "policy",
    )
    assert (answer.seed, answer.model_hash) == (reply["seed"], reply["model_hash"])


def test_a_robot_of_the_first_version_is_answered(server: Server) -> None:
    """It sends what its own client sent: no robot_id, nothing that came later."""
    body = {
        "image": b64encode(jpeg()).decode(),
        "instruction": "reach",
        "state": STATE,
        "request_id": "r",
        "seed": 3,
    }
    answer = server.client.ask("POST", "/act", json.dumps(body).encode(), X_Reflex_Hop="1")
    assert answer.status == 200, answer.body
    assert (answer.json["request_id"], answer.json["seed"]) == ("r", 3)
