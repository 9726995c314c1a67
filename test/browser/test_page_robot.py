# SPDX-License-Identifier: Apache-2.0
"""The page of a real node: what ROS changes is seen in Chromium, and what is pressed there the robot does."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from ros_world import World, wait_for, world
from servers import ExportDir

from benchmarks.chromium import Page, browser


@pytest.fixture(scope="module")
def scene(export_dir: ExportDir) -> Iterator[World]:
    with world(
        export_dir=str(export_dir("calm")), embodiment="franka", robot_id="cell-9", http=True, port=0
    ) as found:
        found.activate()
        found.robot.next_chunk()
        yield found


@pytest.fixture(scope="module")
def page(scene: World) -> Iterator[Page]:
    with browser() as chromium:
        found = chromium.open(scene.server.sidecar.url)
        found.wait_text("#word", "READY")
        yield found


def test_chunks_cameras_and_concerns_of_the_robot_are_seen(scene: World, page: Page) -> None:
    page.wait_text("#instruction", "reach the red cube")
    page.wait_text("#policy", "pi0-mono")
    page.wait_text("#now-facts", "camera")
    assert page.wait("document.querySelector('#cameras img')?.naturalWidth") == 64
    assert page.wait_text("#chunk-note", "rows of 50 ms").startswith("from the policy")
    diagnosed = scene.robot.diagnosed("policy", DiagnosticStatus.OK)
    assert diagnosed.message in page.wait_text("#findings", "policy")


def test_a_live_parameter_is_changed_by_ros_and_seen(scene: World, page: Page) -> None:
    page.wait_text("tr[data-name=deadline_ms]", "live")
    assert scene.robot.set("deadline_ms", 4567.0).successful
    page.wait_text("tr[data-name=deadline_ms]", "4567")
    page.wait_text("#timeline", "deadline 4567")
    assert scene.robot.set("deadline_ms", 0.0).successful
    page.wait("document.querySelector('#timeline .deadline') === null")


def test_a_read_only_parameter_is_refused_and_stays_on_the_page(scene: World, page: Page) -> None:
    answer = scene.robot.set("robot_id", "somebody-else")
    assert not answer.successful
    assert answer.reason
    refused = scene.robot.set("port", 1234)
    assert not refused.successful
    before = page.look("document.querySelector('tr[data-name=robot_id]').innerText")
    assert "cell-9" in before
    assert "fixed" in before
    assert page.text("#robot-id") == "cell-9"


def test_stop_and_resume_on_the_page_are_stop_and_resume_of_the_robot(scene: World, page: Page) -> None:
    page.click("#stop")
    page.wait_text("#word", "STOPPED")
    wait_for(lambda: scene.robot.status.stopped, "~/status says stopped")
    assert scene.robot.chunks[-1].hold_reason == "stopped"
    page.wait("!document.getElementById('resume').hidden")
    page.click("#resume")
    page.wait_text("#resume", "press again")
    page.click("#resume")
    page.wait_text("#word", "READY")
    scene.robot.next_chunk()
    wait_for(lambda: not scene.robot.status.stopped, "~/status says that it goes on")


def test_a_stop_by_ros_is_seen(scene: World, page: Page) -> None:
    assert scene.robot.call("stop").success
    page.wait_text("#word", "STOPPED")
    assert scene.robot.call("resume").success
    page.wait_text("#word", "READY")


def twice(page: Page, button: str) -> None:
    """Press, wait until the button asks for it, and press again."""
    page.click(button)
    page.wait_text(button, "press again")
    page.click(button)


def test_an_instruction_that_is_typed_is_what_the_robot_follows(scene: World, page: Page) -> None:
    page.type("#instruction-text", "reach the blue cube")
    twice(page, "#send-instruction")
    page.wait_text("#instruction", "reach the blue cube")
    wait_for(lambda: scene.robot.status.instruction == "reach the blue cube", "~/status has the instruction")


def test_an_episode_is_ended_with_its_outcome_and_the_next_one_begun(scene: World, page: Page) -> None:
    before = page.text("#episode")
    page.click("#end-success")
    page.wait_text("#notice", f"Stored for {before}: success")
    page.wait_text("#word", "STOPPED")
    wait_for(lambda: scene.robot.status.stopped, "~/status says stopped")
    twice(page, "#start-episode")
    page.wait("document.getElementById('episode').textContent", lambda text: text not in ("", before))
    page.wait_text("#word", "READY")
    begun = page.text("#episode")
    wait_for(lambda: scene.robot.status.episode_id == begun, "~/status has the episode")
    scene.robot.next_chunk()


def test_a_lost_camera_is_said_in_big_letters(scene: World, page: Page) -> None:
    scene.robot.camera_on = False
    page.wait_text("#word", "HOLDING")
    page.wait_text("#sentence", "ms old")
    scene.robot.camera_on = True
    page.wait_text("#word", "READY")


def test_what_a_node_waits_for_is_listed_with_its_topic(export_dir: ExportDir) -> None:
    with (
        world(export_dir=str(export_dir("calm")), embodiment="franka", http=True, port=0) as found,
        browser() as chromium,
    ):
        found.robot.camera_on = False
        found.activate()
        page = chromium.open(found.server.sidecar.url)
        page.wait_text("#word", "WAITING")
        page.wait(  # the joints come a moment after the activation
            "[...document.querySelectorAll('#needs li')].map((each) => each.innerText.split('\\n').join(' '))",
            lambda needs: (
                len(needs) == 3
                and all(part in needs[0] for part in ("Camera missing", "/camera/image_raw"))
                and all("there" in need for need in needs[1:])
            ),
        )
        assert page.look("document.getElementById('chunk').hidden")
        found.robot.camera_on = True
        page.wait_text("#word", "READY")
        page.wait("document.getElementById('checklist').hidden && !document.getElementById('chunk').hidden")


def test_an_inactive_node_refuses_in_a_sentence(export_dir: ExportDir) -> None:
    from http_client import Client

    with world(export_dir=str(export_dir("calm")), embodiment="franka", http=True, port=0) as found:
        assert found.server.sidecar is not None
        answer = Client(found.server.sidecar.port).ask("POST", "/stop")
        assert (answer.status, answer.json["error"]) == (409, "not-active")
        assert answer.json["message"] == "the node is unconfigured, not active"
