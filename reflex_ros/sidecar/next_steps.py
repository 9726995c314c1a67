# SPDX-License-Identifier: Apache-2.0
"""What an operator does next, by the reason why no fresh chunk comes. The reasons are slugs that programs read too."""

from __future__ import annotations

ELSE = "Read Concerns below and the log."
STEPS = {
    "camera_missing": "Start the camera's driver, or remap its topic: the checklist names it.",
    "state_missing": "Start the joint state broadcaster, or remap its topic: the checklist names it.",
    "joint_names": "The joint names differ from the policy's: remap them, or choose the right embodiment.",
    "no_instruction": "Type an instruction under Operate, or publish one on the topic.",
    "stale": "Check the driver and the cable of the stream that is named; the robot goes on by itself.",
    "future_stamp": "Synchronise the clocks, or check use_sim_time.",
    "skewed": "Check the rate of the stream that lags, or raise max_skew_ms.",
    "state_not_finite": "Check the encoder of the joint that is named.",
    "implausible_state": "Compare the joint with the robot; if it really is there, reset the guard.",
    "path_tolerance_violated": "Something blocks or unloads the joint: look at the robot.",
    "deadline": "Lower the number of denoise steps, or raise deadline_ms; see Latency.",
    "guard_tripped": "Look at the robot, find the cause below, then reset the guard.",
    "guard_error": "Read the log; the guard could not check a chunk.",
    "non_finite": "Check the export with `reflex doctor` and look at the cameras.",
    "out_of_reach": "Move the robot back into its range by hand, then resume.",
    "pose_unreached": "The pose cannot be reached from here: move the robot, then resume.",
    "rejected": "The chunk broke a limit and is not repaired in this mode: see the guard's events.",
    "tool_limit": "Move the robot away from the tool's limit, or widen it in the safety file.",
    "chunk_loop_late": "The machine is overloaded: see what else computes there.",
    "chunk_loop_gone": "Restart the node.",
    "stream_late": "The machine is overloaded: see what else computes there.",
    "stream_gone": "Restart the node.",
    "clock_jump": "Nothing to do: fresh sensor data is awaited.",
    "inference-error": "Read the log; if it repeats, serve the previous export.",
    "not-ready": "Wait until the policy is loaded.",
    "awaiting_goal": "Send a goal to ~/run_policy, or press Resume.",
    "goal_ended": "Send the next goal to ~/run_policy, or press Resume.",
}


def next_step(slug: str) -> str:
    """Return the sentence for a reason; a general one for a reason that has none."""
    return STEPS.get(slug, ELSE)
