# SPDX-License-Identifier: Apache-2.0
"""The seed's quick start with two policies, its words as they stand, in a directory that holds v1 and v2."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from asking import figure
from children import end
from http_client import PATIENCE_S, Client, jpeg, wait_for
from repository import ROOT
from ros_world import REACH_HOME

from reflex_core.files.share import embedded_policy
from reflex_core.records.trace.parse import TraceError
from reflex_core.records.trace.reader import TraceReader
from reflex_core.slots.routing import bucket

SERVE = "reflex serve ./v1/ --policy-a ./v1/ --policy-b ./v2/ --split 80 --no-rtc"
HERE = "--port 0 --no-ros --device cpu --intra-op-threads 1 --record traces --record-images none"


def reflex(words: str) -> list[str]:
    """The command line with this environment's program in front."""
    return [sys.executable, "-m", "reflex_ros.cli.main", *words.split()[1:]]


@dataclass(frozen=True)
class Place:
    directory: Path
    client: Client


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Both policies served: the embedded one in pieces, and as one graph."""
    directory = tmp_path_factory.mktemp("rollout")
    shutil.copytree(embedded_policy(), directory / "v1")
    shutil.copytree(embedded_policy() / "monolithic", directory / "v2")
    environment = dict(os.environ, PYTHONPATH=str(ROOT))
    process = subprocess.Popen(
        reflex(f"{SERVE} {HERE}"), cwd=directory, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        found = next(
            filter(
                None, (re.search(r"listening on http://127\.0\.0\.1:(\d+)", line) for line in process.stdout)
            )
        )
        client = Client(int(found[1]))
        wait_for(lambda: client.get("/health").status == 200)
        yield Place(directory, client)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0
    finally:
        end(process)


@pytest.mark.parametrize("export", ["./v1/", "./v2/"])
def test_both_pass_the_doctor_first(place: Place, export: str) -> None:
    done = subprocess.run(
        reflex(f"reflex doctor {export} --no-ros --port 0"), cwd=place.directory, text=True, capture_output=True,
        env=dict(os.environ, PYTHONPATH=str(ROOT)), timeout=PATIENCE_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


def test_episodes_go_where_their_hash_says_and_the_reply_says_so(place: Place) -> None:
    slots, versions = Counter[str](), set[tuple[str, str]]()
    for number in range(40):
        episode = f"ep_xyz_{number}"
        body = {
            "episode_id": episode,
            "image": jpeg(),
            "instruction": "pick up the cup",
            "state": REACH_HOME,
        }
        answer = place.client.ask("POST", "/act", json.dumps(body).encode(), Content_Type="application/json")
        assert answer.status == 200, answer.body
        slot = answer.headers["x-reflex-policy-slot"]
        assert slot == ("a" if bucket(episode) < 80 else "b")
        assert re.fullmatch(r"[\w.-]+@[0-9a-f]{16}", answer.headers["x-reflex-model-version"])
        slots[slot] += 1
        versions.add((slot, answer.headers["x-reflex-model-version"]))
    assert len(versions) == 2
    for slot, count in slots.items():
        assert figure(place.client, "reflex_act_latency_seconds_count", policy_slot=slot) == count


def test_the_trace_names_both_policies_and_where_each_request_went(place: Place) -> None:
    body = {"episode_id": "ep_xyz", "image": jpeg(), "instruction": "pick up the cup", "state": REACH_HOME}
    assert place.client.ask("POST", "/act", json.dumps(body).encode()).headers["x-reflex-policy-slot"] == "a"

    def recorded() -> list[dict[str, object]]:
        """What the file holds by now: it is written while it is read."""
        try:
            [trace] = (place.directory / "traces").iterdir()
            with TraceReader(trace) as reader:
                assert [policy["slot"] for policy in reader.header["policies"]] == ["a", "b"]
                return [record.document["routing"] for record in reader if record.episode_id == "ep_xyz"]
        except (FileNotFoundError, ValueError, TraceError):
            return []

    wait_for(recorded)
    [routing] = recorded()
    assert {"slot", "routing_key", "degraded", "cached"} <= set(routing)
    assert (routing["slot"], routing["routing_key"], routing["degraded"]) == ("a", "ep_xyz", False)
