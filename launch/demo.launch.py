# SPDX-License-Identifier: Apache-2.0
"""The simulated robot and the policy node: `ros2 launch reflex_ros demo.launch.py scene_seed:=7`.

Then, for another cube: `ros2 topic pub --once /instruction std_msgs/msg/String "{data: pick up the red cube}"`.
"""

import sys

from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch_ros.actions import LifecycleNode, Node

from launch import LaunchContext, LaunchDescription
from reflex_ros import launch_args
from reflex_ros.demo.launch_wiring import ARGUMENTS, plan


def _nodes(context: LaunchContext) -> list[Node]:
    launch_args.require_arguments(context.launch_configurations, [], ARGUMENTS, "demo.launch.py", sys.argv)
    wanted = plan(context.launch_configurations)
    return [
        Node(
            package="reflex_ros",
            executable="demo_robot",
            arguments=list(wanted.robot_arguments),
            parameters=[wanted.robot],
            output="screen",
        ),
        LifecycleNode(
            package="reflex_ros",
            executable="serve",
            name="reflex",
            namespace="",
            parameters=[wanted.policy],
            remappings=list(wanted.policy_remappings),
            output="screen",
        ),
    ]


def generate_launch_description() -> LaunchDescription:
    """Two nodes, their arguments, their environment."""
    return LaunchDescription(
        [
            DeclareLaunchArgument(name, default_value=value, description=words)
            for name, value, words in ARGUMENTS
        ]
        + [SetEnvironmentVariable(name, value) for name, value in launch_args.environment().items()]
        + [OpaqueFunction(function=_nodes)]
    )
