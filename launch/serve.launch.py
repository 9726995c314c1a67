# SPDX-License-Identifier: Apache-2.0
"""Serve a policy: `ros2 launch reflex_ros serve.launch.py export_dir:=/my/export embodiment:=franka`.

`export_dir:=demo` is the embedded policy; where no export is named that one answers requests over HTTP and commands no robot.
Every setting of docs/reference/settings.md is an argument. `params_file` holds the same settings as YAML; arguments win. On a robot:
`trajectory:=/joint_trajectory_controller/joint_trajectory remap:="camera/image_raw:=/wrist/color"`.
"""

import sys

from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch_ros.actions import LifecycleNode

from launch import LaunchContext, LaunchDescription
from reflex_ros import launch_args
from reflex_ros.console.ros_args import NODE


def _nodes(context: LaunchContext) -> list[LifecycleNode]:
    plan = launch_args.plan(context.launch_configurations, sys.argv)
    return [
        LifecycleNode(
            package="reflex_ros",
            executable="serve",
            name=NODE,
            namespace=plan.namespace,
            parameters=plan.parameters,
            remappings=plan.remappings,
            ros_arguments=["--log-level", plan.log_level],
            respawn=plan.respawn,
            respawn_delay=2.0,
            output="screen",
        )
    ]


def generate_launch_description() -> LaunchDescription:
    """One node, its settings, its environment."""
    return LaunchDescription(
        [
            DeclareLaunchArgument(name, default_value=value, description=words)
            for name, value, words in launch_args.OWN_ARGUMENTS
        ]
        + [
            DeclareLaunchArgument(name, default_value="", description=words)
            for name, words in launch_args.arguments()
        ]
        + [SetEnvironmentVariable(name, value) for name, value in launch_args.environment().items()]
        + [OpaqueFunction(function=_nodes)]
    )
