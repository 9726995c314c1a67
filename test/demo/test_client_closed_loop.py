# SPDX-License-Identifier: Apache-2.0
"""The simulated arm, driven by reflex_client over HTTP: on held-out scenes it reaches the block that the instruction names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from servers import Server

from reflex_client import Episode, Playback, Policy, Reply
from reflex_core.files.share import embedded_policy
from reflex_ros.demo.arm import Arm
from reflex_ros.demo.scene import Scene, make_scene

FIRST_HELD_OUT_SEED = 10_000
EPISODES = 20
ROWS, REPLAN_ROWS = 100, 20  # five seconds, a chunk each second
DELAYS_ROWS = (0, 4)  # from an observation until its chunk is there
PATIENCE_S = 60.0


@pytest.fixture
def server(serve: Callable[..., Server]) -> Server:
    return serve("mono_pi0_7", export_dir=str(embedded_policy()))


@pytest.fixture(scope="module")
def arm() -> Iterator[Arm]:
    made = Arm()
    yield made
    made.close()


def observation(arm: Arm) -> dict[str, Any]:
    return {"images": arm.image(), "state": arm.joint_positions_rad}


def drive(episode: Episode, arm: Arm, delay: int) -> list[Reply]:
    """Execute rows at the arm's own pace, whatever this machine's: time stands still while a chunk is made, and then it is late."""
    playback, replies = Playback(), []
    coming: tuple[int, Any] | None = None
    for row in range(ROWS):
        if row % REPLAN_ROWS == 0:
            mark = playback.mark()
            reply = episode.act(
                **observation(arm), elapsed_rows=mark.elapsed_rows, previous_request_id=mark.previous_request_id, seed=row,
            )  # fmt: skip
            replies.append(reply)
            coming = row + delay, lambda reply=reply, mark=mark: playback.join(reply, mark)
        if coming is not None and coming[0] == row:
            assert coming[1]()
            coming = None
        following = playback.next()
        arm.step(arm.joint_positions_rad if following is None else following.action, 0.05)
    return replies


def reached(policy: Policy, arm: Arm, scene: Scene, delay: int) -> bool:
    arm.reset(scene)
    with policy.episode(f"scene-{scene.seed}-{delay}", scene.instruction) as episode:
        replies = drive(episode, arm, delay)
        assert [reply.rtc_mode for reply in replies] == ["", *["guided_identity"] * (len(replies) - 1)]
        assert [reply.document["rtc_previous"] for reply in replies[1:]] == [
            reply.request_id for reply in replies[:-1]
        ]
        episode.outcome(success=arm.reached(scene))
    return arm.reached(scene)


@pytest.mark.parametrize("delay", DELAYS_ROWS)
def test_the_arm_is_led_to_the_named_block_by_the_client(server: Server, arm: Arm, delay: int) -> None:
    policy = Policy(server.sidecar.url, timeout_s=PATIENCE_S)
    scenes = [make_scene(FIRST_HELD_OUT_SEED + number) for number in range(EPISODES)]
    done = [reached(policy, arm, scene, delay) for scene in scenes]
    assert sum(done) >= 0.95 * len(done), done


def test_the_arm_is_led_there_in_real_time_by_the_player(server: Server, arm: Arm) -> None:
    """Chunks are asked for in a thread while rows go out at 20 Hz; the camera's newest image is what a driver would have."""
    policy = Policy(server.sidecar.url, timeout_s=PATIENCE_S)
    scene = make_scene(FIRST_HELD_OUT_SEED)
    arm.reset(scene)
    newest = observation(arm)
    with policy.episode(instruction=scene.instruction) as episode, episode.player(lambda: newest) as player:
        executed = 0
        while executed < ROWS:
            row = player.next_row()
            if row is not None:
                arm.step(row.action, row.dt_s)
                newest = observation(arm)
                executed += 1
        assert player.chunks >= 2
        assert player.problem is None
    assert arm.reached(scene), arm.distance_m(scene)
