# SPDX-License-Identifier: Apache-2.0
"""What is taken for granted where an export is bound to a robot, for the log."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from reflex_core.export.camera_binding import unfed
from reflex_core.export.contract import Contract
from reflex_core.export.export import Affine, Export
from reflex_core.export.relative import unmatched
from reflex_core.robot.embodiment import Embodiment
from reflex_core.text.untrusted import escaped


def statistics_notes(export: Export, contract: Contract, state: Affine | None) -> Iterator[str]:
    """Yield what the export leaves unsaid of its statistics. state: those of its state, None where there are none."""
    yield from export.normalization.notes
    if contract.relative and (idle := unmatched(export, contract.action_names)):
        yield (
            f"exclude_joints names {escaped(', '.join(idle), 100)}, which no action_names of its relative actions contain: they"
            " are offsets like the others, as in LeRobot"
        )
    reads = contract.state is not None and (contract.state.input is not None or contract.state.bins > 0)
    if not reads or state is not None or export.normalization.state_mode:
        return
    identity = '"normalization": {"state": {"mode": "identity"}}'
    if export.action_statistics is not None:
        yield (
            "it brings statistics of its actions and none of its state: the state goes in as it is; if that is right, write"
            f" {identity} beside that of the action"
        )
    elif contract.state is not None and contract.state.bins:
        yield f"its prompt holds the state, and nothing says how it is normalised: it goes in as it is; if that is right, write {identity}"


def binding_notes(
    export: Export, contract: Contract, embodiment: Embodiment | None, served: Embodiment | None,
    cameras: Mapping[str, str], alias: Mapping[str, str],
) -> Iterator[str]:  # fmt: skip
    """Yield what was matched by guess or left out. served: the robot as it is served. alias: the export's name of the gripper."""
    if embodiment is not None and not export.says_how_it_normalises:
        yield (
            f"it brings no statistics: those of embodiment '{embodiment.name}' are used: right only if they are"
            " what the policy was trained with"
        )
    if served is not embodiment:
        yield "its actions have no gripper: the embodiment is served without its last dimension"
    for theirs, ours in alias.items():
        yield f"its '{theirs}' is taken as the gripper '{ours}': right only if both count the same way"
    for wanted, have in cameras.items():
        if wanted != have:
            yield f"no camera of the robot is called '{wanted}': it is served by '{have}'"
    for name in unfed(contract, cameras):
        yield f"no camera of the robot feeds '{name}': it is masked in every chunk, as if it were covered"
    if contract.observation_steps > 1:
        yield f"it sees {contract.observation_steps} observations, one control period apart"
    if embodiment is not None and contract.rows > embodiment.chunk_size:
        yield f"its chunks of {contract.rows} actions are cut to the {embodiment.chunk_size} of the embodiment"
