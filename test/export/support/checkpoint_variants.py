# SPDX-License-Identifier: Apache-2.0
"""Checkpoints as people bring them: of other releases of LeRobot, of another folder, incomplete.

    python test/export/support/checkpoint_variants.py VARIANT FOLDER OUT      (FOLDER: a pretrained_model folder)

Each makes a copy, changes it and returns what a user would pass to `reflex export`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

sys.path.append(str(Path(__file__).parents[2] / "support"))  # where this file is run by its name
from checkpoint_folders import (
    AFTER,
    BEFORE,
    CONFIG,
    WEIGHTS,
    configure,
    edit,
    old_buffers,
    statistics_of,
    step,
)

LAST_LAYERS = ("action_head", "action_out_proj", "final_conv.1", "action_decoder")
STEP = "000100"  # of a training run
# What configurations of 0.3 have not.
LATER = (
    "compile_mode", "compile_model", "crop_ratio", "pretrained_path", "pretrained_revision", "resize_shape", "use_peft",
)  # fmt: skip


def truncated_weights(folder: Path, out: Path) -> Path:
    """A download or a disk that ended early."""
    weights = copied(folder, out) / WEIGHTS
    os.truncate(weights, weights.stat().st_size * 6 // 10)
    return out


def missing_weights(folder: Path, out: Path) -> Path:
    """The tensors of the last layer are not in the file, which is whole otherwise."""
    tensors = load_file(copied(folder, out) / WEIGHTS)
    kept = {
        name: tensor for name, tensor in tensors.items() if not any(layer in name for layer in LAST_LAYERS)
    }
    _save(kept, out)
    return out


def compiled_weights(folder: Path, out: Path) -> Path:
    """A Diffusion Policy saved while its network was compiled: torch puts a word into the names."""
    tensors = load_file(copied(folder, out) / WEIGHTS)
    network = "diffusion.unet."
    _save({name.replace(network, f"{network}_orig_mod."): tensor for name, tensor in tensors.items()}, out)
    configure(out, compile_model=True)
    return out


def missing_statistics(folder: Path, out: Path) -> Path:
    """The normalizers have no numbers for action, and LeRobot leaves it as it is without a word."""
    for file in {statistics_of(copied(folder, out)), *out.glob("policy_postprocessor_step_*.safetensors")}:
        kept = {name: values for name, values in load_file(file).items() if not name.startswith("action.")}
        save_file(kept, file)
    return out


def lora(folder: Path, out: Path) -> Path:
    """An adapter alone, as PEFT saves it; its weights mean something only on those of the base policy."""
    (copied(folder, out) / WEIGHTS).unlink()
    configure(out, use_peft=True)
    adapter = {
        "base_model_name_or_path": "lerobot/smolvla_base", "peft_type": "LORA", "r": 16, "lora_alpha": 32,
        "target_modules": ["q_proj", "v_proj"], "bias": "none", "inference_mode": True, "task_type": None,
    }  # fmt: skip
    (out / "adapter_config.json").write_text(json.dumps(adapter, indent=2), encoding="utf-8")
    save_file(
        {"base_model.model.q_proj.lora_A.weight": np.zeros((16, 64), np.float32)},
        out / "adapter_model.safetensors",
    )
    return out


def run_folder(folder: Path, out: Path) -> Path:
    """The folder of a training run, with the checkpoint below it and the link to the newest one."""
    checkpoint = out / "checkpoints" / STEP
    copied(folder, checkpoint / "pretrained_model")
    (checkpoint / "training_state").mkdir()
    (checkpoint / "training_state" / "training_step.json").write_text('{"step": 100}', encoding="utf-8")
    (out / "checkpoints" / "last").symlink_to(STEP)
    return out


def release_0_3(folder: Path, out: Path) -> Path:
    """Of LeRobot 0.3: no pipelines, the statistics of the modes in use among the weights."""
    buffers = old_buffers(copied(folder, out))
    _save(load_file(out / WEIGHTS) | buffers, out)
    for file in out.glob("policy_*"):
        file.unlink()
    edit(out / CONFIG, lambda config: [config.pop(key, None) for key in LATER])
    return out


def release_0_4(folder: Path, out: Path) -> Path:
    """Of LeRobot 0.4: pi0 and pi0.5 have no steps for relative actions, and state files count without them."""
    copied(folder, out)
    for name, absent in ((BEFORE, "relative_actions_processor"), (AFTER, "absolute_actions_processor")):
        pipeline = json.loads((out / name).read_text(encoding="utf-8"))
        steps = [entry for entry in pipeline["steps"] if entry["registry_name"] != absent]
        for number, entry in enumerate(steps):
            if "state_file" in entry:
                counted = f"{Path(name).stem}_step_{number}_{entry['registry_name']}.safetensors"
                (out / entry["state_file"]).rename(out / counted)
                entry["state_file"] = counted
        (out / name).write_text(json.dumps(pipeline | {"steps": steps}, indent=2), encoding="utf-8")
    later = ("use_relative_actions", "relative_exclude_joints", "action_feature_names")
    edit(out / CONFIG, lambda config: [config.pop(key, None) for key in later])
    return out


def release_0_5(folder: Path, out: Path) -> Path:
    """Of LeRobot 0.5: relative actions have another name, which 0.6 does not know."""
    copied(folder, out)

    def rename(pipeline: dict[str, Any]) -> None:
        step(pipeline, "relative_actions_processor")["registry_name"] = "delta_actions_processor"

    edit(out / BEFORE, rename)
    return out


def unknown_step(folder: Path, out: Path) -> Path:
    """A step that other code registers."""
    edit(
        copied(folder, out) / BEFORE,
        lambda pipeline: pipeline["steps"].insert(2, {"registry_name": "blur_faces", "config": {}}),
    )
    return out


def step_of_own_class(folder: Path, out: Path) -> Path:
    """A step that is named by its class: code that is nowhere in the folder."""
    edit(
        copied(folder, out) / BEFORE,
        lambda pipeline: pipeline["steps"].insert(2, {"class": "my_steps.Blur", "config": {}}),
    )
    return out


def unknown_type(folder: Path, out: Path) -> Path:
    """A policy of a plug-in."""
    configure(copied(folder, out), type="my_policy")
    return out


def renamed_cameras(folder: Path, out: Path) -> Path:
    """Trained with --rename_map: the robot's cameras are called otherwise than the policy's."""
    names = {f"observation.images.{theirs}": f"observation.images.{own}" for theirs, own in CALLED.items()}
    copied(folder, out)
    edit(
        out / BEFORE,
        lambda pipeline: step(pipeline, "rename_observations_processor")["config"].update(rename_map=names),
    )
    return out


CALLED = {"front": "top", "hand": "wrist"}  # of `renamed_cameras`: the robot's name -> the policy's
VARIANTS: Mapping[str, Callable[[Path, Path], Path]] = {
    make.__name__: make
    for make in (
        truncated_weights, missing_weights, compiled_weights, missing_statistics, lora, run_folder, release_0_3, release_0_4,
        release_0_5, unknown_step, step_of_own_class, unknown_type, renamed_cameras,
    )
}  # fmt: skip


def copied(folder: Path, out: Path) -> Path:
    """Copy a checkpoint's folder; returns `out`."""
    return Path(shutil.copytree(folder, out))


def _save(tensors: Mapping[str, NDArray[Any]], folder: Path) -> None:
    save_file(dict(tensors), folder / WEIGHTS, metadata={"format": "pt"})


def main(words: list[str] | None = None) -> int:
    """Make one variant by hand."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("variant", choices=list(VARIANTS))
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    chosen = parser.parse_args(words)
    print(VARIANTS[chosen.variant](chosen.folder, chosen.out))
    return 0


if __name__ == "__main__":
    sys.exit(main())
