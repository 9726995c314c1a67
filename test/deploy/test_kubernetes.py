# SPDX-License-Identifier: Apache-2.0
"""deploy/kubernetes.yml: its parts fit each other and the server that they start. No cluster is at hand: it was never applied."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from repository import ROOT

from reflex_core.settings.table import settings_from
from reflex_ros.cli.serve import parser
from reflex_ros.sidecar.app import OPERATIONS
from reflex_ros.sidecar.server import FINISH_S

SPARE_S = 5.0  # of the server's own end: FINISH_S and this for its threads
DOCUMENTS = list(yaml.safe_load_all((ROOT / "deploy" / "kubernetes.yml").read_text(encoding="utf-8")))
BY_KIND: dict[str, dict[str, Any]] = {document["kind"]: document for document in DOCUMENTS}
PODS = BY_KIND["StatefulSet"]["spec"]
POD = PODS["template"]["spec"]
[CONTAINER] = POD["containers"]


def settings() -> Any:
    verb, *arguments = CONTAINER["args"]
    assert verb == "serve"
    overrides = vars(parser().parse_args(arguments))
    del overrides["no_ros"], overrides["config"], overrides["print_config"]
    return settings_from(overrides)


def test_there_is_one_of_each_kind_with_the_version_that_serves_it() -> None:
    assert {kind: document["apiVersion"] for kind, document in BY_KIND.items()} == {
        "StatefulSet": "apps/v1", "Service": "v1", "PodDisruptionBudget": "policy/v1",
    }  # fmt: skip
    assert len(DOCUMENTS) == len(BY_KIND)


def test_selectors_find_the_pods() -> None:
    labels = PODS["template"]["metadata"]["labels"].items()
    service, budget = BY_KIND["Service"], BY_KIND["PodDisruptionBudget"]
    for selector in (
        PODS["selector"]["matchLabels"],
        service["spec"]["selector"],
        budget["spec"]["selector"]["matchLabels"],
    ):
        assert selector
        assert selector.items() <= labels
    assert PODS["serviceName"] == service["metadata"]["name"]
    assert service["spec"]["clusterIP"] == "None", "the balancer must see every pod"
    assert budget["spec"]["maxUnavailable"] < PODS["replicas"]


def test_the_command_is_understood_and_serves_without_ros_with_a_key() -> None:
    assert "--no-ros" in CONTAINER["args"]
    assert "--insecure" not in CONTAINER["args"]
    found = settings()
    [port] = CONTAINER["ports"]
    assert (found.port, found.host) == (port["containerPort"], "0.0.0.0")
    [mount] = [mount for mount in CONTAINER["volumeMounts"] if mount["name"] == "key"]
    assert found.api_key_file.startswith(f"{mount['mountPath']}/")
    [variable] = CONTAINER["env"]
    assert found.robot_id == f"$({variable['name']})"


@pytest.mark.parametrize("probe", ["startupProbe", "readinessProbe", "livenessProbe"])
def test_probes_ask_a_port_and_a_path_that_there_are(probe: str) -> None:
    found = CONTAINER[probe]
    wanted = found.get("httpGet") or found["tcpSocket"]
    assert wanted["port"] in [port["name"] for port in CONTAINER["ports"]]
    if "path" in wanted:
        assert wanted["path"] in [operation.path for operation in OPERATIONS if operation.method == "GET"]


def test_a_policy_that_loads_for_long_is_waited_for_and_one_that_fails_is_not_restarted() -> None:
    startup = CONTAINER["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= settings().load_timeout_s
    assert "httpGet" not in CONTAINER["livenessProbe"], "/health is 503 while a breaker is open"
    assert CONTAINER["readinessProbe"]["httpGet"]["path"] == "/health"


def test_a_pod_has_time_to_answer_what_is_in_flight() -> None:
    assert settings().drain_s >= 5.0, "the balancer must see it go first"
    assert POD["terminationGracePeriodSeconds"] > settings().drain_s + FINISH_S + SPARE_S


def test_the_image_runs_as_the_user_that_it_has_and_writes_only_where_it_may() -> None:
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8")
    assert f"--uid {POD['securityContext']['runAsUser']} " in dockerfile
    assert CONTAINER["securityContext"]["readOnlyRootFilesystem"]
    volumes = {volume["name"] for volume in POD["volumes"]}
    assert {mount["name"] for mount in CONTAINER["volumeMounts"]} == volumes
