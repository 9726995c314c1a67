# SPDX-License-Identifier: Apache-2.0
"""One import from another program's folder to one of our exports: read, described, run, and put in place whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from reflex_core.doctor.manifest import write_manifest
from reflex_core.errors import ConfigurationError, ExportError, ReflexError
from reflex_core.export.export import CONFIG_NAME, open_export
from reflex_core.export.lookalikes import leapp_description
from reflex_core.policy.base import Policy
from reflex_core.policy.load import load_policy
from reflex_core.robot.skeleton import FILE as EMBODIMENT
from reflex_core.values import Observation
from reflex_export.documents.readable_json import readable
from reflex_export.folder.target_folder import check_target, put_in_place, work_folder
from reflex_export.importing.description_of import REFUSED, Found, ImportOptions
from reflex_export.importing.leapp_bundle import read_leapp
from reflex_export.importing.policy_package import MANIFEST, is_policy_package, read_policy_package

SEED = 0  # of the run that is compared with


@dataclass(frozen=True, slots=True)
class Imported:
    """What was written: where, as what the server calls it, and the rows and columns of its chunk."""

    folder: Path
    model_version: str
    rows: int
    width: int


def run(folder: Path, out: Path, options: ImportOptions, say: Callable[[str], None]) -> Imported:
    """Import a folder into `out`. say: takes each line about what was read and what was taken for granted.

    Raises ConfigurationError for everything that cannot be served as it was meant; nothing is left behind then.
    """
    folder, out = Path(os.path.abspath(folder)), Path(os.path.abspath(out))
    check_target(out, force=options.force, inputs=(folder, options.tokenizer))
    if out == folder or out.is_relative_to(folder):
        raise ConfigurationError(f"{out}: is inside what is imported: name a folder elsewhere", REFUSED)
    found = _read(folder, options)
    for line in found.read:
        say(f"read: {line}")
    for line in found.granted:
        say(f"taken for granted: {line}")
    with work_folder(out.parent) as work:
        made = work / out.name
        made.mkdir()
        for name, file in found.files.items():
            (made / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, made / name)
        (made / CONFIG_NAME).write_text(readable(found.config) + "\n", encoding="utf-8")
        try:
            imported = _tried(made)
        except ReflexError as error:
            # the names of files in a folder that is gone by the time the user reads of it
            raise ExportError(str(error).replace(str(made), str(folder)), error.slug) from error
        if put_in_place(made, out, force=options.force):
            say(f"kept: {out / EMBODIMENT}, as it was filled in")
    return replace(imported, folder=out)


def _read(folder: Path, options: ImportOptions) -> Found:
    if not folder.is_dir():
        raise ExportError(f"{folder}: there is no such folder to import", "export-missing")
    if is_policy_package(folder):
        return read_policy_package(folder, options)
    if (description := leapp_description(folder)) is not None:
        return read_leapp(description, options)
    raise ExportError(
        f"{folder}: is nothing that can be imported: it needs the {MANIFEST} of a policy_package (LeRobot, physicalai), or the"
        " .yaml of a LEAPP bundle",
        REFUSED,
    )


def _tried(folder: Path) -> Imported:
    """Run what was described twice on a plain image, and write what other machines compare with. Raises ReflexError."""
    export = open_export(folder)
    # which units the numbers have changes nothing of whether the graph runs
    plain = {key: value for key, value in export.config.items() if key != "units"}
    policy = load_policy(replace(export, config=plain), None, "cpu", 1)
    observation = policy.canary()
    first, again = (policy.predict(observation, SEED).normalised for _ in range(2))
    if not np.isfinite(first).all():
        raise ExportError(f"{folder}: the graph makes NaN or Inf of a plain grey image", REFUSED)
    if not np.array_equal(first, again):
        raise ExportError(
            f"{folder}: the graph makes two chunks of one observation, so it draws random numbers itself, and no answer of it"
            " could be replayed: export it with its start noise as an input",
            REFUSED,
        )
    _write_manifest(policy, observation)
    return Imported(folder, export.model_version, policy.contract.rows, policy.contract.action_dim)


def _write_manifest(policy: Policy, observation: Observation) -> None:
    write_manifest(policy, observation, "a plain grey picture", seed=SEED)
