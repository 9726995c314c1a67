# SPDX-License-Identifier: Apache-2.0
"""ACT and Diffusion Policy over HTTP: answers, what they cannot do, and everything that is around every policy."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from asking import ALWAYS_MISSED, AT_REST, BEYOND, figure
from http_client import Answer, raw, wait_for
from kinds import HEIGHT, WIDTH, diffusion
from schedules import SAMPLE, ddim_table
from servers import ExportDir, Server

from reflex_core.errors import ConfigurationError
from reflex_ros.console import startup_banner

Serve = Callable[..., Server]


def act(server: Server, state: list[float] = AT_REST, **fields: Any) -> Answer:
    image = raw(height=HEIGHT, width=WIDTH)
    return server.client.act({"image": image, "instruction": "reach", "state": state} | fields)


def effective(server: Server) -> Any:
    return server.client.get("/config").json["effective"]


def test_act_answers_alike_for_every_seed_and_records_it(serve: Serve) -> None:
    server = serve("act")
    first, second = (act(server, seed=seed).json for seed in (7, 8))
    assert (first["seed"], second["seed"]) == (7, 8)
    assert first["actions"] == second["actions"]
    assert (first["num_actions"], first["denoising_steps"], first["num_denoising_steps"]) == (40, 1, 1)
    assert (first["source"], first["guard_clamped"]) == ("policy", False)
    assert figure(server.client, "reflex_denoise_steps_total") == 2


@pytest.mark.parametrize(("name", "steps"), [("diffusion_ddim", 10), ("diffusion_ddpm", 20)])
def test_diffusion_answers_by_its_seed_in_the_steps_of_its_table(serve: Serve, name: str, steps: int) -> None:
    server = serve(name)
    first, again, other = (act(server, seed=seed).json for seed in (7, 7, 8))
    assert first["actions"] == again["actions"] != other["actions"]
    assert (first["num_actions"], first["denoising_steps"], first["num_denoising_steps"]) == (
        16,
        steps,
        steps,
    )


def test_what_a_kind_cannot_do_is_in_config_policies_and_the_startup_banner(serve: Serve) -> None:
    server = serve("act")
    described, lines = effective(server), list[str]()
    assert (described["kind"], set(described["cannot"])) == (
        "deterministic", {"guidance", "early_stop", "fewer_steps", "prefix_cache"},
    )  # fmt: skip
    assert described["cannot"]["guidance"] in described["rtc"]["note"]
    assert described["policies"]["slots"]["prod"]["cannot"] == described["cannot"]
    startup_banner.show(server.engine, server.sidecar, lines.append, stream=io.StringIO())
    banner = "\n".join(lines)
    assert "  kind             deterministic, 1 step\n" in banner
    for reason in described["cannot"].values():
        assert reason in banner


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"adaptive_steps": True}, "--adaptive-steps: .*: a deterministic policy has no denoise loop"),
        ({"prefix_cache": True}, "--prefix-cache: .*: it has no prefix of its own"),
        ({"denoise_steps": 4}, "denoise_steps cannot be set to 4: a deterministic policy has none"),
        ({"slo": "p99=150ms", "slo_mode": "degrade"}, "--slo-mode degrade: .*: a deterministic policy has no denoise steps"),
    ],
)  # fmt: skip
def test_a_setting_that_asks_for_what_it_cannot_do_is_refused(
    serve: Serve, settings: dict[str, Any], says: str
) -> None:
    server = serve("act", ready=False, **settings)
    with pytest.raises(ConfigurationError, match=says):
        server.engine.load()


def test_an_objective_that_no_kind_can_be_degraded_for_is_only_logged(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="reflex_core")
    server = serve("diffusion_ddim", slo=ALWAYS_MISSED)
    assert "--slo-mode auto is log_only" in caplog.text
    assert "a diffusion policy with a sampler table takes the steps of the table" in caplog.text
    assert effective(server)["slo"]["mode"] == "log_only"


def test_over_the_deadline_the_last_good_chunk_of_a_deterministic_policy_goes_on(serve: Serve) -> None:
    server = serve("act_burning", deadline_ms=500.0, max_fallback_age_ms=60_000.0)
    assert act(server, episode_id="ep_1").json["source"] == "policy"
    reply = act(server, BEYOND, episode_id="ep_1").json
    assert (reply["source"], reply["deadline_exceeded"]) == ("last_known_good", True)


def test_nan_of_a_deterministic_policy_holds_the_robot(serve: Serve) -> None:
    reply = act(serve("act_nan"), BEYOND).json
    assert (reply["source"], reply["hold_reason"]) == ("hold", "non_finite")


def test_ddim_stops_early_over_http_where_a_threshold_is_given(serve: Serve, tmp_path: Path) -> None:
    diffusion(ddim_table(20, SAMPLE), prediction=SAMPLE)(tmp_path / "sure")
    server = serve("act", export_dir=str(tmp_path / "sure"), adaptive_steps=True, adaptive_threshold=0.05)
    reply = act(server).json
    assert reply["adaptive_enabled"] is True
    assert 3 <= reply["denoising_steps"] < reply["num_denoising_steps"] == 20


def test_two_kinds_share_the_episodes_of_one_robot(serve: Serve, export_dir: ExportDir) -> None:
    paths = {"policy_a": str(export_dir("act")), "policy_b": str(export_dir("diffusion_ddim"))}
    server = serve("act", export_dir="", **paths, split=50, rtc=False)
    rows = {act(server, episode_id=f"ep_{number}").json["num_actions"] for number in range(20)}
    assert rows == {40, 16}
    kinds = {slot["kind"] for slot in effective(server)["policies"]["slots"].values()}
    assert kinds == {"deterministic", "diffusion"}


def test_one_kind_may_be_the_shadow_of_another(serve: Serve, export_dir: ExportDir) -> None:
    server = serve("act", shadow_policy=str(export_dir("diffusion_ddpm")))
    assert act(server).status == 200
    wait_for(lambda: effective(server)["policies"]["shadow"]["compared"] == 1)


def test_as_many_rows_are_executed_as_the_robot_and_the_policy_allow(
    serve: Serve, export_copy: ExportDir
) -> None:
    path = export_copy("act")
    for written, rows in ((None, 25), (8, 8), (40, 25)):  # the franka preset executes 25
        config = json.loads((path / "reflex_config.json").read_text()) | {"n_action_steps": written}
        (path / "reflex_config.json").write_text(json.dumps(config))
        server = serve("act", export_dir=str(path))
        described = effective(server)
        assert (described["n_action_steps"], described["execution_horizon"]) == (written, rows)
    assert effective(serve("act", export_dir=str(path), execution_horizon=3))["execution_horizon"] == 3


def test_another_picture_moves_the_arm_elsewhere(serve: Serve) -> None:
    server = serve("act")
    here = np.array(act(server).json["actions"])
    dark = raw(height=HEIGHT, width=WIDTH, colour=(0, 0, 0))
    assert np.abs(np.array(act(server, image=dark).json["actions"]) - here).max() > 1e-4


def test_the_chunks_of_an_episode_are_averaged_where_the_export_says_so(serve: Serve) -> None:
    server = serve("act_ensemble")
    moved = [AT_REST, [rest + 0.01 for rest in AT_REST], [rest + 0.02 for rest in AT_REST]]
    own = [np.array(act(server, state).json["actions"]) for state in moved]
    first, second, third = (act(server, state, episode_id="ep_1", elapsed_rows=1.0).json for state in moved)
    np.testing.assert_allclose(first["actions"], own[0], atol=1e-7)
    older, newer = 1.0, np.exp(-0.1)
    mean = (older * own[0][1:] + newer * own[1][:-1]) / (older + newer)
    np.testing.assert_allclose(second["actions"][:-1], mean, atol=1e-6)
    assert second["temporal_ensemble"] == {"chunks": 2, "previous": first["request_id"]}
    assert third["temporal_ensemble"] == {"chunks": 3, "previous": second["request_id"]}
    described = effective(server)
    assert described["temporal_ensemble"] == {"coefficient": 0.1, "first": 1, "averaged": 2}
    assert (described["execution_horizon"], described["rtc"]) == (1, None)
    assert "temporal_ensemble" not in act(server).json  # without an episode there is nothing to go on with


def test_averaging_can_be_switched_off(serve: Serve) -> None:
    server = serve("act_ensemble", temporal_ensemble="off")
    assert "temporal_ensemble" not in act(server, episode_id="ep_1", elapsed_rows=1.0).json
    described = effective(server)
    assert (described["temporal_ensemble"], described["execution_horizon"]) == (None, 25)


def test_without_the_rate_of_the_actions_averaging_is_off_and_says_so(
    serve: Serve, export_copy: ExportDir, caplog: pytest.LogCaptureFixture
) -> None:
    path = export_copy("act_ensemble")
    config = json.loads((path / "reflex_config.json").read_text()) | {"frequency_hz": None}
    (path / "reflex_config.json").write_text(json.dumps(config))
    server = serve("act", export_dir=str(path), embodiment="")
    assert effective(server)["temporal_ensemble"] is None
    assert "temporal ensembling has no effect: the rate of the actions is not known" in caplog.text


def test_a_shadow_averages_its_own_chunks_where_the_answers_are_averaged(
    serve: Serve, export_dir: ExportDir, tmp_path: Path
) -> None:
    """The same policy as its own shadow: it differs by nothing, averaged or not."""
    server = serve(
        "act_ensemble",
        shadow_policy=str(export_dir("act_ensemble")),
        record=str(tmp_path),
        record_no_gzip=True,
    )
    for number in range(3):
        state = [rest + 0.01 * number for rest in AT_REST]
        assert act(server, state, episode_id="ep_1", elapsed_rows=1.0).status == 200
        wait_for(lambda count=number: effective(server)["policies"]["shadow"]["compared"] > count)
    server.engine.unload()
    lines = [json.loads(line) for line in next(tmp_path.glob("*.jsonl")).read_text().splitlines()]
    worst = [line["divergence"]["max_abs"] for line in lines if line["kind"] == "shadow"]
    assert worst == [[0.0] * 7] * 3


@pytest.mark.parametrize("written", ["0.01", True, 11])
def test_a_coefficient_that_is_none_is_refused(serve: Serve, export_copy: ExportDir, written: Any) -> None:
    path = export_copy("act_ensemble")
    config = json.loads((path / "reflex_config.json").read_text()) | {"temporal_ensemble_coeff": written}
    (path / "reflex_config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigurationError, match="'temporal_ensemble_coeff' must be a number from -10 to 10"):
        serve("act", ready=False, export_dir=str(path)).engine.load()
