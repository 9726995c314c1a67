# SPDX-License-Identifier: Apache-2.0
"""Load a checkpoint with LeRobot's own, unmodified classes: float32, on the CPU, without the network."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from reflex_core.errors import ConfigurationError, ExportError
from reflex_core.export.processors import POSTPROCESSOR, PREPROCESSOR
from reflex_core.text.untrusted import escaped
from reflex_export.checkpoint import Checkpoint
from reflex_export.loading.causes import with_reason
from reflex_export.loading.policy_weights import assign, uninitialised
from reflex_export.loading.quiet import quiet

CONFIG = "config.json"
# what would ask the network, compile, or train
_HERE: Mapping[str, Any] = {
    "device": "cpu", "use_amp": False, "pretrained_backbone_weights": None, "compile_model": False,
    "gradient_checkpointing": False, "load_vlm_weights": False, "dtype": "float32",
}  # fmt: skip
_RENAMED = {"delta_actions_processor": "relative_actions_processor"}  # LeRobot 0.5 -> 0.6
_LIBRARIES = ("lerobot", "torch", "transformers", "diffusers")
_TORCHVISION_OPERATORS = ("nms", "qnms")
_defined: list[Any] = []  # torch forgets operators whose library object is gone


@dataclass(frozen=True, slots=True)
class Loaded:
    """A policy that is ready to run, and LeRobot's pipelines around it.

    Attributes:
        policy: LeRobot's policy, in evaluation mode, without gradients.
        preprocess: From one observation (pictures (3, height, width) float32 in 0..1, state, task) to a batch.
        postprocess: From a normalised chunk to the robot's units.
        versions: Of the libraries that it was loaded with.
    """

    policy: Any
    preprocess: Any
    postprocess: Any
    versions: Mapping[str, str]


def load(checkpoint: Checkpoint) -> Loaded:
    """Load policy and pipelines.

    Raises:
        ConfigurationError: LeRobot does not take the folder; ExportError: the weights are not those of its config.json.
    """
    _prepare_imports()
    try:
        from lerobot import policies as _policies  # noqa: F401  (registers the configurations)
        from lerobot.configs import PreTrainedConfig
        from lerobot.policies.factory import get_policy_class, make_pre_post_processors
    except ImportError as error:
        raise ConfigurationError(
            f"LeRobot cannot be imported ({escaped(str(error), 200)}): install it with `pip install reflex_ros[export]`",
            "no-lerobot",
        ) from error
    with quiet(), _for_this_machine(checkpoint) as folder, _without_processor(checkpoint):
        try:
            config = PreTrainedConfig.from_pretrained(folder)
            with uninitialised():
                policy = get_policy_class(config.type)(config)
            preprocess, postprocess = make_pre_post_processors(config, pretrained_path=str(folder))
        except Exception as error:  # whatever a library raises on a folder of another version
            raise ConfigurationError(
                f"{checkpoint.folder}: LeRobot {version('lerobot')} does not take it: {with_reason(error)}",
                "lerobot-refuses",
            ) from error
    with quiet():
        assign(policy.float(), checkpoint.weights.path)
    policy.eval().requires_grad_(requires_grad=False)
    return Loaded(policy, preprocess, postprocess, _versions())


def _prepare_imports() -> None:
    """Keep the hub's libraries from asking the network, and let torchvision be imported beside a torch without CUDA.

    PyPI's torchvision is built for CUDA, so that its operators do not load there; nothing here calls them.
    """
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TRANSFORMERS_OFFLINE", "1")
    try:
        torch_version, torchvision_version = version("torch"), version("torchvision")
    except PackageNotFoundError:
        return  # said where LeRobot is imported
    if "+cpu" not in torch_version or "+" in torchvision_version or _defined:
        return
    import torch

    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in _TORCHVISION_OPERATORS:
        if not hasattr(torch.ops.torchvision, name):  # who made this environment may have thought of it
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _defined.append(library)


@contextmanager
def _for_this_machine(checkpoint: Checkpoint) -> Iterator[Path]:
    """Yield a folder with the checkpoint's JSON as it can be loaded here, and links to the state files beside it."""
    with tempfile.TemporaryDirectory(prefix="reflex-export-") as name:
        folder = Path(name)
        _write(folder / CONFIG, _configuration(checkpoint))
        for pipeline in (PREPROCESSOR, POSTPROCESSOR):
            document = json.loads((checkpoint.folder / pipeline).read_text(encoding="utf-8"))
            document["steps"] = [_step(checkpoint, step) for step in document["steps"]]
            _write(folder / pipeline, document)
            for step in document["steps"]:
                if step.get("state_file"):
                    (folder / step["state_file"]).symlink_to(
                        (checkpoint.folder / step["state_file"]).absolute()
                    )
        yield folder


def _write(path: Path, document: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(document), encoding="utf-8")


def _configuration(checkpoint: Checkpoint) -> dict[str, Any]:
    config = dict(checkpoint.config)
    config |= {key: value for key, value in _HERE.items() if key in config}
    config["device"] = "cpu"
    if checkpoint.vlm is not None:
        config["vlm_model_name"] = str(checkpoint.vlm)
    return config


def _step(checkpoint: Checkpoint, step: Mapping[str, Any]) -> dict[str, Any]:
    """Return one step of a pipeline under its name in LeRobot 0.6, for the CPU and the tokenizer that is at hand."""
    name = step.get("registry_name")
    config = dict(step.get("config") or {})
    if name == "device_processor":
        config["device"] = "cpu"
    if name == "tokenizer_processor" and checkpoint.tokenizer is not None:
        config["tokenizer_name"] = str(checkpoint.tokenizer)
    return dict(step) | {"registry_name": _RENAMED.get(str(name), name), "config": config}


@contextmanager
def _without_processor(checkpoint: Checkpoint) -> Iterator[None]:
    """Give SmolVLA the two token ids for which it loads the whole processor of its vision-language model."""
    if checkpoint.family != "smolvla" or checkpoint.tokenizer is None:
        yield
        return
    from lerobot.policies.smolvla import smolvlm_with_expert
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(checkpoint.tokenizer / "tokenizer.json"))
    fake, whole = map(tokenizer.token_to_id, ("<fake_token_around_image>", "<global-img>"))
    if checkpoint.config.get("add_image_special_tokens") and None in (fake, whole):
        raise ExportError(
            f"{checkpoint.folder}: the policy puts tokens around its pictures that the tokenizer in {checkpoint.tokenizer} does"
            " not have: take the one of its vision-language model (--tokenizer)"
        )
    ids = SimpleNamespace(fake_image_token_id=fake or 0, global_image_token_id=whole or 0)
    real = smolvlm_with_expert.AutoProcessor
    smolvlm_with_expert.AutoProcessor = SimpleNamespace(
        from_pretrained=lambda *_, **__: SimpleNamespace(tokenizer=ids)
    )
    try:
        yield
    finally:
        smolvlm_with_expert.AutoProcessor = real


def _versions() -> dict[str, str]:
    import onnxruntime

    found = {"onnxruntime": onnxruntime.__version__}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue  # a family that does not need it
    return found
