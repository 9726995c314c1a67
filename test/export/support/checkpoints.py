# SPDX-License-Identifier: Apache-2.0
"""Small checkpoints with random weights, made of LeRobot's own classes and saved by LeRobot.

    python test/export/support/checkpoints.py FAMILY OUT        (FAMILY `all` makes each in OUT/FAMILY)

    OUT/pretrained_model/    what `lerobot-train` leaves: the folder to export
    OUT/tokenizer/, OUT/vlm/ what no checkpoint holds and LeRobot takes from the hub, where the family needs it
    OUT/dataset/meta/        info.json and stats.json of the data set it would have been trained on

They look as those of a training machine do: `cuda` in the configuration and in the processors, names of the hub for tokenizer and
vision-language model. A small pi0 or pi0.5 is loaded after `tiny_models.shrink_pi()` only.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import tiny_models  # before LeRobot: it keeps the hub's libraries from asking the network
import torch
from lerobot.configs import FeatureType, NormalizationMode, PolicyFeature, PreTrainedConfig
from lerobot.configs.default import DatasetConfig
from lerobot.configs.train import TrainPipelineConfig
from lerobot.policies.factory import get_policy_class, make_pre_post_processors
from lerobot.processor import tokenizer_processor
from numpy.typing import NDArray
from raw_observations import RANGES

JOINTS = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
NAMES = tuple(f"{joint}.pos" for joint in JOINTS)  # as a data set of LeRobot names them
CAMERAS = ("top", "wrist")
HEIGHT, WIDTH = 480, 640
FPS = 30
BACKBONE = "ResNet18_Weights.IMAGENET1K_V1"  # LeRobot's default; loading it would ask the network


@dataclass(frozen=True)
class Made:
    """Where a checkpoint lies, and beside it what no checkpoint holds (None where the family needs none)."""

    folder: Path
    tokenizer: Path | None
    vlm: Path | None
    dataset: Path

    @classmethod
    def at(cls, root: Path) -> Made:
        """Find the parts below the folder that a maker was given."""
        tokenizer, vlm = (root / name if (root / name).is_dir() else None for name in ("tokenizer", "vlm"))
        return cls(root / "pretrained_model", tokenizer, vlm, root / "dataset")


def act(out: Path, **changes: Any) -> Made:
    """ACT whose chunk depends on what it sees: the last layer of random weights alone would hardly move the robot."""
    sizes = {
        "dim_model": 64, "n_heads": 4, "dim_feedforward": 128, "n_encoder_layers": 1, "n_vae_encoder_layers": 1,
        "chunk_size": 50, "n_action_steps": 40,
    }  # fmt: skip
    return _make("act", out, sizes | changes, written={"pretrained_backbone_weights": BACKBONE})


def act_ensemble(out: Path, **changes: Any) -> Made:
    """ACT with temporal ensembling: one inference per control period."""
    return act(out, **{"temporal_ensemble_coeff": 0.01, "n_action_steps": 1, "chunk_size": 20} | changes)


def diffusion(out: Path, **changes: Any) -> Made:
    """Diffusion Policy with 10 DDIM steps, one encoder for both cameras, and a crop whose offset lies between two pixels."""
    sizes = {
        "down_dims": (32, 64), "horizon": 16, "n_action_steps": 8, "noise_scheduler_type": "DDIM", "num_inference_steps": 10,
        "crop_shape": (431, 577), "use_separate_rgb_encoder_per_camera": False,
    }  # fmt: skip
    return _make("diffusion", out, sizes | changes, written={"pretrained_backbone_weights": BACKBONE})


def diffusion_ddpm(out: Path, **changes: Any) -> Made:
    """Diffusion Policy with 50 DDPM steps that predict the sample, an encoder per camera, pictures resized and cropped."""
    sizes = {
        "down_dims": (32, 64), "horizon": 16, "n_action_steps": 8, "noise_scheduler_type": "DDPM", "num_train_timesteps": 50,
        "prediction_type": "sample", "resize_shape": (240, 320), "crop_ratio": 0.9, "use_group_norm": True,
        "use_separate_rgb_encoder_per_camera": True,
    }  # fmt: skip
    return _make("diffusion", out, sizes | changes)


def smolvla(out: Path, **changes: Any) -> Made:
    """SmolVLA with an empty camera beside the two."""
    side = tiny_models.SMOLVLM_SIDE
    sizes = {"resize_imgs_with_padding": (side, side), "num_vlm_layers": 4, "empty_cameras": 1}
    tiny_models.save_smolvlm(out / "vlm")
    return _make(
        "smolvla", out, sizes | {"vlm_model_name": str(out / "vlm")} | changes,
        written={"vlm_model_name": tiny_models.SMOLVLM}, tokenizer=tiny_models.SMOLVLM,
    )  # fmt: skip


def pi0(out: Path, **changes: Any) -> Made:
    """pi0 with an empty camera beside the two."""
    return _pi("pi0", out, changes)


def pi0_relative(out: Path, **changes: Any) -> Made:
    """pi0 that was trained on actions relative to the state, all but the gripper's."""
    return _pi("pi0", out, {"use_relative_actions": True} | changes)


def pi05(out: Path, **changes: Any) -> Made:
    """pi0.5 with quantiles, whose state is part of the prompt."""
    return _pi("pi05", out, changes)


def pi05_relative(out: Path, **changes: Any) -> Made:
    """pi0.5 whose state is made relative before it enters the prompt, with mean and standard deviation."""
    given = {
        "use_relative_actions": True,
        "normalization_mapping": modes("IDENTITY", "MEAN_STD", "QUANTILES"),
    }
    return _pi("pi05", out, given | changes)


def xvla(out: Path, **changes: Any) -> Made:
    """X-VLA with joint actions, two cameras for its three views."""
    side = tiny_models.SMOLVLM_SIDE
    sizes = {
        "florence_config": tiny_models.FLORENCE, "hidden_size": 128, "depth": 3, "num_heads": 4, "action_mode": "auto",
        "resize_imgs_with_padding": (side, side), "num_image_views": 3, "tokenizer_max_length": 50,
        "normalization_mapping": modes("IDENTITY", "MEAN_STD", "MEAN_STD"),
    }  # fmt: skip
    return _make("xvla", out, sizes | changes, tokenizer=tiny_models.BART)


FAMILIES: dict[str, Callable[..., Made]] = {
    make.__name__: make
    for make in (
        act,
        act_ensemble,
        diffusion,
        diffusion_ddpm,
        smolvla,
        pi0,
        pi0_relative,
        pi05,
        pi05_relative,
        xvla,
    )
}


def _pi(family: str, out: Path, changes: Mapping[str, Any]) -> Made:
    tiny_models.shrink_pi()
    sizes = {"image_resolution": (112, 112), "empty_cameras": 1, "action_feature_names": list(NAMES)}
    return _make(family, out, sizes | dict(changes), tokenizer=tiny_models.PALIGEMMA)


def modes(visual: str, state: str, action: str) -> dict[str, NormalizationMode]:
    """A `normalization_mapping`, by the names of its modes."""
    return {
        kind: NormalizationMode(mode)
        for kind, mode in zip(("VISUAL", "STATE", "ACTION"), (visual, state, action), strict=True)
    }


def statistics() -> dict[str, dict[str, NDArray[np.float32]]]:
    """Statistics of a data set: every joint has a middle and a size of its own, and so has every camera."""
    random = np.random.default_rng(5)
    found = {}
    for feature in ("observation.state", "action"):
        span = RANGES[:, 1] - RANGES[:, 0]
        low, high = (RANGES[:, side] + random.uniform(-0.05, 0.05, len(NAMES)) * span for side in (0, 1))
        span = high - low
        found[feature] = {
            "mean": low + random.uniform(0.4, 0.6, len(NAMES)) * span, "std": span / 5, "min": low, "max": high,
            "q01": low + 0.05 * span, "q10": low + 0.15 * span, "q50": low + 0.5 * span, "q90": high - 0.15 * span,
            "q99": high - 0.05 * span, "count": np.array([1000]),
        }  # fmt: skip
    for number, camera in enumerate(CAMERAS):
        found[f"observation.images.{camera}"] = {
            "mean": np.array([0.3, 0.45, 0.6]) + 0.1 * number, "std": np.array([0.2, 0.25, 0.3]) - 0.05 * number,
            "min": np.zeros(3), "max": np.ones(3), "count": np.array([1000]),
        }  # fmt: skip
    return {
        feature: {
            name: np.asarray(values, np.float32).reshape(
                (3, 1, 1) if "images" in feature and name != "count" else -1
            )
            for name, values in numbers.items()
        }
        for feature, numbers in found.items()
    }


def _make(
    family: str, out: Path, sizes: Mapping[str, Any], written: Mapping[str, Any] | None = None,
    tokenizer: str | None = None,
) -> Made:  # fmt: skip
    """Save one checkpoint.

    sizes: of its configuration; `without` lists features that it does not read, `image` is (height, width). written: replaces values of config.json
    that would have asked the network to make it.
    """
    torch.manual_seed(0)
    sizes = dict(sizes)
    unread, image = sizes.pop("without", ()), sizes.pop("image", (HEIGHT, WIDTH))
    config = _configuration(family, sizes, image)
    for feature in unread:
        del config.input_features[feature]
    policy = get_policy_class(family)(config).eval().float()
    _touch_weights(family, policy)
    table, folder = statistics(), out / "pretrained_model"
    if tokenizer is not None:
        tiny_models.save_tokenizer(tokenizer, out / "tokenizer")
    local = SimpleNamespace(from_pretrained=lambda *_, **__: tiny_models.tokenizer_of(str(tokenizer)))
    with patch.object(tokenizer_processor, "AutoTokenizer", local):
        pipelines = make_pre_post_processors(config, dataset_stats=table)
    policy.save_pretrained(folder)
    for pipeline in pipelines:
        pipeline.save_pretrained(folder)
    TrainPipelineConfig(dataset=DatasetConfig(repo_id="somebody/so101_pick"), policy=config).save_pretrained(
        folder
    )
    _as_on_a_training_machine(folder, {"device": "cuda"} | dict(written or {}))
    _write_dataset(out / "dataset", table)
    return Made.at(out)


def _configuration(family: str, sizes: Mapping[str, Any], image: tuple[int, int]) -> Any:
    features = {
        f"observation.images.{camera}": PolicyFeature(FeatureType.VISUAL, (3, *image)) for camera in CAMERAS
    }
    features["observation.state"] = PolicyFeature(FeatureType.STATE, (len(NAMES),))
    kind = PreTrainedConfig.get_choice_class(family)
    known = dict(sizes)
    if "pretrained_backbone_weights" in kind.__dataclass_fields__:
        known["pretrained_backbone_weights"] = None
    return kind(
        input_features=features, output_features={"action": PolicyFeature(FeatureType.ACTION, (len(NAMES),))},
        device="cpu", push_to_hub=False, **known,
    )  # fmt: skip


def _touch_weights(family: str, policy: Any) -> None:
    """Give random weights what training gives: batch statistics, and actions about the middle that move with what is seen."""
    with torch.no_grad():
        for module in policy.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
        if family == "act":
            policy.model.decoder_pos_embed.weight.mul_(3)
            policy.model.action_head.weight.mul_(6)
            features = policy.config.input_features.items()
            anything = {name: torch.randn(1, *feature.shape) for name, feature in features}
            anything.setdefault("observation.state", torch.zeros(1, 1))  # LeRobot looks for its device
            policy.model.action_head.bias.sub_(policy.predict_action_chunk(anything)[0].mean(dim=0))
        if family == "diffusion" and policy.config.prediction_type == "sample":
            policy.diffusion.unet.final_conv[-1].weight.mul_(2)


def _as_on_a_training_machine(folder: Path, written: Mapping[str, Any]) -> None:
    """Write `written` into the configuration, and its device into the processors, where LeRobot has put the one of this machine."""
    config, train = folder / "config.json", folder / "train_config.json"
    for path, inside in ((config, None), (train, "policy")):
        document = json.loads(path.read_text(encoding="utf-8"))
        (document if inside is None else document[inside]).update(written)
        path.write_text(json.dumps(document, indent=4), encoding="utf-8")
    for path in folder.glob("policy_*processor.json"):
        document = json.loads(path.read_text(encoding="utf-8"))
        for step in document["steps"]:
            if step.get("registry_name") == "device_processor":
                step["config"]["device"] = written["device"]
            if "tokenizer_name" in step.get("config", {}) and "vlm_model_name" in written:
                step["config"]["tokenizer_name"] = written["vlm_model_name"]
        path.write_text(json.dumps(document, indent=2), encoding="utf-8")


def _write_dataset(folder: Path, table: Mapping[str, Mapping[str, NDArray[np.float32]]]) -> None:
    meta = folder / "meta"
    meta.mkdir(parents=True, exist_ok=True)
    vector = {"dtype": "float32", "shape": [len(NAMES)], "names": list(NAMES)}
    video = {"dtype": "video", "shape": [HEIGHT, WIDTH, 3], "names": ["height", "width", "channels"]}
    features = {"action": vector, "observation.state": vector}
    features |= {f"observation.images.{camera}": video for camera in CAMERAS}
    info = {"codebase_version": "v3.0", "robot_type": "so101_follower", "fps": FPS, "features": features}
    (meta / "info.json").write_text(json.dumps(info, indent=4), encoding="utf-8")
    stats = {
        feature: {name: values.tolist() for name, values in numbers.items()}
        for feature, numbers in table.items()
    }
    (meta / "stats.json").write_text(json.dumps(stats, indent=4), encoding="utf-8")


def main(words: list[str] | None = None) -> int:
    """Make one checkpoint by hand."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("family", choices=[*FAMILIES, "all"])
    parser.add_argument("out", type=Path)
    chosen = parser.parse_args(words)
    for family in FAMILIES if chosen.family == "all" else [chosen.family]:
        out = chosen.out / family if chosen.family == "all" else chosen.out
        print(FAMILIES[family](out).folder, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
