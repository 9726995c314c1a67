# SPDX-License-Identifier: Apache-2.0
"""Serve a policy: `ros2 launch reflex_ros serve.launch.py export_dir:=/my/export embodiment:=franka`.

`export_dir:=demo` is the embedded policy; where no export is named that one answers requests over HTTP and commands no robot.
Every setting of docs/flags.md is an argument. `params_file` holds the same settings as YAML; arguments win. On a robot:
`trajectory:=/joint_trajectory_controller/joint_trajectory remap:="camera/image_raw:=/wrist/color"`.
"""

from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode

from launch import LaunchContext, LaunchDescription
from reflex_ros import launching


def _nodes(context: LaunchContext) -> list[LifecycleNode]:
    def text(name: str) -> str:
        return LaunchConfiguration(name).perform(context)

    files = [text("params_file")] if text("params_file") else []
    settings = launching.parameters({name: text(name) for name, _ in launching.arguments()})
    as_lists = {key: list(value) if isinstance(value, tuple) else value for key, value in settings.items()}
    return [
        LifecycleNode(
            package="reflex_ros",
            executable="serve",
            name="reflex",
            namespace=text("namespace"),
            parameters=[*files, {"use_sim_time": text("use_sim_time").lower() == "true"} | as_lists],
            remappings=launching.remappings(text("trajectory"), text("remap")),
            ros_arguments=["--log-level", text("log_level")],
            respawn=text("respawn").lower() == "true",
            respawn_delay=2.0,
            output="screen",
        )
    ]


def generate_launch_description() -> LaunchDescription:
    """One node, its settings, its environment."""
    return LaunchDescription(
        [
            DeclareLaunchArgument(name, default_value=value, description=words)
            for name, value, words in launching.OWN_ARGUMENTS
        ]
        + [
            DeclareLaunchArgument(name, default_value="", description=words)
            for name, words in launching.arguments()
        ]
        + [SetEnvironmentVariable(name, value) for name, value in launching.environment().items()]
        + [OpaqueFunction(function=_nodes)]
    )
