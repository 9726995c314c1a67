# SPDX-License-Identifier: Apache-2.0
"""A board of the rqt panel in every state, filled with messages as a node sends them: for pictures and tests."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from reflex_ros.msg import ActionChunk, ServeStatus

from reflex_core.values import Pixels
from reflex_ros.rqt.board import Board
from reflex_ros.rqt.panel_view import Picture

NODE, NOW_S = "/reflex", 10_000.0
JOINTS = [f"panda_joint{number}" for number in range(1, 8)]
LIMITS = (
    (-2.8973, 2.8973), (-1.7628, 1.7628), (-2.8973, 2.8973), (-3.0718, -0.0698), (-2.8973, 2.8973), (-0.0175, 3.7525),
    (-2.8973, 2.8973),
)  # fmt: skip
HOME = (0.0, 0.2, 0.0, -2.4, 0.0, 2.6, 0.8)
TOPICS = {
    "camera": "/camera/image_raw", "state": "/joint_states", "instruction": "/instruction", "episode": "/episode",
}  # fmt: skip
INSTRUCTION, EPISODE, POLICY = "pick up the red cube", "ep_arm7_1764532800_12", "pick_panda@4f1c9a02"
CLAMPED = ["panda_joint4 above max: 0.0512 > -0.0698", "panda_joint2 velocity: 3.1 > 2.175 rad/s"]


def status(**fields: Any) -> ServeStatus:
    """A robot that follows its policy."""
    values = {
        "state": "ready", "robot_id": "arm7", "embodiment": "franka", "model_version": POLICY, "inference_mode": "onnx_cpu",
        "instruction": INSTRUCTION, "episode_id": EPISODE, "control": "policy", "blend": 1.0, "latency_p50_ms": 118.0,
        "latency_p99_ms": 171.0, "chunks_total": 412, "guard_clamped_total": 3, "rtc_mode": "prefix", "rtc_guided_total": 380,
    } | fields  # fmt: skip
    return ServeStatus(**values)


def chunk(latency_ms: float = 118.0, **fields: Any) -> ActionChunk:
    """50 rows of a reach."""
    share = np.linspace(0.0, 1.0, 50)[:, None]
    way = share * share * (3 - 2 * share)
    ends = np.array([0.32, 0.55, 0.021, -1.98, 0.001, 2.51, 1.02])
    rows = (np.array(HOME) + way * (ends - np.array(HOME))).astype(np.float32)
    values = {
        "names": JOINTS, "horizon": 50, "action_dim": 7, "data": rows.ravel().tolist(), "dt_s": 0.02, "latency_ms": latency_ms,
        "policy_slot": "prod", "model_version": POLICY, "source": ActionChunk.SOURCE_POLICY, "start_index": 6, "chunk_id": 40,
    } | fields  # fmt: skip
    return ActionChunk(**values)


def clamped_chunk(**fields: Any) -> ActionChunk:
    """A chunk that the guard changed: the elbow ends at its limit."""
    rows = np.array(chunk().data, np.float32).reshape(50, 7)
    rows[:, 3] = np.minimum(-0.9 + 0.03 * np.arange(50), LIMITS[3][1])
    return chunk(124.0, data=rows.ravel().tolist(), **fields)


def diagnosed(concern: str, level: int = 0, message: str = "fine", **values: str) -> DiagnosticStatus:
    """One concern; `values` by key, blanks as underscores."""
    pairs = [KeyValue(key=key.replace("__", " "), value=value) for key, value in values.items()]
    name = f"{NODE[1:]}: {concern}"
    return DiagnosticStatus(
        level=bytes([level]), name=name, message=message, values=pairs, hardware_id="arm7"
    )


def diagnose(board: Board, at_s: float, *statuses: DiagnosticStatus) -> None:
    """Let the board receive concerns, the usual ones beside."""
    usual = {
        status.name: status
        for status in (
            diagnosed("policy", 0, "ready"),
            diagnosed("connections", 0, "every publisher is heard", **TOPICS),
            diagnosed("observations", 0, "fresh", state__age__ms="8", camera__camera__age__ms="21"),
            diagnosed("outputs", 0, "every group has its controller"),
            diagnosed("guard", 0, "3 of 412 chunks clamped", **ranges()),
            diagnosed("timing", 0, "chunk in 118 ms"),
            diagnosed("circuit breaker", 0, "0 failures in a row"),
            diagnosed("chunk loop", 0, "in time"),
            diagnosed("clocks", 0, "agree as far as stamps show"),
            diagnosed("tracking", 0, "every joint is near its command"),
        )
    }
    usual |= {status.name: status for status in statuses}
    board.diagnostics(DiagnosticArray(status=list(usual.values())), at_s)


def ranges() -> dict[str, str]:
    """The limits as the guard's diagnostic has them."""
    return {
        f"{name}__range": f"{low:g} to {high:g} rad" for name, (low, high) in zip(JOINTS, LIMITS, strict=True)
    }


def serving(
    board: Board, now_s: float, picture: Pixels, *, clamped: Collection[int] = (), **fields: Any
) -> None:
    """Minutes of chunks, then the newest status. clamped: seconds ago at which the guard changed one."""
    draws = np.random.default_rng(9015)
    board.status(status(**fields), now_s)
    diagnose(board, now_s)
    board.parameters({"deadline_ms": 250.0, "slo": "p99=200ms", "blend": 1.0, "policy_b": ""})
    for second in range(230, 0, -1):
        for part in range(3):
            found = chunk(float(draws.gamma(60, 2.0)))
            if part == 0 and second in clamped:
                found = clamped_chunk(chunk_id=500 - second, guard_violations=CLAMPED)
            board.chunk(found, now_s - second + 0.3 * part)
    board.picture(Picture("camera", picture, now_s - 0.05))
    board.status(status(**fields), now_s)


def waiting(board: Board, now_s: float, _: Pixels) -> None:
    """No camera and no instruction yet."""
    problem = "camera_missing: no image from camera 'camera' yet on /camera/image_raw"
    empty = {
        "chunks_total": 0,
        "guard_clamped_total": 0,
        "rtc_guided_total": 0,
        "latency_p50_ms": 0.0,
        "latency_p99_ms": 0.0,
    }
    board.status(status(instruction="", episode_id="", problem=problem, **empty), now_s)
    diagnose(board, now_s, diagnosed("observations", 1, problem, state__age__ms="8"))
    board.parameters({"deadline_ms": 250.0, "slo": "p99=200ms", "blend": 1.0, "policy_b": ""})


def ready(board: Board, now_s: float, picture: Pixels) -> None:
    """All is well; the guard changed a chunk some seconds ago."""
    serving(board, now_s, picture, clamped=(31,))
    board.chunk(chunk(121.0, chunk_id=500), now_s)


def holding(board: Board, now_s: float, picture: Pixels) -> None:
    """The camera has stopped."""
    problem = "stale: camera 'camera' is 812 ms old, at most 200 ms are allowed"
    serving(board, now_s, picture)
    board.status(status(holding=True, hold_reason="stale", problem=problem, holds_total=1), now_s)
    diagnose(
        board, now_s, diagnosed("observations", 2, problem, state__age__ms="8", camera__camera__age__ms="812")
    )
    board.chunk(
        chunk(
            0.0,
            source=ActionChunk.SOURCE_HOLD,
            horizon=1,
            data=list(HOME),
            start_index=0,
            hold_reason="stale",
        ),
        now_s,
    )
    board.picture(Picture("camera", picture, now_s - 4.0))


def stopped(board: Board, now_s: float, picture: Pixels) -> None:
    """A person has pressed STOP."""
    serving(board, now_s, picture)
    fields = {
        "stopped": True,
        "holding": True,
        "hold_reason": "stopped",
        "problem": "stopped: call ~/resume to go on",
    }
    board.status(status(**fields, holds_total=1), now_s)
    board.chunk(chunk(0.0, source=ActionChunk.SOURCE_HOLD, horizon=1, data=list(HOME), start_index=0), now_s)
    board.notify("stop: holding; call ~/resume to go on")


def tripped(board: Board, now_s: float, picture: Pixels) -> None:
    """Ten chunks in a row had to be changed."""
    serving(board, now_s, picture)
    for number in range(10):
        board.chunk(
            clamped_chunk(guard_violations=CLAMPED[:1], chunk_id=500 + number), now_s - 0.9 + 0.08 * number
        )
    reason = "consecutive_clamp_limit_exceeded: 10 chunks in a row were clamped"
    line = f"guard_tripped: {reason}: holding position"
    board.chunk(clamped_chunk(guard_violations=[line, CLAMPED[0]], chunk_id=510), now_s - 0.1)
    fields = {
        "guard_tripped": True,
        "holding": True,
        "hold_reason": "guard_tripped",
        "guard_clamped_total": 13,
    }
    board.status(status(**fields, problem=f"guard_tripped: {line}"), now_s)
    message = f"tripped, the robot holds: {reason}; see what the policy does, then call ~/reset_guard"
    diagnose(board, now_s, diagnosed("guard", 2, message, **ranges()))


def failed(board: Board, now_s: float, _: Pixels) -> None:
    """The export cannot be loaded."""
    why = "the export in /exports/pick has no model.onnx: run reflex doctor"
    board.status(
        status(state="failed", problem=why, instruction="", episode_id="", model_version="", chunks_total=0),
        now_s,
    )
    board.diagnostics(
        DiagnosticArray(
            status=[diagnosed("policy", 2, why), diagnosed("queue", 0, "0 requests in the engine")]
        ),
        now_s,
    )


def silent(board: Board, now_s: float, picture: Pixels) -> None:
    """The node has gone."""
    serving(board, now_s - 12.0, picture)


STATES: Mapping[str, Callable[[Board, float, Pixels], None]] = {
    "READY": ready, "WAITING": waiting, "HOLDING": holding, "STOPPED": stopped, "TRIPPED": tripped, "FAILED": failed,
    "NO CONNECTION": silent,
}  # fmt: skip


def synthetic_picture(height: int = 480, width: int = 640) -> Pixels:
    """A table with three blocks: (height, width, 3) uint8."""
    pixels = np.empty((height, width, 3), np.uint8)
    pixels[:] = np.linspace(120, 190, height, dtype=np.uint8)[:, None, None]
    for share, colour in ((0.2, (190, 40, 40)), (0.45, (40, 130, 60)), (0.7, (50, 80, 180))):
        x, y, size = int(share * width), int(0.6 * height), height // 8
        pixels[y : y + size, x : x + size] = colour
    return pixels


def board_in(state: str, now_s: float = NOW_S, picture: Pixels | None = None) -> Board:
    """Return a board in one of STATES."""
    board = Board(NODE)
    STATES[state](board, now_s, synthetic_picture() if picture is None else picture)
    return board
