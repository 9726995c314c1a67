# SPDX-License-Identifier: Apache-2.0
"""The folder that is made: nothing in the way, complete or not there at all, and nothing left behind."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from reflex_core.errors import ConfigurationError
from reflex_core.export.export import CONFIG_NAME
from reflex_core.files.directories import FULL, unwritable
from reflex_core.files.json_fields import JsonError, read_json
from reflex_core.files.regular_file import real_path
from reflex_core.robot.skeleton import FILE as EMBODIMENT
from reflex_core.robot.skeleton import unfilled
from reflex_core.text.untrusted import shown

IN_THE_WAY = "export-in-the-way"
MOST_NAME_BYTES = 255  # of most file systems


def check_target(target: Path, *, force: bool, inputs: Iterable[Path | None] = ()) -> None:
    """Raise ConfigurationError where something is in the way that must not be replaced, or where nothing can be written.

    inputs: what the export is made from, which must not be in a folder that is replaced.
    """
    if not target.name.isprintable() or len(target.name.encode()) > MOST_NAME_BYTES:
        raise ConfigurationError(
            f"the name of the export must be printable and have at most {MOST_NAME_BYTES} bytes, got {shown(target.name)}",
            IN_THE_WAY,
        )
    if not target.parent.is_dir():
        raise ConfigurationError(
            f"{target.parent}: there is no such folder to write the export into: make it first", IN_THE_WAY
        )
    if why := unwritable(target.parent):
        raise ConfigurationError(f"{target.parent}: {why}", IN_THE_WAY)
    if target == Path.cwd():
        raise ConfigurationError(f"{target}: is where this runs: name a folder in it", IN_THE_WAY)
    if not (target.exists() or target.is_symlink()):
        return
    if not target.is_dir() or target.is_symlink():
        raise ConfigurationError(f"{target}: is there already and no folder: name another one", IN_THE_WAY)
    if not any(target.iterdir()):
        return
    if not (target / CONFIG_NAME).is_file():
        raise ConfigurationError(
            f"{target}: is there already, and is no export that --force could replace: name another folder",
            IN_THE_WAY,
        )
    if not force:
        raise ConfigurationError(
            f"{target}: is there already: name another folder, or replace it with --force", IN_THE_WAY
        )
    if why := unwritable(target):  # what cannot be changed cannot be moved away either
        raise ConfigurationError(f"{target}: is there already, and {why}: name another folder", IN_THE_WAY)
    whole = real_path(target)
    for path in (*inputs, Path.cwd()):
        if path is not None and real_path(path).is_relative_to(whole):
            raise ConfigurationError(
                f"{target}: holds {path}, which --force would remove with it: name another folder", IN_THE_WAY
            )


def put_in_place(folder: Path, target: Path, *, force: bool) -> bool:
    """Give a finished folder its name; what it replaces stays where that fails. Raises ConfigurationError.

    Returns whether the embodiment.json of the folder that was replaced was kept: it answers more than that of the new one.
    """
    check_target(target, force=force)
    keeps = _answers_more(target / EMBODIMENT, folder / EMBODIMENT)
    if keeps:
        shutil.copyfile(target / EMBODIMENT, folder / EMBODIMENT)
    replaced = folder.with_name("replaced")  # is removed with the work folder
    try:
        if target.exists():
            target.rename(replaced)
        folder.rename(target)
    except BaseException:
        if replaced.exists() and not target.exists():
            replaced.rename(target)
        raise
    return keeps


def _answers_more(old: Path, new: Path) -> bool:
    """Return whether a robot's file answers something that the file in its place would ask for."""
    if not old.is_file():
        return False
    try:
        left = set(unfilled(read_json(old)))
    except (JsonError, OSError):
        return True  # half-way through being edited
    return not new.is_file() or not left >= set(unfilled(read_json(new)))


@contextmanager
def work_folder(parent: Path) -> Iterator[Path]:
    """Make a folder beside the export, so that a finished one only needs to be renamed, and remove it whatever happens."""
    try:
        work = Path(tempfile.mkdtemp(prefix=".reflex_export.", dir=parent))
    except OSError as error:
        raise ConfigurationError(
            f"{parent}: nothing can be written: {error.strerror or error}", IN_THE_WAY
        ) from error
    try:
        yield work
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise ConfigurationError(
            f"{parent}: the disk became full while the export was written, and nothing of it is left: free some, or name another"
            " place",
            "not-enough-disk",
        ) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
