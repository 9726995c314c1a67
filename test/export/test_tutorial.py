# SPDX-License-Identifier: Apache-2.0
"""docs/tutorials/from_lerobot_checkpoint.md, followed to the letter with small checkpoints of LeRobot's own classes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from checkpoints import Made
from tutorial import blocks, reader

from reflex_core.export.export import CONFIG_NAME
from reflex_core.files.json_fields import read_object

LEFT_IN_RUN = Path("checkpoints") / "000100" / "pretrained_model"


def training_run(made: Made, folder: Path) -> None:
    """Lay a checkpoint out as `lerobot-train` leaves it."""
    shutil.copytree(made.folder, folder / LEFT_IN_RUN)
    (folder / "checkpoints" / "last").symlink_to("000100")


def test_from_a_lerobot_checkpoint_to_a_served_policy(
    checkpoint: Callable[[str], Made], tmp_path: Path
) -> None:
    act, smolvla = checkpoint("act"), checkpoint("smolvla")
    assert act.dataset is not None
    assert smolvla.tokenizer is not None
    assert smolvla.vlm is not None
    training_run(act, tmp_path / "outputs" / "train" / "act_so101")
    training_run(smolvla, tmp_path / "outputs" / "train" / "smolvla_so101")
    shutil.copytree(act.dataset, tmp_path / "data" / "so101_pick")
    shutil.copytree(smolvla.vlm, tmp_path / "smolvlm")
    shutil.copytree(smolvla.tokenizer, tmp_path / "smolvlm", dirs_exist_ok=True)
    with reader(tmp_path) as tutorial:
        tutorial.follow(blocks("from_lerobot_checkpoint"))
    for name, kind in (("act_so101", "act"), ("smolvla_so101", "smolvla")):
        source = read_object(tmp_path / name / CONFIG_NAME)["source"]
        assert (source["type"], source["verified"]) == (kind, True)
    units = json.loads((tmp_path / "act_so101" / CONFIG_NAME).read_text())["units"]
    assert units == {
        "shoulder_pan": "degrees",
        "shoulder_lift": "degrees",
        "elbow_flex": "degrees",
        "wrist_flex": "degrees",
        "wrist_roll": "degrees",
        "gripper": "percent",
    }
