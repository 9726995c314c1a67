# SPDX-License-Identifier: Apache-2.0
"""A policy is loaded with LeRobot's classes and with exactly the tensors of its file, or not at all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from checkpoint_folders import configure
from checkpoint_variants import compiled_weights, missing_weights, release_0_5
from checkpoints import Made, diffusion
from exported import export
from safetensors.torch import load_file, save_file

from reflex_core.errors import ConfigurationError, ExportError
from reflex_export.folder.read_folder import read_checkpoint
from reflex_export.lerobot_policy import Loaded, load
from reflex_export.options import ExportOptions

Checkpoints = Callable[[str], Made]
REFUSED = 2


def loaded(folder: Path, made: Made, work: Path) -> Loaded:
    work.mkdir()
    options = ExportOptions(tokenizer=made.tokenizer, vlm=made.vlm, dataset=made.dataset)
    return load(read_checkpoint(str(folder), options, work))


def changed(made: Made, out: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> Path:
    """A copy whose tensors are others."""
    import shutil

    shutil.copytree(made.folder, out)
    tensors = load_file(out / "model.safetensors")
    change(tensors)
    save_file(tensors, out / "model.safetensors")
    return out


@pytest.mark.parametrize("name", ["act", "diffusion_ddpm", "smolvla", "pi0", "pi05", "xvla"])
def test_every_tensor_is_the_files(name: str, checkpoint: Checkpoints, tmp_path: Path) -> None:
    import tiny_models

    tiny_models.shrink_pi()
    made = checkpoint(name)
    policy = loaded(made.folder, made, tmp_path / "work").policy
    assert not policy.training
    own = policy.state_dict()
    for written, tensor in load_file(made.folder / "model.safetensors").items():
        found = own[written if written in own else f"model.{written}"]
        assert torch.equal(found, tensor.to(found.dtype)), written
        assert found.dtype in (torch.float32, torch.int64)
    assert not any(parameter.requires_grad for parameter in policy.parameters())


def test_half_precision_is_widened(checkpoint: Checkpoints, tmp_path: Path) -> None:
    def halved(tensors: dict[str, torch.Tensor]) -> None:
        for name, tensor in tensors.items():
            tensors[name] = tensor.bfloat16() if tensor.is_floating_point() else tensor

    folder = changed(checkpoint("act"), tmp_path / "half", halved)
    policy = loaded(folder, checkpoint("act"), tmp_path / "work").policy
    written = load_file(folder / "model.safetensors")["model.action_head.weight"]
    assert policy.model.action_head.weight.dtype == torch.float32
    assert torch.equal(policy.model.action_head.weight, written.float())


def test_weights_that_were_saved_compiled_are_the_same(checkpoint: Checkpoints, tmp_path: Path) -> None:
    made = checkpoint("diffusion")
    folder = compiled_weights(made.folder, tmp_path / "compiled")
    plain = loaded(made.folder, made, tmp_path / "one").policy.state_dict()
    other = loaded(folder, made, tmp_path / "two").policy.state_dict()
    assert plain.keys() == other.keys()
    assert all(torch.equal(plain[name], other[name]) for name in plain)


def test_a_pipeline_of_0_5_is_read_under_its_new_name(checkpoint: Checkpoints, tmp_path: Path) -> None:
    import tiny_models

    tiny_models.shrink_pi()
    made = checkpoint("pi0_relative")
    folder = release_0_5(made.folder, tmp_path / "old")
    steps = [type(step).__name__ for step in loaded(folder, made, tmp_path / "work").preprocess.steps]
    assert any("Relative" in step for step in steps), steps


def refusal(folder: Path, made: Made, work: Path) -> str:
    with pytest.raises(ExportError) as refused:
        loaded(folder, made, work)
    return str(refused.value)


def test_missing_tensors_are_named(checkpoint: Checkpoints, tmp_path: Path) -> None:
    """LeRobot itself goes on with random numbers there."""
    made = checkpoint("act")
    message = refusal(missing_weights(made.folder, tmp_path / "out"), made, tmp_path / "work")
    assert "lacks 2 tensors ('model.action_head.weight', 'model.action_head.bias')" in message.replace(
        "('model.action_head.bias', 'model.action_head.weight')",
        "('model.action_head.weight', 'model.action_head.bias')",
    )


def test_tensors_too_many_are_named(checkpoint: Checkpoints, tmp_path: Path) -> None:
    def more(tensors: dict[str, torch.Tensor]) -> None:
        tensors["model.second_head.weight"] = torch.zeros(3)

    made = checkpoint("act")
    message = refusal(changed(made, tmp_path / "out", more), made, tmp_path / "work")
    assert "has 1 tensor ('model.second_head.weight') that the policy of config.json does not have" in message


def test_another_shape_is_named_with_both(checkpoint: Checkpoints, tmp_path: Path) -> None:
    def wider(tensors: dict[str, torch.Tensor]) -> None:
        tensors["model.action_head.bias"] = torch.zeros(9)

    made = checkpoint("act")
    message = refusal(changed(made, tmp_path / "out", wider), made, tmp_path / "work")
    assert "'model.action_head.bias' is (9,), the policy of config.json has (6,) there" in message


@pytest.mark.parametrize(
    ("made_of", "says"),
    [
        (lambda old: old.to(torch.int64), "is torch.int64, the policy has torch.float32 there"),
        (lambda old: torch.full_like(old, torch.nan), "holds NaN or Inf: the training diverged"),
        (
            lambda old: torch.full(old.shape, 1e300, dtype=torch.float64),
            "holds NaN or Inf: the training diverged",
        ),
    ],
)
def test_numbers_that_no_policy_has_are_named(
    made_of: Callable[[torch.Tensor], torch.Tensor], says: str, checkpoint: Checkpoints, tmp_path: Path
) -> None:
    def spoil(tensors: dict[str, torch.Tensor]) -> None:
        tensors["model.action_head.weight"] = made_of(tensors["model.action_head.weight"])

    made = checkpoint("act")
    message = refusal(changed(made, tmp_path / "out", spoil), made, tmp_path / "work")
    assert f"model.safetensors: 'model.action_head.weight' {says}" in message


def test_what_lerobot_refuses_is_said_in_one_line_with_its_cause(
    checkpoint: Checkpoints, tmp_path: Path
) -> None:
    made = checkpoint("act")
    folder = changed(made, tmp_path / "out", lambda _: None)
    configure(folder, vision_backbone="../../else\nwhere")
    with pytest.raises(ConfigurationError) as refused:
        loaded(folder, made, tmp_path / "work")
    message = str(refused.value)
    assert "does not take it: ParsingError: " in message
    assert "(ValueError: `vision_backbone` must be one of the ResNet variants" in message
    assert message.isprintable()


def test_nothing_is_written_for_weights_of_another_policy(checkpoint: Checkpoints, tmp_path: Path) -> None:
    made = checkpoint("act")
    folder = missing_weights(made.folder, tmp_path / "broken")
    broken = Made(folder, made.tokenizer, made.vlm, made.dataset)
    done = export(broken, tmp_path / "out")
    assert done.returncode == REFUSED
    assert "action_head" in done.stderr
    assert not (tmp_path / "out").exists()


def test_the_weights_are_in_memory_once(tmp_path: Path) -> None:
    """The rest of the policy's memory is the file, which is mapped."""
    made = diffusion(tmp_path / "large", down_dims=(256, 512, 1024))
    size = (made.folder / "model.safetensors").stat().st_size
    assert size > 200_000_000
    before = anonymous()
    policy = loaded(made.folder, made, tmp_path / "work").policy
    assert sum(float(parameter.sum()) for parameter in policy.parameters()) != 0
    assert anonymous() - before < 0.3 * size


def anonymous() -> int:
    """Bytes of memory of this process that no file stands behind."""
    text = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("RssAnon"))
