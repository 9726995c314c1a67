# SPDX-License-Identifier: Apache-2.0
"""One export from the checkpoint to the verified folder: refusals first, then torch, and the folder appears whole or not at all."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from reflex_core.doctor.export_files import MANIFEST, sha256
from reflex_core.errors import ExportError
from reflex_core.export.export import CONFIG_NAME, open_export
from reflex_core.export.processors import POSTPROCESSOR, PREPROCESSOR
from reflex_core.robot.skeleton import FILE as EMBODIMENT
from reflex_export.checkpoint import Checkpoint
from reflex_export.documents.description import describe, verified
from reflex_export.documents.embodiment_skeleton import skeleton
from reflex_export.documents.model_card import model_card
from reflex_export.documents.readable_json import readable
from reflex_export.documents.verification_page import verification_page
from reflex_export.families.table import family
from reflex_export.folder.language_files import tokenizer_files
from reflex_export.folder.old_layout import without_buffers
from reflex_export.folder.read_folder import read_checkpoint
from reflex_export.folder.resources import check_resources
from reflex_export.folder.target_folder import check_target, put_in_place, work_folder
from reflex_export.options import ExportOptions
from reflex_export.progress import Draw, Say, Stages, peak_bytes
from reflex_export.result import Result, Verification

READING, LOADING, ANSWERING = (
    "reading the checkpoint",
    "loading it with LeRobot",
    "asking LeRobot for its answers",
)
WRITING, COMPARING, DESCRIBING = (
    "writing the graphs",
    "comparing what is served with them",
    "writing the pages",
)
STAGES = (READING, LOADING, ANSWERING, WRITING, COMPARING, DESCRIBING)
NOT_VERIFIED = ".not-verified"  # behind the name of an export that differs from LeRobot
LIBRARIES = ("torch", "lerobot", "onnx", "onnxscript")
OLDEST_PYTHON = (3, 12)  # of LeRobot 0.6: on an older one pip leaves it out of the extra
MISSING = "export-extra-missing"


@dataclass(frozen=True, slots=True)
class TorchSide:
    """What needs torch, LeRobot and ONNX Runtime. Tests put something small in its place.

    load: the policy with LeRobot's own classes. describe: what of reflex_config.json only it knows. answers: LeRobot's own,
    for the comparison. write: the graphs into a folder; why they take one observation at a time, "" where they take any batch.
    compare: the folder, as it is served, with the answers; writes parity.npz.
    """

    load: Callable[[Checkpoint], Any]
    describe: Callable[[Any, Checkpoint, ExportOptions], Mapping[str, Any]]
    answers: Callable[[Any, Checkpoint, ExportOptions], Any]
    write: Callable[[Any, Checkpoint, Path, ExportOptions], str]
    compare: Callable[[Any, Checkpoint, Path, ExportOptions, str], Verification]


def run(
    named: str,
    out: Path | None,
    options: ExportOptions,
    say: Say,
    draw: Draw,
    torch_side: Callable[[], TorchSide],
) -> Result:
    """Export the checkpoint that a user names into `out`; into a folder of its name, here, where that is None.

    The result is in `out` where it was verified, else beside it. say: takes a line that stays. draw: takes a share that is
    done and a line that is replaced. torch_side: is called after every refusal, and may import torch.

    Raises ConfigurationError for every reason why the checkpoint cannot be exported, within two seconds and before torch is
    imported; for what only LeRobot or ONNX can say, later. Nothing is left behind then, nor after an interruption.
    """
    began_s = time.monotonic()
    if out is not None:
        out = Path(os.path.abspath(out))
        check_target(out, force=options.force)
    stages = Stages(STAGES, say, draw)
    with work_folder(Path.cwd() if out is None else out.parent) as work:
        with stages.stage(READING):
            checkpoint = read_checkpoint(named, options, work)
            target = Path.cwd() / f"{checkpoint.name}_export" if out is None else out
            check_target(target, force=options.force, inputs=_inputs(named, checkpoint, options))
            check_target(_beside(target), force=True, inputs=_inputs(named, checkpoint, options))
            check_resources(checkpoint, options, work)
            _require_libraries()
            if checkpoint.version == "0.3":
                checkpoint = replace(
                    checkpoint, weights=without_buffers(checkpoint.weights, checkpoint.folder)
                )
        for note in (*checkpoint.notes, *checkpoint.robot.open_questions):
            say(f"note: {note}")
        folder = work / target.name
        folder.mkdir()
        found = _export(checkpoint, options, folder, stages, torch_side())
        return Result(
            _moved(folder, target, found, say, force=options.force),
            found,
            time.monotonic() - began_s,
            peak_bytes(),
        )


def _export(
    checkpoint: Checkpoint, options: ExportOptions, folder: Path, stages: Stages, torch_side: TorchSide
) -> Verification:
    """Fill the folder of the export."""
    with stages.stage(LOADING):
        loaded = torch_side.load(checkpoint)
        description = describe(
            checkpoint, options, folder.name, torch_side.describe(loaded, checkpoint, options)
        )
    with stages.stage(ANSWERING):
        answers = torch_side.answers(loaded, checkpoint, options)
    with stages.stage(WRITING):
        why_alone = torch_side.write(loaded, checkpoint, folder, options)
        del loaded  # before the same weights are loaded again, to be served
        _copy_files(checkpoint, folder)
        _write_json(folder / CONFIG_NAME, description)
    with stages.stage(COMPARING):
        found = torch_side.compare(answers, checkpoint, folder, options, why_alone)
    with stages.stage(DESCRIBING):
        _write_json(
            folder / CONFIG_NAME, verified(description, checkpoint, sha256(checkpoint.weights.path), found)
        )
        _write_json(folder / EMBODIMENT, skeleton(checkpoint))
        (folder / "README.md").write_text(
            model_card(checkpoint, options, folder.name, found), encoding="utf-8"
        )
        page = verification_page(folder, open_export(folder).model_version, found)
        (folder / MANIFEST).write_text(page, encoding="utf-8")
    return found


def _copy_files(checkpoint: Checkpoint, folder: Path) -> None:
    """Copy what is served as LeRobot wrote it: the pipelines with their statistics, and the tokenizer."""
    pipelines = [
        checkpoint.folder / PREPROCESSOR,
        checkpoint.folder / POSTPROCESSOR,
        *checkpoint.processors.files,
    ]
    words = tokenizer_files(checkpoint.tokenizer) if checkpoint.tokenizer is not None else ()
    for path in (*pipelines, *words):
        shutil.copyfile(path, folder / path.name)


def _write_json(file: Path, document: Mapping[str, Any]) -> None:
    file.write_text(readable(document) + "\n", encoding="utf-8")


def _inputs(named: str, checkpoint: Checkpoint, options: ExportOptions) -> tuple[Path | None, ...]:
    """Return what the export is made from: nothing of it may be in a folder that the export replaces."""
    own = (Path(named), checkpoint.folder, checkpoint.weights.path)
    return (*own, checkpoint.tokenizer, checkpoint.vlm, options.dataset)


def _beside(target: Path) -> Path:
    """Return where an export goes that was not verified."""
    return target.with_name(target.name + NOT_VERIFIED)


def _moved(folder: Path, target: Path, found: Verification, say: Say, *, force: bool) -> Path:
    """Give a finished export its name, that of a failed one where it was not verified, and return it."""
    if not found.verified:
        target, force = _beside(target), True
    if put_in_place(folder, target, force=force):
        say(f"note: {target / EMBODIMENT} is kept as it was filled in")
    return target


def _require_libraries() -> None:
    lacks = [name for name in LIBRARIES if find_spec(name) is None]
    if not lacks:
        return
    old = sys.version_info[:2] < OLDEST_PYTHON
    where = f"in an environment of Python {'.'.join(map(str, OLDEST_PYTHON))} or newer, " if old else ""
    raise ExportError(
        f"{', '.join(lacks)}: not installed: {where}pip install 'reflex_ros[export]' (docs/how-to/export-a-checkpoint.md)",
        MISSING,
    )


def torch_side() -> TorchSide:
    """Import torch, LeRobot and ONNX, and return what uses them."""
    from reflex_export import lerobot_policy, onnx_files, verification

    def describe_policy(loaded: Any, checkpoint: Checkpoint, options: ExportOptions) -> Mapping[str, Any]:
        return family(checkpoint.family).describe_policy(loaded.policy, checkpoint, options)

    def write(loaded: Any, checkpoint: Checkpoint, folder: Path, options: ExportOptions) -> str:
        graphs = family(checkpoint.family).graphs(loaded.policy, checkpoint, options)
        return onnx_files.write_graphs(graphs, folder, options)

    return TorchSide(
        load=lerobot_policy.load,
        describe=describe_policy,
        answers=verification.lerobot_answers,
        write=write,
        compare=verification.compare,
    )
