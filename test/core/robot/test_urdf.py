# SPDX-License-Identifier: Apache-2.0
"""Joint limits out of a robot's description."""

from __future__ import annotations

from pathlib import Path

import pytest

from reflex_core.robot.urdf import UrdfError, limits_of, read_urdf

HARD = '<limit lower="-1" upper="2" velocity="1.5" effort="30"/>'


def robot(*joints: str) -> bytes:
    return f'<?xml version="1.0"?><robot name="arm">{"".join(joints)}</robot>'.encode()


def joint(name: str = "elbow", kind: str = "revolute", inside: str = HARD) -> str:
    return f'<joint name="{name}" type="{kind}">{inside}</joint>'


def test_hard_limits_are_read() -> None:
    found = limits_of(robot(joint(), joint("slide", "prismatic"), joint("base", "fixed", "")), "arm.urdf")
    assert [entry.name for entry in found.joints] == ["elbow", "slide"]
    elbow = found.joints[0]
    assert (elbow.position_min, elbow.position_max, elbow.velocity_max, elbow.effort_max) == (
        -1.0,
        2.0,
        1.5,
        30.0,
    )
    assert (found.notes, found.missing) == ((), ())


@pytest.mark.parametrize(
    ("soft", "low", "high"),
    [
        ('soft_lower_limit="-0.5" soft_upper_limit="1"', -0.5, 1.0),
        ('soft_lower_limit="-3" soft_upper_limit="3"', -1.0, 2.0),
        ('soft_lower_limit="-3" soft_upper_limit="1"', -1.0, 1.0),
        ('soft_upper_limit="1"', -1.0, 1.0),
        ('k_velocity="10"', -1.0, 2.0),
        ('soft_lower_limit="0" soft_upper_limit="0" k_velocity="10"', -1.0, 2.0),
    ],
)
def test_the_tighter_of_hard_and_soft_limits_wins(soft: str, low: float, high: float) -> None:
    (found,) = limits_of(robot(joint(inside=f"{HARD}<safety_controller {soft}/>")), "arm.urdf").joints
    assert (found.position_min, found.position_max) == (low, high)


def test_mimic_joints_are_left_out_and_reported() -> None:
    follower = joint("finger2", "prismatic", f'{HARD}<mimic joint="finger1"/>')
    found = limits_of(robot(joint("finger1", "prismatic"), follower), "arm.urdf")
    assert [entry.name for entry in found.joints] == ["finger1"]
    assert found.notes == ("finger2: follows 'finger1' (mimic), never commanded: left out",)


def test_what_notes_name_forges_no_line() -> None:
    follower = joint("finger2", "prismatic", f'{HARD}<mimic joint="x&#10;[ERROR] fake"/>')
    (note,) = limits_of(robot(joint("finger1", "prismatic"), follower), "arm.urdf").notes
    assert note.isprintable()


@pytest.mark.parametrize("text", ["2", "+2.0", "2.", " 2e0 ", "20.0E-1"])
def test_numbers_are_read_as_xml_writes_them(text: str) -> None:
    (found,) = limits_of(
        robot(joint(inside=f'<limit lower="-.5" upper="{text}" velocity="1"/>')), "arm.urdf"
    ).joints
    assert (found.position_min, found.position_max) == (-0.5, 2.0)


def test_continuous_joints_have_a_speed_and_no_range() -> None:
    found = limits_of(robot(joint("wheel", "continuous")), "arm.urdf")
    (wheel,) = found.joints
    assert (wheel.position_min, wheel.position_max, wheel.velocity_max) == (None, None, 1.5)
    assert "position is not limited" in found.notes[0]
    assert found.missing == ()


MISSING = {
    "no limit element": ("", ["elbow: no position limits (lower, upper)", "elbow: no velocity limit"]),
    "neither end": ('<limit velocity="1" effort="1"/>', ["elbow: no position limits (lower, upper)"]),
    "both ends 0": (
        '<limit lower="0" upper="0" velocity="1"/>',
        ["elbow: no position limits (lower, upper)"],
    ),
    "no velocity": ('<limit lower="-1" upper="1"/>', ["elbow: no velocity limit"]),
    "velocity 0": ('<limit lower="-1" upper="1" velocity="0"/>', ["elbow: no velocity limit"]),
}


@pytest.mark.parametrize(("inside", "missing"), list(MISSING.values()), ids=list(MISSING))
def test_missing_limits_are_reported_and_never_invented(inside: str, missing: list[str]) -> None:
    found = limits_of(robot(joint(inside=inside)), "arm.urdf")
    assert list(found.missing) == missing
    (elbow,) = found.joints
    assert (elbow.position_min is None) == ("position" in missing[0])


def test_a_range_may_begin_at_zero() -> None:
    (finger,) = limits_of(
        robot(joint("finger", "prismatic", '<limit upper="0.04" velocity="0.2"/>')), "arm.urdf"
    ).joints
    assert (finger.position_min, finger.position_max) == (0.0, 0.04)


BOMB = '<!DOCTYPE robot [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><robot name="&b;"/>'
REFUSED: dict[str, tuple[bytes, str]] = {
    "a DOCTYPE": (BOMB.encode(), "must not have a DOCTYPE"),
    "a DOCTYPE in another encoding": (f'<?xml version="1.0" encoding="utf-16"?>{BOMB}'.encode("utf-16"), "DOCTYPE"),
    "no XML": (b"robot: arm", "not XML"),
    "nothing": (b"", "not XML"),
    "an unknown encoding": (b'<?xml version="1.0" encoding="klingon"?><robot/>', "not XML"),
    "another document": (b"<sdf/>", "root element must be 'robot'"),
    "xacro": (
        b'<robot xmlns:xacro="http://www.ros.org/wiki/xacro"><xacro:property name="a" value="1"/></robot>',
        "run `xacro arm.urdf > robot.urdf` first",
    ),
    "an expression": (robot(joint(inside='<limit lower="${low}" upper="1" velocity="1"/>')), "run `xacro"),
    "no joint that moves": (robot(joint("base", "fixed", "")), "got none"),
    "a joint without a name": (robot('<joint type="revolute"/>'), "name of its own"),
    "the same joint twice": (robot(joint(), joint()), "name of its own"),
    "a limit that is no number": (robot(joint(inside='<limit lower="low" upper="1"/>')), "'lower' of joint 'elbow'"),
    "NaN": (robot(joint(inside='<limit lower="nan" upper="1"/>')), "must be a finite number"),
    "a range upside down": (robot(joint(inside='<limit lower="2" upper="1" velocity="1"/>')), "lower < upper"),
    "degrees": (robot(joint(inside='<limit lower="-180" upper="180" velocity="1"/>')), "looks like degrees: multiply"),
    "degrees of a small joint": (robot(joint(inside='<limit lower="-30" upper="10" velocity="1"/>')), "-30 to 10"),
    "soft limits in degrees": (
        robot(joint(inside='<limit velocity="1"/><safety_controller soft_lower_limit="-90" soft_upper_limit="90"/>')),
        "looks like degrees",
    ),
    "millimetres": (robot(joint(kind="prismatic", inside='<limit lower="0" upper="400" velocity="1"/>')), "1000"),
    "degrees per second": (robot(joint(inside='<limit lower="-1" upper="1" velocity="180"/>')), "rad/s or m/s"),
    "a name of two lines": (robot(joint("x&#10;[ERROR] fake")), r"printable name of its own, got 'x.n\[ERROR\] fake'"),
    "a name that looks like another": (robot(joint(), joint("elbow ")), "name of its own, got 'elbow '"),
    "a name of a megabyte": (robot(joint("y" * 10**6)), "printable name"),
    "two limits of a joint": (robot(joint(inside=HARD + HARD.replace("2", "9"))), "'elbow' must have one 'limit' at most"),
    "two soft limits": (robot(joint(inside=HARD + '<safety_controller soft_upper_limit="1"/>' * 2)), "one 'safety_controller'"),
    "a number as Python writes it": (robot(joint(inside='<limit lower="-1" upper="1_0" velocity="1"/>')), "got '1_0'"),
    "digits of another script": (robot(joint(inside='<limit lower="-1" upper="\u0661" velocity="1"/>')), "finite number"),
    "a speed that is next to nothing": (
        robot(joint(inside='<limit lower="-1" upper="1" velocity="1e-320"/>')),
        "'velocity' of joint 'elbow' must be at least 1e-06, or 0 where it is unknown",
    ),
    "a range that is next to nothing": (
        robot(joint(inside='<limit lower="0" upper="1e-320" velocity="1"/>')),
        "lower < upper, got 0 and 9.99989e-321: they must be at least 1e-06 apart",
    ),
    "a negative speed": (robot(joint(inside='<limit lower="-1" upper="1" velocity="-1"/>')), "must not be negative"),
}  # fmt: skip


@pytest.mark.parametrize(("data", "complaint"), list(REFUSED.values()), ids=list(REFUSED))
def test_it_is_refused_in_one_sentence(data: bytes, complaint: str) -> None:
    with pytest.raises(UrdfError, match=complaint) as caught:
        limits_of(data, "arm.urdf")
    assert str(caught.value).startswith("arm.urdf: ")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UrdfError, match="No such file"):
        read_urdf(tmp_path / "nowhere.urdf")
