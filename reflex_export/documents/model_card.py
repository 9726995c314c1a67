# SPDX-License-Identifier: Apache-2.0
"""README.md of an export: what it is, what it reads and writes, and what is still to be said before it moves a robot."""

from __future__ import annotations

from collections.abc import Iterator

from reflex_core.text.untrusted import escaped
from reflex_export.checkpoint import Checkpoint
from reflex_export.documents.verification_page import verdict
from reflex_export.options import ExportOptions
from reflex_export.result import Verification

KINDS = {
    "act": "ACT", "diffusion": "Diffusion Policy", "smolvla": "SmolVLA", "pi0": "pi0", "pi05": "pi0.5", "xvla": "X-VLA",
}  # fmt: skip


def model_card(checkpoint: Checkpoint, options: ExportOptions, model_id: str, found: Verification) -> str:
    """Return README.md."""
    parts = [
        f"# {escaped(model_id)}",
        f"{KINDS[checkpoint.family]}, trained with LeRobot and exported to ONNX ({checkpoint.weights.elements / 1e6:.1f} million"
        f" numbers, {options.dtype}): `reflex serve DIR` of reflex_ros serves it.",
        f"{verdict(found)} ([VERIFICATION.md](VERIFICATION.md)).",
        "\n".join(["| | |", "|---|---|", *(f"| {name} | {text} |" for name, text in _rows(checkpoint))]),
    ]
    if checkpoint.robot.open_questions:
        parts += [
            "## Still to be said",
            "\n".join(f"- {sentence}" for sentence in checkpoint.robot.open_questions),
        ]
    if notes := (*checkpoint.notes, *found.notes):
        parts += ["## Notes", "\n".join(f"- {note}" for note in notes)]
    parts += [
        "## Before it moves a robot",
        "`embodiment.json` is a skeleton: put the robot's limits in place of every text that begins with FILL IN; `reflex serve`"
        " refuses it until then. Nothing here says that the policy does its task: the comparison shows that the export answers"
        " as the checkpoint does.",
        "## Licence",
        "That of the checkpoint and of the data that it was trained on; the export adds no condition.",
    ]
    return "\n\n".join(parts) + "\n"


def _rows(checkpoint: Checkpoint) -> Iterator[tuple[str, str]]:
    cameras = [
        f"{escaped(camera.camera)} ({camera.width}x{camera.height})"
        for camera in checkpoint.cameras
        if not camera.empty
    ]
    yield "cameras", ", ".join(cameras)
    if checkpoint.observation_steps > 1:
        yield "history", f"{checkpoint.observation_steps} observations, a control period apart"
    if checkpoint.tokenizer is not None:
        yield "instruction", "in words"
    yield "state", f"{checkpoint.state_dim} numbers" if checkpoint.state_dim else "not read"
    yield "actions", f"{checkpoint.action_dim}: {', '.join(map(escaped, checkpoint.joints))}"
    yield (
        "chunk",
        f"{checkpoint.horizon} rows, of which {checkpoint.n_action_steps} are executed before the next",
    )
    if checkpoint.robot.frequency_hz is not None:
        yield "rate", f"{checkpoint.robot.frequency_hz:g} Hz"
    if checkpoint.robot.units:
        yield "units", ", ".join(checkpoint.robot.units)
    if checkpoint.robot.robot_type:
        yield "robot", checkpoint.robot.robot_type
