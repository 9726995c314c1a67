# SPDX-License-Identifier: Apache-2.0
"""What `reflex export` takes for policies of real size: seconds in all and of each stage, memory at its peak, size of the export.

    .venv-export/bin/python -m benchmarks.export_cost [act] [diffusion] [smolvla]      (make venv-export)

The checkpoints are LeRobot's own classes with random weights, 0.2 to 1.8 GB each, made in a temporary folder.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.exports import ROOT
from benchmarks.measure import finish, parser, table

STAGE = re.compile(r"^\d/\d (?P<name>.+): (?P<seconds>[\d.]+) s, at most \d+ MB", re.MULTILINE)
# of HuggingFaceTB/SmolVLM2-500M-Video-Instruct, from which SmolVLA takes the first 16 layers
SMOLVLM = {
    "text_config": {
        "model_type": "llama", "hidden_size": 960, "intermediate_size": 2560, "num_hidden_layers": 32, "head_dim": 64,
        "num_attention_heads": 15, "num_key_value_heads": 5, "vocab_size": 49280, "pad_token_id": 2, "rms_norm_eps": 1e-5,
        "rope_theta": 100000, "max_position_embeddings": 8192,
    },
    "vision_config": {
        "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12, "image_size": 512,
        "patch_size": 16,
    },
    "scale_factor": 4, "image_token_id": 49190, "pad_token_id": 2,
}  # fmt: skip


def _act(out: Path) -> Any:
    """52 million parameters: LeRobot's defaults, two cameras of 640x480."""
    from checkpoints import act

    return act(
        out, dim_model=512, n_heads=8, dim_feedforward=3200, n_encoder_layers=4, n_vae_encoder_layers=4, chunk_size=100,
        n_action_steps=100,
    )  # fmt: skip


def _diffusion(out: Path) -> Any:
    """263 million parameters: LeRobot's default U-Net, 100 DDPM steps, two cameras in one encoder."""
    from checkpoints import diffusion

    return diffusion(
        out, down_dims=(512, 1024, 2048), noise_scheduler_type="DDPM", num_inference_steps=None, num_train_timesteps=100,
        crop_shape=None, resize_shape=(240, 320), crop_ratio=0.9,
    )  # fmt: skip


def _smolvla(out: Path) -> Any:
    """450 million parameters: two cameras and an empty one, pictures of 512x512."""
    import checkpoints
    import tiny_models
    from transformers import SmolVLMConfig

    small = tiny_models.save_smolvlm

    def save(folder: Path) -> None:
        small(folder)
        SmolVLMConfig(**SMOLVLM).save_pretrained(folder)

    tiny_models.save_smolvlm = save
    return checkpoints.smolvla(out, resize_imgs_with_padding=(512, 512), num_vlm_layers=16)


POLICIES: dict[str, Callable[[Path], Any]] = {"act": _act, "diffusion": _diffusion, "smolvla": _smolvla}


def add_folder(options: argparse.ArgumentParser) -> None:
    """Add --folder, with which benchmarks.act_against_lerobot takes what this one has left."""
    options.add_argument("--folder", type=Path, help="keep checkpoints and exports there, 0.4 to 3.6 GB each")


@contextmanager
def kept_in(folder: Path | None) -> Iterator[Path]:
    """Yield the folder, which stays, or one that is removed."""
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        yield folder.resolve()
        return
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def make(name: str, out: Path) -> int:
    """Write one checkpoint, in a process of its own."""
    sys.path[:0] = [str(ROOT / "test" / "support"), str(ROOT / "test" / "export" / "support")]
    POLICIES[name](out)
    return 0


@dataclass(frozen=True, slots=True)
class Exported:
    """One checkpoint and its export, with what `reflex export` said and took."""

    made: Path
    out: Path
    said: str
    seconds: float
    usage: resource.struct_rusage


def exported(name: str, folder: Path, *words: str) -> Exported:
    """Make a checkpoint and export it, each in a process of its own. words: more arguments of `reflex export`."""
    run = [sys.executable, "-m"]
    made, out, said = folder / name, folder / f"{name}_export", folder / f"{name}.txt"
    subprocess.run([*run, "benchmarks.export_cost", "--make", str(made), name], cwd=ROOT, check=True)
    known = [f"--{kind}={made / kind}" for kind in ("tokenizer", "vlm", "dataset") if (made / kind).is_dir()]
    command = [*run, "reflex_ros.cli.main", "export", made / "pretrained_model", out, *known, *words]
    command += ["--units=radians", "--force"]
    with said.open("wb") as file:
        began_s = time.monotonic()
        process = subprocess.Popen([*map(str, command)], cwd=ROOT, stdout=file, stderr=file)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - began_s
    text = said.read_text(encoding="utf-8")
    if status:
        raise RuntimeError(f"{name} ended with {os.waitstatus_to_exitcode(status)}:\n{text}")
    return Exported(made, out, text, seconds, usage)


def measured(name: str, folder: Path) -> dict[str, object]:
    """Make a checkpoint, export it, and return what that took."""
    done = exported(name, folder)
    stages = {stage["name"]: float(stage["seconds"]) for stage in STAGE.finditer(done.said)}
    weights = (done.made / "pretrained_model" / "model.safetensors").stat().st_size
    return {
        "policy": name, "parameters / M": round(weights / 4e6), "seconds": round(done.seconds),
        "CPU seconds": round(done.usage.ru_utime + done.usage.ru_stime),
        **{stage: round(seconds) for stage, seconds in stages.items()},
        "peak memory / GB": done.usage.ru_maxrss / 1e6,
        "export / GB": sum(path.stat().st_size for path in done.out.rglob("*") if path.is_file()) / 1e9,
    }  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Print one table."""
    options = parser(__doc__ or "")
    options.add_argument("policies", nargs="*", metavar="POLICY", help=f"{', '.join(POLICIES)} (all of them)")
    options.add_argument(
        "--make", type=Path, help="write the checkpoint of one policy there and export nothing"
    )
    add_folder(options)
    chosen = options.parse_args(argv)
    if unknown := sorted(set(chosen.policies) - set(POLICIES)):
        options.error(f"there is no {unknown[0]} among {', '.join(POLICIES)}")
    if chosen.make is not None:
        return make(chosen.policies[0], chosen.make)
    with kept_in(chosen.folder) as folder:
        rows = [measured(name, folder) for name in chosen.policies or POLICIES]
    print(table(rows))
    finish("export_cost", {"policies": rows}, chosen.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
