# SPDX-License-Identifier: Apache-2.0
"""The kinds of networks by name: a new one is a file next to this one, and a row here."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from reflex_core.errors import ExportError
from reflex_core.export.export import Export
from reflex_core.export.families import kind_of
from reflex_core.policy import deterministic, diffusion, flow_matching
from reflex_core.policy.base import Policy
from reflex_core.policy.providers import PLAIN_LOAD, LoadOptions
from reflex_core.robot.embodiment import Embodiment
from reflex_core.text.untrusted import shown

Load = Callable[[Export, Embodiment | None, str, int, tuple[str, ...], LoadOptions], Policy]

KINDS: Mapping[str, Load] = {
    flow_matching.KIND: flow_matching.load,
    diffusion.KIND: diffusion.load,
    deterministic.KIND: deterministic.load,
}


def load_policy(
    export: Export,
    embodiment: Embodiment | None,
    device: str,
    intra_op_threads: int,
    joint_names: tuple[str, ...] = (),
    options: LoadOptions = PLAIN_LOAD,
) -> Policy:
    """Load an export for a robot, as its model family's kind of network does.

    Args:
        export: What `open_export` read.
        embodiment: The robot; None serves the network's own columns.
        device: auto, cpu, cuda or tensorrt.
        intra_op_threads: Of one operator; 0: 1 for graphs below 8 MB, else one per physical core.
        joint_names: The robot's names for the embodiment's joints; empty: as they are.
        options: Which files, sessions, steps and chunk length.

    Raises:
        ConfigurationError: Export and robot do not fit (ExportError: the export alone is faulty).
    """
    kind = kind_of(export.config)
    if kind not in KINDS:
        raise ExportError(
            f"{export.config_path}: 'policy' must be {' or '.join(KINDS)}, the kinds of networks that are served, got"
            f" {shown(kind)}"
        )
    return KINDS[kind](export, embodiment, device, intra_op_threads, joint_names, options)
