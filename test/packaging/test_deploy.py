# SPDX-License-Identifier: Apache-2.0
"""The examples in deploy/: what they start is understood, what they mount is there, and they hold what they promise."""

from __future__ import annotations

import configparser
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from debian_tools import systemd_analyze
from repository import ROOT

from reflex_core.settings.table import TABLE, settings_from
from reflex_ros.cli.serve import REFUSED, parser
from reflex_ros.cli.serve import main as serve_main

DEPLOY = ROOT / "deploy"
UNIT = (DEPLOY / "reflex.service").read_text(encoding="utf-8")
COMPOSE = yaml.safe_load((DEPLOY / "compose.yml").read_text(encoding="utf-8"))
DOCKERFILE = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
FLAGS = (ROOT / "docs" / "reference" / "settings.md").read_text(encoding="utf-8")


class Section(dict[str, Any]):
    """systemd lets a key stand several times; a plain parser would keep the last."""

    def __setitem__(self, key: str, value: Any) -> None:
        if isinstance(value, list) and key in self:
            self[key].extend(value)
        else:
            super().__setitem__(key, value)


def service() -> dict[str, list[str]]:
    """Key and values of [Service], continued lines joined."""
    parser = configparser.RawConfigParser(
        dict_type=Section, strict=False, delimiters="=", comment_prefixes="#"
    )
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(re.sub(r" *\\\n *", " ", UNIT))
    return {key: value.splitlines() for key, value in parser.items("Service")}


def commands() -> dict[str, list[str]]:
    """What is given to `reflex` by each example."""
    [started] = service()["ExecStart"]
    program, *arguments = shlex.split(started)
    assert program == "/opt/reflex/bin/reflex"
    return {"reflex.service": arguments, "compose.yml": COMPOSE["services"]["reflex"]["command"]}


@pytest.mark.parametrize("example", ["reflex.service", "compose.yml"])
def test_the_command_is_understood_by_reflex_serve(example: str) -> None:
    verb, *arguments = commands()[example]
    assert verb == "serve"
    overrides = vars(parser().parse_args(arguments))
    del overrides["no_ros"], overrides["config"], overrides["print_config"]
    settings = settings_from(overrides)
    assert settings.robot_id
    assert settings.port == 8000


@pytest.mark.parametrize("example", ["reflex.service", "compose.yml"])
def test_every_flag_is_in_the_flags_page(example: str) -> None:
    names = {row.name for row in TABLE}
    for flag in re.findall(r"--[a-z-]+", " ".join(commands()[example])):
        name = flag[2:].replace("-", "_")
        assert name in names
        assert f"| `{name}` |" in FLAGS


def test_the_unit_needs_a_key_beyond_loopback_and_takes_it_as_a_credential() -> None:
    command = " ".join(commands()["reflex.service"])
    assert "--insecure" not in command
    [loaded] = service()["LoadCredential"]
    assert f"--api-key-file ${{CREDENTIALS_DIRECTORY}}/{loaded.split(':')[0]} " in command


def test_the_unit_restarts_after_a_crash_and_not_after_a_refusal_or_a_stop() -> None:
    found = service()
    assert found["Restart"] == ["on-failure"]
    assert found["RestartPreventExitStatus"] == [f"2 {REFUSED}"]
    assert "WatchdogSec" not in found, "the server sends no heartbeat"


def test_serve_ends_with_the_status_that_the_unit_does_not_restart_after(tmp_path: Path) -> None:
    """With the unit's own options, but for the export, which is not there."""
    verb, *arguments = commands()["reflex.service"]
    assert verb == "serve"
    arguments[arguments.index("--export-dir") + 1] = str(tmp_path / "gone")
    assert serve_main(arguments) == REFUSED
    assert str(REFUSED) in service()["RestartPreventExitStatus"][0].split()


def test_the_limit_of_restarts_counts_also_where_a_policy_loads_for_long() -> None:
    """The load may take load_timeout_s; in five times that systemd must not have forgotten the first failure."""
    [hours] = re.findall(r"^StartLimitIntervalSec=(\d+)h$", UNIT, re.MULTILINE)
    [burst] = re.findall(r"^StartLimitBurst=(\d+)$", UNIT, re.MULTILINE)
    assert int(hours) * 3600 >= int(burst) * settings_from({}).load_timeout_s


@pytest.mark.parametrize("example", ["reflex.service", "compose.yml"])
def test_a_restart_does_not_set_the_robot_in_motion(example: str) -> None:
    assert "--await-goal" in commands()[example]


def test_compose_restarts_what_monitors_for_ever_and_the_policy_a_few_times() -> None:
    policies = {name: service["restart"] for name, service in COMPOSE["services"].items()}
    assert policies.pop("reflex") == "on-failure:5"
    assert set(policies.values()) == {"unless-stopped"}


@pytest.mark.parametrize("name", sorted(COMPOSE["services"]))
def test_every_container_is_checked_and_has_time_to_start(name: str) -> None:
    check = COMPOSE["services"][name]["healthcheck"]
    assert {"test", "interval", "timeout", "start_period"} <= set(check)
    assert int(check["start_period"].removesuffix("s")) >= 30


def test_the_unit_writes_only_where_it_may() -> None:
    found = service()
    assert found["ProtectSystem"] == ["strict"]
    allowed = (f"/var/lib/{found['StateDirectory'][0]}/", f"/var/log/{found['LogsDirectory'][0]}")
    command = commands()["reflex.service"]
    written = [command[command.index(flag) + 1] for flag in ("--record", "--audit-log")]
    assert [path for path in written if not path.startswith(allowed)] == []


def complaints(unit: str, folder: Path) -> list[str]:
    """What systemd itself says about a unit whose program is there."""
    analyze, variables = systemd_analyze()
    path = folder / "reflex.service"
    path.write_text(unit.replace("/opt/reflex/bin/reflex", sys.executable), encoding="utf-8")
    done = subprocess.run(
        [analyze, "verify", str(path)], env={**os.environ, **variables}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return [
        line for line in done.stderr.splitlines() if "reflex.service" in line or "error while loading" in line
    ]


def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    assert complaints(UNIT, tmp_path) == []


def test_systemd_notices_a_word_that_it_does_not_know(tmp_path: Path) -> None:
    [line] = complaints(UNIT.replace("ProtectProc=invisible", "ProtectProc=banana"), tmp_path)
    assert "banana" in line


@pytest.mark.parametrize("name", sorted(COMPOSE["services"]))
def test_what_compose_mounts_is_there_or_a_volume_of_its_own(name: str) -> None:
    for mount in COMPOSE["services"][name]["volumes"]:
        source = mount.split(":")[0]
        if source.startswith("."):
            assert (DEPLOY / source).is_file(), source
        else:
            assert source in COMPOSE["volumes"]


def test_prometheus_and_grafana_find_their_files_in_the_container() -> None:
    services = COMPOSE["services"]
    mounted = {mount.split(":")[1] for service in services.values() for mount in service["volumes"]}
    scrape = yaml.safe_load((ROOT / "dashboards" / "prometheus.yml").read_text(encoding="utf-8"))
    [configured] = [part for part in services["prometheus"]["command"] if part.startswith("--config.file=")]
    folder = Path(configured.split("=")[1]).parent
    [routes] = [part for part in services["alertmanager"]["command"] if part.startswith("--config.file=")]
    assert routes.split("=")[1] in mounted
    wanted = [*scrape["rule_files"], *scrape["scrape_configs"][0]["file_sd_configs"][0]["files"]]
    assert {str(folder / name) for name in wanted} <= mounted
    provider = yaml.safe_load((DEPLOY / "grafana" / "dashboards.yml").read_text(encoding="utf-8"))
    boards = Path(provider["providers"][0]["options"]["path"])
    assert {str(boards / name) for name in ("fleet.json", "robot.json")} <= mounted


def test_grafana_asks_prometheus_and_alertmanager_of_the_example_and_prometheus_sends_alerts_there() -> None:
    sources = yaml.safe_load((DEPLOY / "grafana" / "datasource.yml").read_text(encoding="utf-8"))[
        "datasources"
    ]
    addresses = {source["type"]: source["url"].removeprefix("http://") for source in sources}
    assert set(addresses) == {"prometheus", "alertmanager"}
    for name, address in addresses.items():
        assert f"--web.listen-address={address}" in COMPOSE["services"][name]["command"]
    scrape = yaml.safe_load((ROOT / "dashboards" / "prometheus.yml").read_text(encoding="utf-8"))
    [manager] = scrape["alerting"]["alertmanagers"]
    assert manager["static_configs"] == [{"targets": [addresses["alertmanager"]]}]


def test_nothing_of_the_example_listens_beyond_loopback() -> None:
    services = COMPOSE["services"]
    assert "--insecure" not in services["reflex"]["command"]
    assert services["reflex"]["command"][services["reflex"]["command"].index("--host") + 1] == "127.0.0.1"
    assert services["grafana"]["environment"]["GF_SERVER_HTTP_ADDR"] == "127.0.0.1"
    targets = yaml.safe_load((DEPLOY / "robots.yml").read_text(encoding="utf-8"))
    assert [entry["targets"] for entry in targets] == [["127.0.0.1:8000"]]


def test_the_robot_id_is_the_same_on_the_robot_and_at_prometheus() -> None:
    [target] = yaml.safe_load((DEPLOY / "robots.yml").read_text(encoding="utf-8"))
    command = COMPOSE["services"]["reflex"]["command"]
    assert command[command.index("--robot-id") + 1] == target["labels"]["robot_id"]


def test_the_image_is_made_of_what_git_keeps() -> None:
    assert re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE) == [
        "requirements requirements",
        ". .",
    ]
    left_out = (DEPLOY / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    assert [line for line in ignored if line not in left_out and f"**/{line}" not in left_out] == []
    assert ".git" in left_out


def test_the_image_installs_the_versions_that_were_tested() -> None:
    installs = re.findall(r"pip install (.+)$", DOCKERFILE.replace("\\\n", " "), re.MULTILINE)
    assert len(installs) == 3
    for arguments in installs:
        assert "-c requirements/constraints.txt" in arguments
        for file in re.findall(r"-[cr] (\S+)", arguments):
            assert (ROOT / file).is_file(), file


def runtime_step() -> str:
    """The shell step of the Dockerfile that depends on RUNTIME, with a pip that prints its arguments."""
    [step] = re.findall(r"^RUN (case .+? esac)$", DOCKERFILE.replace("\\\n", " "), re.MULTILINE)
    return step.replace("/opt/reflex/bin/pip", "echo pip")


@pytest.mark.parametrize(
    ("runtime", "status", "output"),
    [
        ("cpu", 0, ""),
        (
            "gpu",
            0,
            "pip install --no-cache-dir -c requirements/constraints.txt onnxruntime-gpu[cuda,cudnn]\n",
        ),
        ("banana", 1, ""),
    ],
)
def test_the_image_for_a_gpu_brings_the_libraries_of_cuda_and_another_runtime_is_refused(
    runtime: str, status: int, output: str
) -> None:
    command = ["sh", "-euc", runtime_step()]
    done = subprocess.run(
        command, env={**os.environ, "RUNTIME": runtime}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (status, output)
    assert done.stderr == ("RUNTIME=banana is not known; take cpu or gpu.\n" if status else "")


def test_a_runtime_of_the_image_is_an_extra_of_the_package() -> None:
    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert '".[$RUNTIME,ros]"' in DOCKERFILE
    assert all(re.search(rf"^{extra} = ", pyproject, re.MULTILINE) for extra in ("cpu", "gpu", "ros"))


def test_the_gpu_override_serves_as_the_example_does_and_reserves_a_gpu() -> None:
    override = yaml.safe_load((DEPLOY / "compose.gpu.yml").read_text(encoding="utf-8"))["services"]
    assert set(override) == {"reflex"}
    example = COMPOSE["services"]["reflex"]
    assert override["reflex"]["command"] == [*example["command"], "--device", "cuda"]
    assert override["reflex"]["build"] == {"args": {"RUNTIME": "gpu"}}
    assert override["reflex"]["image"] != example["image"]
    [device] = override["reflex"]["deploy"]["resources"]["reservations"]["devices"]
    assert device["driver"] == "nvidia"
    assert "gpu" in device["capabilities"]
    assert "restart" not in override["reflex"], "the restart policy of the example counts"
