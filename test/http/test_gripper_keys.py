# SPDX-License-Identifier: Apache-2.0
"""Clients that count the gripper from 0 to 1, unchanged: DROID's of openpi with the setting, RoboArena's without."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from exports import PANDA_MEAN
from http_client import picture, text
from servers import Server
from wires import in_json, json_tag, packed, unpacked
from ws_client import connected

from reflex_core.errors import ObservationError, SettingError
from reflex_core.robot.gripper_shares import GripperJoint
from reflex_core.robot.groups import GripperEnds
from reflex_core.settings.wire_keys import GUESSED, KeyMap, key_map
from reflex_core.text.rate_limit import RateLimitedLog
from reflex_ros.sidecar.wires import key_map as module
from reflex_ros.sidecar.wires.gripper_keys import in_rad_and_m, shares_in
from reflex_ros.sidecar.wires.key_map import Keys, Received, keys_for

Serve = Callable[..., Server]
JOINTS, GRIPPER = "observation/joint_position", "observation/gripper_position"
BOTH = f"{JOINTS}+{GRIPPER}"
CLOSED = [f"state={BOTH}:closed"]
ROBOARENA, VLLM = "/roboarena", "/v1/realtime/robot/openpi"
OPEN_M = 0.039  # of the franka preset
HALF = 0.0195


def droid(share: float = 0.5, **changes: Any) -> dict[str, Any]:
    """An observation as openpi's DROID client sends it."""
    return {
        "observation/exterior_image_1_left": picture(),
        "observation/wrist_image_left": picture(),
        JOINTS: np.array(PANDA_MEAN),
        GRIPPER: np.array([share]),
        "prompt": "reach the red cube",
        "seed": 3,
    } | changes


def roboarena(share: float = 0.5, **changes: Any) -> dict[str, Any]:
    """An observation as RoboArena's client sends it."""
    return {
        "endpoint": "infer",
        "session_id": "s-1",
        "observation/exterior_image_0_left": picture(),
        JOINTS: np.array(PANDA_MEAN, np.float32),
        "observation/cartesian_position": np.zeros(6, np.float32),
        GRIPPER: np.array([share], np.float32),
        "prompt": "reach the red cube",
        "seed": 3,
    } | changes


def of_act(server: Server, finger_m: float = HALF) -> Any:
    """The rows of POST /act for the same arm in its own numbers, the gripper as its share of the way to closed."""
    image = {"data": text(picture().tobytes()), "encoding": "rgb8", "height": 32, "width": 32}
    body = {"image": image, "instruction": "reach the red cube", "seed": 3, "state": [*PANDA_MEAN, finger_m]}
    answer = server.client.act(body)
    assert answer.status == 200, answer.body
    rows = np.array(answer.json["actions"], np.float32)
    rows[:, 7] = np.clip((OPEN_M - rows[:, 7]) / OPEN_M, 0, 1)
    return rows


def same(rows: Any, expected: Any) -> None:
    assert (rows.dtype, rows.shape) == (np.float32, (50, 8))
    np.testing.assert_allclose(rows, expected, atol=1e-6)
    assert 0.05 < rows[-1, 7] < 0.95


def test_a_droid_client_of_openpi_is_answered_unchanged_with_the_setting(serve: Serve) -> None:
    server = serve("droid", wire_keys=CLOSED)
    seen: list[Any] = []
    server.engine.listen(lambda request, _: seen.append(request.observation.state))
    with connected(server) as client:
        assert unpacked(bytes(client.receive()))["wire_keys"] == CLOSED
        reply = client.infer(droid(**{"reflex/seed": 3}))
    assert reply["reflex"]["keys"]["state"] == f"{BOTH}:closed"
    np.testing.assert_allclose(seen[0], [*PANDA_MEAN, HALF], atol=1e-6)
    same(reply["actions"], of_act(server))


def test_a_roboarena_client_is_answered_unchanged_without_a_setting(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    server = serve("droid")
    seen: list[Any] = []
    server.engine.listen(lambda request, _: seen.append(request.observation.state))
    with caplog.at_level(logging.INFO, module.__name__), connected(server, ROBOARENA) as client:
        client.receive()
        rows = client.infer(roboarena())
    np.testing.assert_allclose(seen[0], [*PANDA_MEAN, HALF], atol=1e-6)
    same(rows, of_act(server))
    lines = [record.getMessage() for record in caplog.records]
    assert any(
        f"guessed, the gripper by the wire's protocol (setting wire_keys): camera=observation/exterior_image_0_left state={BOTH}:closed"
        in line
        for line in lines
    ), lines


def test_a_setting_that_says_the_robots_own_numbers_goes_before_the_protocol(serve: Serve) -> None:
    server = serve("droid", wire_keys=[f"state={BOTH}"])
    with connected(server, ROBOARENA) as client:
        client.receive()
        rows = client.infer(roboarena(HALF))
    expected = of_act(server)
    np.testing.assert_allclose(1 - rows[:, 7] / OPEN_M, expected[:, 7], atol=1e-6)


def test_every_wire_that_reads_these_keys_counts_the_gripper_both_ways(serve: Serve) -> None:
    server = serve("droid", wire_keys=CLOSED)
    expected = of_act(server)
    with connected(server, VLLM) as client:
        client.receive()
        same(client.infer(droid()), expected)
    with connected(server, "/vla-eval?replan=3") as client:
        observation = {key: value for key, value in droid().items() if key not in ("prompt", "seed")} | {
            "task_description": "reach the red cube",
            "reflex/seed": 3,
        }
        for row in range(3):
            client.send(packed({"type": "observation", "seq": row, "payload": observation}))
            answer = unpacked(bytes(client.receive()))
            np.testing.assert_allclose(answer["payload"]["actions"], expected[row], atol=1e-6)
    answer = server.client.ask("POST", "/act", packed(droid()), Content_Type="application/msgpack")
    same(unpacked(answer.body)["actions"], expected)
    tagged = {
        key: json_tag(value) if isinstance(value, np.ndarray) else value for key, value in droid().items()
    }
    body = server.client.ask("POST", "/act", in_json(**tagged)).json
    np.testing.assert_allclose(body["actions"], expected, atol=1e-6)
    assert body["keys"]["state"] == f"{BOTH}:closed"


def test_the_other_sense_is_the_other_way_round(serve: Serve) -> None:
    server = serve("droid", wire_keys=[f"state={BOTH}:open"])
    with connected(server) as client:
        client.receive()
        rows = client.infer(droid(0.25, **{"reflex/seed": 3}))["actions"]
    expected = of_act(server, 0.25 * OPEN_M)
    np.testing.assert_allclose(1 - rows[:, 7], expected[:, 7], atol=1e-6)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("path", [ROBOARENA, "/"])
def test_a_hold_leaves_the_gripper_where_the_client_measured_it(
    serve: Serve, share: float, path: str
) -> None:
    server = serve("droid_nan", wire_keys=CLOSED if path == "/" else [])
    sources: list[str] = []
    server.engine.listen(lambda _, served: sources.append(served.chunk.source))
    failing = np.array([1.1, *PANDA_MEAN[1:]], np.float32)
    with connected(server, path) as client:
        client.receive()
        reply = client.infer((roboarena if path == ROBOARENA else droid)(share, **{JOINTS: failing}))
    rows = reply if path == ROBOARENA else reply["actions"]
    assert sources == ["hold"]
    np.testing.assert_allclose(rows, np.tile([*failing, share], (50, 1)), atol=1e-6)


def test_a_gripper_that_nothing_declares_is_refused_with_the_setting_to_type(serve: Serve) -> None:
    server = serve("droid")
    with connected(server) as client:
        client.receive()
        refused = client.infer(droid())
        assert refused.startswith("gripper-undeclared: ")
        assert f"--wire-keys state={BOTH}:closed if 0 is open and 1 is closed (DROID)" in refused


def test_a_reading_beyond_the_ends_is_refused_and_rounding_is_not(serve: Serve) -> None:
    server = serve("droid", wire_keys=CLOSED)
    with connected(server, ROBOARENA) as client:
        client.receive()
        for reading, slug in (
            (1.3, "implausible-state"),
            (-0.1, "implausible-state"),
            (np.nan, "state-not-finite"),
        ):
            refused = client.infer(roboarena(reading))
            assert refused.startswith(f"{slug}: "), refused
        assert client.infer(roboarena(1.0000001)).shape == (50, 8)
        short = roboarena(**{JOINTS: np.zeros(6, np.float32)})
        assert client.infer(short).startswith("state-length: ")
        many = roboarena(**{GRIPPER: np.zeros(2_000_000, np.uint8)})
        assert client.infer(many).startswith("bad-state: ")


def test_a_robot_whose_ends_are_not_known_is_not_served_with_the_setting(serve: Serve) -> None:
    server = serve("mono_pi0_7", ready=False, wire_keys=CLOSED)
    with pytest.raises(
        SettingError, match="'wire_keys' says 'observation/gripper_position:closed'.* gives the ends"
    ):
        server.engine.load()


FINGER = GripperJoint("finger", 7, 7, GripperEnds(0.04, 0.0))
SECOND = GripperJoint("second", 8, 8, GripperEnds(0.0, 0.8))
UNMEASURED = GripperJoint("finger", 7, None, GripperEnds(0.04, 0.0))
NUMBERS = ((JOINTS, 7), (GRIPPER, 1))


def found(
    chosen: KeyMap = GUESSED,
    numbers: tuple[tuple[str, int], ...] = NUMBERS,
    size: int | None = 8,
    grippers: tuple[GripperJoint, ...] = (FINGER,),
    protocol: str = "",
) -> Keys:
    return keys_for(chosen, Received((), numbers), (), size, "openpi", frozenset(), grippers, protocol)


def in_si(keys: Keys, numbers: dict[str, list[float]], size: int | None, *grippers: GripperJoint) -> Any:
    shares = shares_in(keys, {key: len(values) for key, values in numbers.items()}, grippers, size)
    return in_rad_and_m(np.concatenate([numbers[key] for key in keys.state]), shares).tolist()


@pytest.fixture(autouse=True)
def logged_nothing_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_logged", set())
    monkeypatch.setattr(module, "_line", RateLimitedLog(module.log))
    keys_for.cache_clear()


def test_the_setting_names_keys_and_the_end_that_is_one() -> None:
    chosen = key_map(("state=j+g:closed+k+h:open",))
    assert chosen.state == ("j", "g", "k", "h")
    assert chosen.shares == (("g", "closed"), ("h", "open"))
    assert Keys(state=chosen.state, shares=chosen.shares).document() == {"state": "j+g:closed+k+h:open"}
    for entry in ("state=:closed", "state=j+:open", "state=g:closed+g:open", "state=g+g:closed"):
        with pytest.raises(SettingError, match="each gripper once, with the end that is 1"):
            key_map((entry,))


def test_two_fingers_are_read_each_by_its_own_ends() -> None:
    chosen = key_map(("state=arm+fingers:closed",))
    numbers = {"arm": [0.0] * 7, "fingers": [0.25, 0.5]}
    keys = found(chosen, (("arm", 7), ("fingers", 2)), 9, (FINGER, SECOND))
    assert in_si(keys, numbers, 9, FINGER, SECOND) == pytest.approx([0.0] * 7 + [0.03, 0.4])


def test_a_finger_that_follows_another_has_no_ends_of_its_own() -> None:
    keys = found(key_map(("state=arm+fingers:closed",)), (("arm", 7), ("fingers", 2)), 9)
    with pytest.raises(ObservationError, match="number 8 of the state, which is no gripper") as refused:
        in_si(keys, {"arm": [0.0] * 7, "fingers": [0.25, 0.25]}, 9, FINGER)
    assert refused.value.slug == "gripper-unknown"


def test_a_key_that_is_no_gripper_is_refused_by_what_it_is() -> None:
    keys = found(key_map((f"state={GRIPPER}:closed+{JOINTS}",)))
    with pytest.raises(
        ObservationError,
        match=r"is number 0 of the state, which is no gripper: the grippers are finger \(number 7",
    ):
        in_si(keys, {JOINTS: [0.0] * 7, GRIPPER: [0.5]}, 8, FINGER)
    with pytest.raises(ObservationError, match="has no gripper of which its embodiment gives the ends"):
        in_si(found(protocol="closed", grippers=()), {JOINTS: [0.0] * 7, GRIPPER: [0.5]}, 8)


def test_a_gripper_that_the_policys_state_lacks_still_counts_in_the_actions() -> None:
    """Its column of the reply would be read in shares all the same."""
    sentence = (
        f"state={JOINTS}\\+{GRIPPER}:closed if .* or with --wire-keys state={JOINTS} if it is in rad or m"
    )
    with pytest.raises(ObservationError, match=sentence) as refused:
        found(size=7, grippers=(UNMEASURED,))
    assert refused.value.slug == "gripper-undeclared"
    for keys in (
        found(size=7, grippers=(UNMEASURED,), protocol="closed"),
        found(key_map((f"state={JOINTS}+{GRIPPER}:closed",)), size=7, grippers=(UNMEASURED,)),
    ):
        shares = shares_in(keys, dict(NUMBERS), (UNMEASURED,), 7)
        assert [(one.share.joint.action, one.share.one) for one in shares] == [(7, "closed")]
        assert in_si(keys, {JOINTS: [0.5] * 7, GRIPPER: [0.25]}, 7, UNMEASURED) == [0.5] * 7


def test_a_policy_without_state_asks_for_the_same_declaration() -> None:
    with pytest.raises(ObservationError, match="gripper_position:closed"):
        found(size=None)
    assert found(size=None, protocol="closed").shares == ((GRIPPER, "closed"),)
    assert found(size=None, grippers=()).shares == ()


def test_a_robot_without_a_gripper_reads_joints_alone_on_every_wire() -> None:
    for protocol in ("", "closed"):
        keys = found(size=7, grippers=(), protocol=protocol)
        assert (keys.state, keys.shares) == ((JOINTS,), ())
