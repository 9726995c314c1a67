# SPDX-License-Identifier: Apache-2.0
"""What is no export is recognised, by name and layout, and refused in a sentence that says what it is and what to do."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path

import pytest
from repository import FIXTURES

from reflex_core.doctor.export_files import export
from reflex_core.doctor.finding import FAIL
from reflex_core.errors import ExportError
from reflex_core.export.export import open_export
from reflex_core.export.lookalikes import NOT_AN_EXPORT, lookalike
from reflex_ros.cli.main import main

TRACE = next((FIXTURES / "traces").glob("*.jsonl.gz"))


def folder(path: Path, *names: str, **documents: object) -> Path:
    """A folder with empty files, and with JSON files by the first part of their names."""
    path.mkdir(parents=True)
    for name in names:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).touch()
    for name, document in documents.items():
        (path / f"{name}.json").write_text(json.dumps(document))
    return path


def checkpoint(path: Path) -> Path:
    """As LeRobot writes one."""
    return folder(
        path, "model.safetensors", "policy_preprocessor.json", "train_config.json", config={"type": "smolvla"}
    )


def refused(path: Path) -> str:
    with pytest.raises(ExportError) as error:
        open_export(path)
    message = str(error.value)
    assert error.value.slug == NOT_AN_EXPORT
    assert message.startswith(f"{path}: ")
    assert message.isprintable()
    return message


def test_a_lerobot_checkpoint(tmp_path: Path) -> None:
    message = refused(checkpoint(tmp_path / "pretrained_model"))
    assert (
        "is a LeRobot checkpoint (type 'smolvla') and not an ONNX export: make an export of it with `reflex export`"
        in message
    )
    assert "docs/how-to/export-a-checkpoint.md" in message


@pytest.mark.parametrize("named", ["", "checkpoints", "checkpoints/020000", "checkpoints/last"])
def test_a_training_run_around_it(tmp_path: Path, named: str) -> None:
    run = tmp_path / "train"
    for step in ("005000", "020000"):
        checkpoint(run / "checkpoints" / step / "pretrained_model")
        folder(run / "checkpoints" / step / "training_state")
    (run / "checkpoints" / "last").symlink_to("020000")
    message = refused(run / named)
    assert "holds a LeRobot checkpoint (type 'smolvla'), in " in message
    assert "005000" not in message.replace(str(run / named), ""), "the newest"
    assert "pretrained_model" in message
    assert "with `reflex export`, which takes this name" in message


def test_a_package_of_another_program(tmp_path: Path) -> None:
    message = refused(folder(tmp_path / "act", "model.onnx", manifest={"format": "policy_package"}))
    assert "is a policy_package (LeRobot, physicalai) and has no reflex_config.json" in message
    assert "make an export of it with `reflex import FOLDER OUT`" in message
    assert "docs/how-to/import-an-export.md" in message


def test_an_adapter_names_its_base(tmp_path: Path) -> None:
    peft = {"base_model_name_or_path": "lerobot/pi05_base\n[ERROR] forged"}
    message = refused(folder(tmp_path / "lora", "adapter_model.safetensors", adapter_config=peft))
    assert (
        "is an adapter (PEFT, LoRA) of 'lerobot/pi05_base\\n[ERROR] forged', to be merged into its base"
        in message
    )


@pytest.mark.parametrize(
    ("files", "documents", "says"),
    [
        ((), {"config": {"type": "act"}}, "a LeRobot checkpoint (type 'act')"),
        (("train_config.json", "model.safetensors"), {}, "a LeRobot checkpoint and not"),
        (("model.safetensors",), {"config": {"model_type": "gr00t_n1_5"}}, "transformers library (type 'gr00t_n1_5')"),
        (("params/_METADATA", "assets/droid/norm_stats.json"), {}, "an openpi checkpoint"),
        (("meta/info.json", "data/chunk-000/file-000.parquet"), {}, "a LeRobot data set"),
        (("model.onnx", "model.onnx_data"), {}, "reflex_config.json is missing, which says what the ONNX graphs in it (model.onnx)"),
        (("model.onnx",), {"config": {"type": "act"}}, "reflex_config.json is missing"),
        (("weights.safetensors", "a.pt"), {}, "holds weights (a.pt, weights.safetensors)"),
        (("policy.tar.gz",), {}, "holds an archive (policy.tar.gz)"),
        (("inner/reflex_config.json",), {}, "holds no reflex_config.json, but inner in it does: name that folder"),
        (("blobs/x", "snapshots/0a1b/config.json"), {}, "snapshots/0a1b, and no ONNX export"),
    ],
)  # fmt: skip
def test_other_folders(
    tmp_path: Path, files: tuple[str, ...], documents: dict[str, object], says: str
) -> None:
    assert says in refused(folder(tmp_path / "it", *files, **documents))


@pytest.mark.parametrize(
    ("name", "beside", "says"),
    [
        ("model.onnx", (), "is one ONNX graph: name the folder that holds it and a reflex_config.json"),
        ("model.onnx", ("reflex_config.json",), "is one graph of an export: name its folder, {folder}"),
        ("reflex_config.json", (), "is the description of an export: name its folder, {folder}"),
        (
            "model.safetensors",
            ("config.json", "train_config.json"),
            "is a file of a LeRobot checkpoint and not",
        ),
        ("model.safetensors", (), "holds weights, and not the network"),
        ("policy.pt", (), "holds weights, and not the network"),
        ("model.engine", (), "name the folder of the ONNX export, and take --device tensorrt"),
        ("export.zip", (), "is an archive: unpack it"),
        ("export.tar.gz", (), "is an archive: unpack it"),
        ("notes.txt", (), "is a file: name the folder of an ONNX export"),
    ],
)
def test_files(tmp_path: Path, name: str, beside: tuple[str, ...], says: str) -> None:
    where = folder(tmp_path / "it", name, *beside)
    assert says.format(folder=where) in refused(where / name)


def test_an_archive_is_known_by_its_bytes_too(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "download", "w") as archive:
        archive.writestr("reflex_config.json", "{}")
    assert "is an archive" in refused(tmp_path / "download")


@pytest.mark.parametrize("name", ["lerobot/smolvla_base", "nvidia/GR00T-N1.5-3B", "lerobot/pi0@v2.0"])
def test_a_name_on_a_hub(name: str) -> None:
    message = refused(Path(name))
    assert (
        "no such export directory; if it is the name of a model on the Hugging Face hub: nothing is fetched"
        in message
    )


def test_an_address() -> None:
    assert "is an address, and nothing is fetched" in refused(
        Path("https://hub.example/lerobot/smolvla_base")
    )


def test_what_looks_like_nothing_known_is_refused_as_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder(tmp_path / "here", "models/readme"))
    for nothing in (tmp_path / "none", Path("models/none"), Path("none"), folder(tmp_path / "empty")):
        assert lookalike(nothing) == ""
        with pytest.raises(ExportError, match="no such export directory|missing: every export needs one"):
            open_export(nothing)


def test_a_pipe_in_the_place_of_a_description_is_not_waited_for(tmp_path: Path) -> None:
    where = folder(tmp_path / "it", "policy_preprocessor.json")
    os.mkfifo(where / "config.json")
    assert "a LeRobot checkpoint and not" in refused(where)


@pytest.mark.parametrize("kind", ["checkpoint", "hub"])
def test_every_command_says_the_same_and_none_says_to_copy_it_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    path = checkpoint(tmp_path / "pretrained_model") if kind == "checkpoint" else Path("lerobot/smolvla_base")
    sentence = refused(path)
    for command, status in (
        (["serve", str(path), "--no-ros", "--port", "0"], 78),
        (["replay", str(TRACE), "--model", str(path)], 2),
        (["manifest", str(path)], 1),
    ):
        assert main(command) == status
        assert sentence in capsys.readouterr().err, command
    [found] = export(path)
    assert (found.level, found.said) == (FAIL, sentence)
    assert "copy the export again" not in found.do
