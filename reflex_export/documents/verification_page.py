# SPDX-License-Identifier: Apache-2.0
"""VERIFICATION.md of an export: its files with their hashes, and how far it is from LeRobot's own answers."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator
from datetime import datetime, timezone
from pathlib import Path

from reflex_core.doctor.manifest import hash_table
from reflex_core.doctor.parity import FIXTURE
from reflex_core.robot.skeleton import FILE as EMBODIMENT
from reflex_export.result import Difference, Verification

VERIFIED, NOT_VERIFIED = "verified", "NOT VERIFIED"


def verdict(found: Verification) -> str:
    """Return in one sentence whether the export answers as LeRobot does."""
    where = f"{found.max_abs:.2g}, the largest difference from LeRobot over {len(found.observations)} observations,"
    if found.verified:
        return f"{VERIFIED}: {where} is within {found.tolerance:g}"
    return f"{NOT_VERIFIED}: {where} is above {found.tolerance:g}: do not move a robot with it"


def verification_page(folder: Path, model_version: str, found: Verification) -> str:
    """Return VERIFICATION.md of the export in `folder`, whose other files are all there.

    embodiment.json is not listed: it is a skeleton, and filling it in is no damage.
    """
    versions = ", ".join(f"{name} {version}" for name, version in (found.versions or {}).items())
    parts = [
        f"# Verification of {model_version}",
        f"Written by `reflex export` on {datetime.now(timezone.utc).date().isoformat()}. Machine: {platform.machine()}, Python"
        f" {platform.python_version()}{', ' + versions if versions else ''}.",
        f"**{verdict(found)}.**",
        "LeRobot's own preprocessor, policy and postprocessor got the same camera pictures, states, instruction and start noise"
        " as this export, which was run by the code that serves it.",
        "## Stage by stage",
        _table(found.stages, "stage"),
        "## Joint by joint",
        _table(found.joints, "joint"),
        "## Observations",
        "\n".join(f"- {text}" for text in found.observations) or "none",
        "## What else was checked",
        "\n".join(f"- {sentence}" for sentence in _checks(found)),
        "## Files",
        hash_table(folder, without=(EMBODIMENT,)),
        f"`sha256sum FILE` shows the same numbers; `reflex doctor DIR` compares them, and repeats the comparison from `{FIXTURE}`"
        " without torch.",
    ]
    return "\n\n".join(parts) + "\n"


def _table(differences: Iterable[Difference], name: str) -> str:
    rows = [
        f"| {_cell(one.name)} | {one.max_abs:.2e} | {one.mean_abs:.2e} | {one.cosine:.9f} | {_cell(one.unit)} |"
        for one in differences
    ]
    return "\n".join([f"| {name} | max abs | mean abs | cosine | unit |", "|---|---|---|---|---|", *rows])


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _checks(found: Verification) -> Iterator[str]:
    batch = ", ".join(map(str, found.batch_sizes))
    if found.batch_sizes == (1,):
        yield "Batch: the graphs take one observation at a time."
    else:
        yield f"Batch: with {batch} observations at a time, each row equals its single run within 1e-5."
    if found.picture_effect is None:
        yield "Pictures: the policy reads none."
    elif found.pictures_matter:
        yield f"Pictures: black ones change the answers by {found.picture_effect:.2g} or more, so a fault in them would have shown."
    else:
        yield (
            f"Pictures: black ones change the answers by as little as {found.picture_effect:.2g}: the pictures hardly matter, so this"
            " comparison would not have shown a fault in them."
        )
    yield from found.notes
