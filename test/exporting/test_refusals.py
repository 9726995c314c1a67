# SPDX-License-Identifier: Apache-2.0
"""Every reason why a checkpoint cannot be exported: one sentence, within two seconds, before torch is imported."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoint_folders import (
    AFTER,
    BEFORE,
    CONFIG,
    DATASET,
    WEIGHTS,
    checkpoint_folder,
    configure,
    edit,
    old_layout,
    options,
    statistics_of,
    step,
    without_statistics,
)
from repository import ROOT
from safetensors.numpy import load_file, save_file

from reflex_core.errors import ConfigurationError
from reflex_export.folder.read_folder import read_checkpoint

MOST_S = 2.0
Damage = Callable[[Path], Any]


def changed(family: str, **config: Any) -> Damage:
    def damage(folder: Path) -> None:
        checkpoint_folder(folder, family)
        configure(folder, **config)

    return damage


def piped(family: str, file: str, change: Callable[[dict[str, Any]], Any]) -> Damage:
    def damage(folder: Path) -> None:
        edit(checkpoint_folder(folder, family) / file, change)

    return damage


def with_step(name: str) -> Damage:
    entry = {"registry_name": name, "config": {}}
    return piped("act", BEFORE, lambda document: document["steps"].insert(1, entry))


def with_class(folder: Path) -> None:
    entry = {"class": "my_robot.processors.Blur", "config": {}}
    edit(checkpoint_folder(folder) / BEFORE, lambda document: document["steps"].insert(1, entry))


def lacks(feature: str) -> Damage:
    return lambda folder: without_statistics(checkpoint_folder(folder), feature)


def without_unnormalizer(folder: Path) -> None:
    edit(checkpoint_folder(folder) / AFTER, lambda document: document["steps"].pop(0))


def other_statistics(folder: Path) -> None:
    """Statistics of seven numbers where the policy has six, and a step that lists no shapes."""
    file = statistics_of(checkpoint_folder(folder))
    table = load_file(file)
    for key in [key for key in table if key.startswith("observation.state.") and not key.endswith("count")]:
        table[key] = np.append(table[key], np.float32(1.0))
    save_file(table, file)
    edit(
        folder / BEFORE,
        lambda document: step(document, "normalizer_processor")["config"]["features"].pop(
            "observation.state"
        ),
    )
    edit(
        folder / BEFORE,
        lambda document: step(document, "normalizer_processor")["config"]["features"].update(
            {"observation.state": {"type": "STATE", "shape": [32]}}
        ),
    )


def lora(folder: Path) -> None:
    checkpoint_folder(folder)
    (folder / WEIGHTS).unlink()
    (folder / "adapter_config.json").write_text(
        json.dumps({"base_model_name_or_path": "lerobot/smolvla_base"})
    )


def lora_run(folder: Path) -> None:
    lora(folder / "checkpoints" / "000100" / "pretrained_model")


def without(*names: str) -> Damage:
    def damage(folder: Path) -> None:
        checkpoint_folder(folder)
        for name in names:
            (folder / name).unlink()

    return damage


def cut(folder: Path) -> None:
    file = checkpoint_folder(folder) / WEIGHTS
    file.write_bytes(file.read_bytes()[:-4])


def pointer(folder: Path) -> None:
    text = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 207000000\n"
    (checkpoint_folder(folder) / WEIGHTS).write_text(text)


def export(folder: Path) -> None:
    folder.mkdir()
    (folder / "reflex_config.json").write_text("{}")


def data_set(folder: Path) -> None:
    shutil.copytree(DATASET, folder)


def empty(folder: Path) -> None:
    folder.mkdir()


def state_file_called(name: str) -> Damage:
    """The statistics under another name, which the pipeline knows."""

    def damage(folder: Path) -> None:
        statistics_of(checkpoint_folder(folder)).rename(folder / name)
        edit(
            folder / BEFORE,
            lambda document: step(document, "normalizer_processor").update({"state_file": name}),
        )

    return damage


def infinite(folder: Path) -> None:
    old_layout(folder, normalize_inputs__buffer_observation_state__mean=np.full(6, np.inf, np.float32))


def old_without(folder: Path) -> None:
    old_layout(folder)
    table = load_file(folder / WEIGHTS)
    del table["normalize_inputs.buffer_observation_images_top.std"]
    save_file(table, folder / WEIGHTS)


STATE = {"type": "STATE", "shape": [6]}
PICTURE = {"type": "VISUAL", "shape": [3, 480, 640]}
REFUSED: dict[str, tuple[Damage, str]] = {
    "type that writes text": (changed("act", type="pi0_fast"), "of type 'pi0_fast' is not exported: it writes its actions as text"),
    "type with another backbone": (changed("act", type="groot"), "of type 'groot' is not exported: its backbone"),
    "type of a plugin": (changed("act", type="my_policy"), "of type 'my_policy' is not exported: its architecture is not known here"),
    "no type": (changed("act", type=None), "names no 'type'"),
    "an adapter": (lora, "holds an adapter .PEFT, LoRA. to lerobot/smolvla_base, and not the policy: merge it"),
    "an adapter in a run": (lora_run, "pretrained_model: holds an adapter"),
    "use_peft alone": (changed("act", use_peft=True), "'use_peft' is true and there is no adapter_config.json"),
    "an export": (export, "is an export already: serve it with `reflex serve"),
    "a data set": (data_set, "is a LeRobot data set and no checkpoint: name the checkpoint, and this with --dataset"),
    "an empty folder": (empty, "is no LeRobot checkpoint: it holds no config.json"),
    "no folder": (lambda _: None, "there is no such folder"),
    "unknown step": (with_step("blur_processor"), "step 'blur_processor' is not known here"),
    "a class of other code": (with_class, "step 'my_robot.processors.Blur' is a class of third-party code"),
    "no pipelines": (without(BEFORE, AFTER), "policy_preprocessor.json: missing, and there are no statistics among the weights"),
    "half the pipelines": (without(AFTER), "policy_postprocessor.json: missing: policy_preprocessor.json is there"),
    "statistics of the state": (lacks("observation.state"), "normalises observation.state, and its state file has no statistics"),
    "statistics of a camera": (lacks("observation.images.wrist"), "normalises observation.images.wrist, and its state file has no"),
    "nothing un-normalises": (without_unnormalizer, "has no unnormalizer_processor"),
    "statistics in the place of the report": (state_file_called("VERIFICATION.md"), "must be called as LeRobot calls it, .* got 'VERIFICATION.md'"),
    "statistics that no table can list": (state_file_called("a\nb.safetensors"), "must be called as LeRobot calls it, .* got 'a.nb.safetensors'"),
    "statistics of another robot": (other_statistics, "its statistics of observation.state have 7 numbers, and its config.json says 6"),
    "weights cut short": (cut, "is cut short or damaged: its tensors have 2096 bytes, and 2092 bytes follow its header"),
    "weights that were not fetched": (pointer, "the weights of the policy are a Git LFS pointer"),
    "no weights": (without(WEIGHTS), "the weights of the policy are not there"),
    "a simulated world": (
        changed("act", input_features={"observation.environment_state": {"type": "ENV", "shape": [4]}}),
        "reads 'observation.environment_state', the state of a simulated world",
    ),
    "depth": (
        changed("act", input_features={"observation.images.depth": {"type": "VISUAL", "shape": [1, 480, 640]}}),
        "'observation.images.depth' must be a colour picture of shape",
    ),
    "another state": (
        changed("act", input_features={"observation.images.top": PICTURE, "observation.pose": STATE}),
        "reads 'observation.pose', and no observation.state",
    ),
    "no camera": (changed("act", input_features={"observation.state": STATE}), "reads no camera"),
    "two actions": (
        changed("act", output_features={"action": {"type": "ACTION", "shape": [6]}, "done": {"type": "ACTION", "shape": [1]}}),
        "output_features must be 'action' alone",
    ),
    "features that are none": (changed("act", input_features={"observation.state": "six"}), "must be an object with type and shape"),
    "history of an ACT": (changed("act", n_obs_steps=2), "'n_obs_steps' must be 1: a policy of type act reads one observation"),
    "more rows than there are": (changed("diffusion", n_action_steps=16), "'n_action_steps' must be at most 15, the rows that are not"),
    "rows in words": (changed("act", chunk_size="fifty"), "'chunk_size' must be a whole number from 1 to 1000"),
    "a network that is built for hours": (
        changed("act", n_decoder_layers=100_000), "config.json: 'n_decoder_layers' must be at most 200, got 100000"
    ),
    "steps in words": (changed("smolvla", num_steps="ten"), "'num_steps' must be a whole number from 1 to 1000"),
    "no steps of a flow": (changed("pi0", num_inference_steps=None), "'num_inference_steps' must be a whole number"),
    "one side of a picture": (changed("pi0", image_resolution=[224]), "'image_resolution' must be two sides in pixels"),
    "a state that is wider than its padding": (changed("pi0", max_state_dim=4), "'max_state_dim' must be at least 6"),
    "an unknown schedule": (changed("diffusion", noise_scheduler_type="PNDM"), "'noise_scheduler_type' must be one of DDPM, DDIM"),
    "joints of Aloha": (changed("smolvla", adapt_to_pi_aloha=True), "'adapt_to_pi_aloha' is True: it flips joints"),
    "poses of the hand": (changed("xvla", action_mode="ee6d"), "'action_mode' is 'ee6d': its actions are poses of the hand"),
    "a domain with every observation": (changed("xvla", domain_feature_key="domain"), "'domain_feature_key' is 'domain'"),
    "old statistics that are infinite": (infinite, "normalize_inputs.buffer_observation_state.mean is infinite"),
    "old statistics that are missing": (old_without, "normalises observation.images.top by mean_std, and holds no 'std' of it"),
    "an old SmolVLA": (
        lambda folder: old_layout(folder, "smolvla"), "python -m lerobot.processor.migrate_policy_normalization --pretrained-path"
    ),
    "a config that is none": (lambda folder: (checkpoint_folder(folder) / CONFIG).write_text("[]"), "config.json: must hold a JSON object"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_it_is_refused_in_one_sentence_within_two_seconds(what: str, tmp_path: Path) -> None:
    damage, match = REFUSED[what]
    folder, work = tmp_path / "policy", tmp_path / "work"
    work.mkdir()
    damage(folder)
    began_s = time.monotonic()
    with pytest.raises(ConfigurationError, match=match) as caught:
        read_checkpoint(str(folder), options(), work)
    assert time.monotonic() - began_s < MOST_S
    assert str(tmp_path) in str(caught.value)
    assert "torch" not in sys.modules


def small_tokenizer(tmp_path: Path) -> dict[str, Any]:
    """A tokenizer with more tokens than the policy has embeddings."""
    from tokenizers import Tokenizer, models

    folder = tmp_path / "large"
    folder.mkdir()
    Tokenizer(models.WordLevel({f"w{number}": number for number in range(600)}, unk_token="w0")).save(
        str(folder / "tokenizer.json")
    )
    return {"tokenizer": folder}


def broken_tokenizer(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "tokenizer.json").write_text("{}")
    return {"tokenizer": tmp_path / "broken"}


def other_robot(tmp_path: Path) -> dict[str, Any]:
    document = json.loads((DATASET / "meta" / "info.json").read_text())
    document["features"]["action"] |= {"shape": [7], "names": None}
    (tmp_path / "info.json").write_text(json.dumps(document))
    return {"dataset": tmp_path / "info.json"}


NUL = "a" + chr(0)
OPTIONS: dict[str, tuple[Callable[[Path], dict[str, Any]], str]] = {
    "no tokenizer": (lambda _: {"tokenizer": None}, "no checkpoint holds its tokenizer .HuggingFaceTB/SmolVLM2.*--tokenizer: `hf download"),
    "a tokenizer that is not there": (lambda path: {"tokenizer": path}, "holds no tokenizer.json, which --tokenizer names the folder of"),
    "a tokenizer that is none": (broken_tokenizer, "tokenizer.json: is no tokenizer"),
    "a tokenizer of another model": (small_tokenizer, "makes 600 different tokens, and the policy knows 512"),
    "no config of the VLM": (lambda _: {"vlm": None}, "no checkpoint holds the config of its vision-language model"),
    "the policy's config for the VLM's": (lambda path: {"vlm": path / "policy"}, "describes no vision-language model"),
    "one graph of a policy without a loop": (
        lambda _: {"family": "act", "fused": True}, "--fused is for policies of type smolvla, .* nothing in one of type act: leave it out"
    ),
    "bars of a policy that draws none": (
        lambda _: {"bars": -3.0}, "--bars is for policies of type pi0, pi05, and changes nothing in one of type smolvla"
    ),
    "scaling of a policy that scales": (
        lambda _: {"resize_cameras": True}, "--resize-cameras is for policies of type act, diffusion"
    ),
    "a tokenizer that no file is called": (
        lambda _: {"tokenizer": None, "tokenizer_name": NUL}, "no checkpoint holds its tokenizer .a.x00.: name .* with --tokenizer$"
    ),
    "a tokenizer that a shell would run": (
        lambda _: {"tokenizer": None, "tokenizer_name": "x;reboot"}, "holds its tokenizer .x;reboot.: name .* with --tokenizer$"
    ),
    "a VLM that no file is called": (
        lambda _: {"vlm": None, "config": {"vlm_model_name": NUL}}, "vision-language model .a.x00.: name .* with --vlm$"
    ),
    "no data set": (lambda path: {"dataset": path / "nowhere"}, "cannot be read: No such file or directory: --dataset takes"),
    "the data set of another robot": (other_robot, "its action has shape .7., and the policy's has 6 numbers"),
}  # fmt: skip


@pytest.mark.parametrize("what", OPTIONS)
def test_an_option_that_does_not_fit_is_refused(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "empty"))
    monkeypatch.chdir(tmp_path)
    given, match = OPTIONS[what]
    changed = given(tmp_path)
    folder, work = checkpoint_folder(tmp_path / "policy", changed.pop("family", "smolvla")), tmp_path / "work"
    work.mkdir()
    configure(folder, **changed.pop("config", {}))
    if "tokenizer_name" in changed:
        name = {"tokenizer_name": changed.pop("tokenizer_name")}
        edit(folder / BEFORE, lambda document: step(document, "tokenizer_processor")["config"].update(name))
    with pytest.raises(ConfigurationError, match=match):
        read_checkpoint(str(folder), options(**changed), work)


def test_a_history_needs_the_rate(tmp_path: Path) -> None:
    folder, work = checkpoint_folder(tmp_path / "policy", "diffusion"), tmp_path / "work"
    work.mkdir()
    with pytest.raises(ConfigurationError, match=r"sees 2 observations one control period apart.*--fps HZ"):
        read_checkpoint(str(folder), options(dataset=None), work)
    assert read_checkpoint(str(folder), options(dataset=None, fps=30.0), work).observation_steps == 2


EVERY_REFUSAL = """
import json, sys, time
from pathlib import Path
from reflex_core.errors import ConfigurationError
from reflex_export.folder.read_folder import read_checkpoint
from reflex_export.options import ExportOptions

for name in sys.argv[1:]:
    began = time.monotonic()
    try:
        read_checkpoint(name, ExportOptions(), Path(name).parent)
    except ConfigurationError:
        print(time.monotonic() - began)
print(sorted({"torch", "lerobot", "transformers", "onnxruntime", "onnx"} & set(sys.modules)))
"""


def test_no_refusal_imports_torch(tmp_path: Path) -> None:
    """In a process of its own, where no other test has imported anything."""
    folders = []
    for number, (damage, _) in enumerate(REFUSED.values()):
        (tmp_path / str(number)).mkdir()
        folders.append(tmp_path / str(number) / "policy")
        damage(folders[-1])
    command = [sys.executable, "-c", EVERY_REFUSAL, *map(str, folders)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    *seconds, imported = done.stdout.splitlines()
    assert imported == "[]"
    assert len(seconds) == len(folders)
    assert max(map(float, seconds)) < MOST_S


def test_a_name_on_the_hub_is_refused_where_nothing_can_be_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    monkeypatch.setattr("reflex_export.folder.locate.find_spec", lambda _: None)
    with pytest.raises(
        ConfigurationError, match=r"somebody/policy: no such folder; .* pip install huggingface_hub"
    ):
        read_checkpoint("somebody/policy", options(), tmp_path)


def test_what_the_hub_says_is_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Hub:
        @staticmethod
        def snapshot_download(*_: object, **__: object) -> str:
            raise OSError("401 Client Error: gated repository\nask for access")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "huggingface_hub", Hub)
    monkeypatch.setattr("reflex_export.folder.locate.find_spec", lambda _: Hub)
    with pytest.raises(
        ConfigurationError,
        match=r"the Hugging Face hub does not give it: 401 Client Error: gated repository$",
    ):
        read_checkpoint("somebody/policy@main", options(), tmp_path)


def test_a_policy_of_the_hub_that_cannot_be_exported_costs_no_download_of_its_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, requests = checkpoint_folder(tmp_path / "hub" / "policy"), []
    configure(folder, type="pi0_fast")

    class Hub:
        @staticmethod
        def snapshot_download(name: str, *, revision: str | None, allow_patterns: list[str]) -> str:
            requests.append((name, revision, WEIGHTS in allow_patterns))
            return str(folder)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "huggingface_hub", Hub)
    monkeypatch.setattr("reflex_export.folder.locate.find_spec", lambda _: Hub)
    with pytest.raises(ConfigurationError, match="'pi0_fast' is not exported"):
        read_checkpoint("somebody/policy", options(), tmp_path)
    assert requests == [("somebody/policy", None, False)]
    configure(folder, type="act")
    (tmp_path / "work").mkdir()
    assert read_checkpoint("somebody/policy@v2", options(), tmp_path / "work").name == "policy"
    assert requests[1:] == [("somebody/policy", "v2", False), ("somebody/policy", "v2", True)]


@pytest.mark.parametrize(
    "make", [lambda path: os.mkfifo(path), lambda path: socket.socket(socket.AF_UNIX).bind(str(path))]
)
def test_weights_that_are_no_file_are_not_opened(
    make: Callable[[Path], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = checkpoint_folder(tmp_path / "policy")
    (folder / WEIGHTS).unlink()
    monkeypatch.chdir(folder)  # names of sockets are short
    make(Path(WEIGHTS))
    with pytest.raises(ConfigurationError, match="the weights of the policy are a (FIFO|socket)"):
        read_checkpoint(str(folder), options(), tmp_path)
