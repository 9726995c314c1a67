# SPDX-License-Identifier: Apache-2.0
"""Keys of a foreign observation that are a gripper's share of its way: which joint each is, and the state in rad and m."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reflex_core.errors import ObservationError
from reflex_core.robot.gripper_shares import NO_ENDS, GripperJoint, GripperShare
from reflex_core.settings.wire_keys import SETTING
from reflex_core.text.untrusted import escaped
from reflex_ros.sidecar.wires.key_map import Keys

LENGTH = "state-length"
UNKNOWN = "gripper-unknown"

Doubles = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class KeyedShare:
    """One number of a key. place: in the numbers of all keys of the state, one after another."""

    key: str
    place: int
    share: GripperShare


def shares_in(
    keys: Keys, sizes: Mapping[str, int], grippers: Sequence[GripperJoint], state_size: int | None
) -> tuple[KeyedShare, ...]:
    """Return the gripper of each number that is a share. sizes: how many numbers each key has.

    Raises ObservationError where a number is no gripper whose ends are known, or where the state has not its length.
    """
    if not keys.shares:
        return ()
    senses = dict(keys.shares)
    owners = [key for key in keys.state for _ in range(sizes[key])]
    shared = [(key, place) for place, key in enumerate(owners) if key in senses]
    unmeasured = [joint for joint in grippers if joint.state is None]
    if len(owners) - len(shared) == state_size and len(shared) == len(unmeasured):
        joints = dict(zip((place for _, place in shared), unmeasured, strict=True))
    elif state_size is None or len(owners) == state_size:
        joints = {joint.state: joint for joint in grippers if joint.state is not None}
    else:
        raise ObservationError(
            f"the state must be {state_size} numbers, got {len(owners)} of"
            f" {', '.join(f'{escaped(key)} ({sizes[key]})' for key in keys.state)}; '{SETTING}' says which is what",
            LENGTH,
        )
    for key, place in shared:
        if place not in joints:
            raise _unknown(key, senses[key], place, grippers)
    return tuple(KeyedShare(key, place, GripperShare(joints[place], senses[key])) for key, place in shared)


def in_rad_and_m(state: Doubles, shares: Sequence[KeyedShare]) -> Doubles:
    """Return the state with the joints' positions in place of shares, without those that the policy's state does not hold.

    state: the numbers of all keys. Raises ObservationError for a share beyond 0..1.
    """
    made = state.copy()
    for one in shares:
        made[one.place] = one.share.to_joint(float(state[one.place]), one.key)
    return np.delete(made, [one.place for one in shares if one.share.joint.state is None])


def _unknown(key: str, one: str, place: int, grippers: Sequence[GripperJoint]) -> ObservationError:
    what = f"'{escaped(key)}' is the share of the way to a gripper's {one} end, as setting '{SETTING}' or the wire's protocol says"
    if not grippers:
        return ObservationError(f"{what}, and {NO_ENDS}", UNKNOWN)
    known = ", ".join(
        f"{escaped(joint.name)} (number {joint.state} of the state)"
        for joint in grippers
        if joint.state is not None
    )
    return ObservationError(
        f"{what}, and it is number {place} of the state, which is no gripper: the grippers are {known or 'not in the state'}",
        UNKNOWN,
    )
