# SPDX-License-Identifier: Apache-2.0
"""`reflex replay --publish`: play a recording onto the ROS topics, for a separate node (docs/how-to/play-onto-topics.md)."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reflex_core.errors import ConfigurationError
from reflex_core.records.trace.reader import TraceReader
from reflex_core.replay.comparison import Source
from reflex_core.replay.recorded_images import ImageFiles
from reflex_core.replay.sources import open_source
from reflex_core.robot.presets import load_embodiment, load_preset
from reflex_core.text.untrusted import printable
from reflex_ros.cli.replay_console import header_lines, shown
from reflex_ros.console.ros_args import ROS_ARGS
from reflex_ros.console.terminal import Bar

if TYPE_CHECKING:
    from reflex_ros.playing.player import Played, Player
    from reflex_ros.playing.recording import Recording

PLAYED, PART_PLAYED = 0, 1
PATIENCE_S = 30.0
NOT_WITH = (
    "model", "model_b", "no_replay", "fail_on", "output", "plot", "seed", "diff", "min_cos", "max_abs", "joint_share",
    "device",
)  # fmt: skip
ONLY_WITH = ("rate", "clock", "wait_s", "with_controller")
USUAL = {"rate": 1.0, "clock": False, "wait_s": PATIENCE_S, "with_controller": False}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of --publish. Those that the user does not give are None."""
    group = parser.add_argument_group("onto ROS topics", f"what follows {ROS_ARGS} goes to rclpy")
    add = group.add_argument
    add(
        "--publish", action="store_true", help="publish the recorded inputs, for another node; needs no model"
    )
    add("--rate", type=float, metavar="X", help="speed factor [default: 1]")
    add(
        "--clock", action="store_true", default=None,
        help="keep the recorded stamps and publish /clock, for a node with use_sim_time; else stamps are now",
    )  # fmt: skip
    add(
        "--wait-s",
        type=float,
        metavar="SECONDS",
        help=f"time to wait for subscribers [default: {PATIENCE_S:g} s]",
    )
    add(
        "--with-controller", action="store_true", default=None,
        help="play even if a controller subscribes to that node's commands: its robot moves",
    )  # fmt: skip


def check(options: argparse.Namespace, ros_args: Sequence[str]) -> None:
    """Fill in defaults. Raises ValueError for options without effect, with --publish or without, or invalid numbers."""
    if not options.publish:
        unused = [*_given(options, ONLY_WITH), *([ROS_ARGS] if len(ros_args) > 1 else [])]
        if unused:
            raise ValueError(f"{unused[0]} goes with --publish alone, and nothing is published here")
        return
    for flag in _given(options, NOT_WITH):
        raise ValueError(f"{flag} does not go with --publish, which runs no policy: start a node beside it")
    for name, value in USUAL.items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    if not (math.isfinite(options.rate) and options.rate > 0.0):
        raise ValueError(f"--rate must be more than 0, got {options.rate:g}")
    if not (math.isfinite(options.wait_s) and options.wait_s >= 0.0):
        raise ValueError(f"--wait-s must be 0 or more, got {options.wait_s:g}")


def _given(options: argparse.Namespace, names: Iterable[str]) -> list[str]:
    """Return the flags among these that the user gave."""
    values = ((name, getattr(options, name, None)) for name in names)
    written = (name for name, value in values if not (value is None or value is False or value == ""))
    return [f"--{name.replace('_', '-')}" for name in written]


def publish(options: argparse.Namespace, ros_args: Sequence[str], open_bag: Callable[[Path], Source]) -> int:
    """Play it and return the exit status. Raises TraceError, or ConfigurationError where no node subscribes.

    ConfigurationError also where it would be mixed with a live robot, or move one.
    """
    try:
        from reflex_ros.playing.player import Player, playing_node
    except (ImportError, OSError) as error:
        raise ConfigurationError(f"--publish needs ROS 2, and rclpy cannot be imported: {error}") from error
    images = ImageFiles(options.images) if options.images else None
    with open_source(options.trace, open_bag) as source:
        print(f"Publishing: {options.trace}", *header_lines(source.header), sep="\n")
        recording = _recording(options, source, images)
        if recording.first.seed is not None:
            print(f"  noise seed of the first request: {recording.first.seed}")
        with playing_node(ros_args) as node:
            player = Player(
                node, recording.offers, rate=options.rate, clock=options.clock,
                with_controller=options.with_controller,
            )  # fmt: skip
            _wait(player, options.wait_s)
            try:
                _play(player, recording)
            finally:
                _warn([*source.warnings, *_left_out(recording)])
                print(_summary(player.played, options.rate), flush=True)
        torn = bool(source.damage or recording.left_out)
        return PART_PLAYED if torn and not options.allow_damage else PLAYED


def _recording(options: argparse.Namespace, source: Source, images: ImageFiles | None) -> Recording:
    """Return the recording to play. Raises TraceError where there is nothing to play."""
    if isinstance(source, TraceReader):
        from reflex_ros.playing.traces import TraceRecording

        names = _joint_names(options)
        return TraceRecording(source, options.trace, images=images, joint_names=names, limit=options.n)
    from reflex_ros.bag.source import BagSource
    from reflex_ros.playing.bags import BagRecording

    assert isinstance(source, BagSource)
    return BagRecording(source, options.n)


def _joint_names(options: argparse.Namespace) -> tuple[str, ...]:
    """Return the joint names of the robot that the command line names; empty where it names none."""
    if options.custom_embodiment_config:
        return load_embodiment(Path(options.custom_embodiment_config)).joint_names
    return load_preset(options.embodiment).joint_names if options.embodiment else ()


def _wait(player: Player, patience_s: float) -> None:
    waited_for = ", ".join(player.unheard())
    if waited_for:
        print(
            f"waiting up to {patience_s:g} s for a node that listens to {printable(waited_for)}", flush=True
        )
    unheard = player.wait(patience_s)
    if unheard:
        _warn([f"no node subscribes to {', '.join(unheard)}"])


def _play(player: Player, recording: Recording) -> None:
    bar = Bar()

    def progress(played: Played) -> None:
        bar.draw(recording.fraction, played.observations)

    try:
        player.play(recording.moments(), progress)
    finally:
        bar.clear()


def _summary(played: Played, rate: float) -> str:
    pace = "" if rate == 1.0 else f" at {rate:g} times their pace"
    return (
        f"published {played.observations} observations ({played.messages} messages) in {played.seconds:.1f} s;"
        f" recorded over {played.recorded_s:.1f} s{pace}, at worst {played.late_ms:.1f} ms late"
    )


def _left_out(recording: Recording) -> Iterator[str]:
    reasons = recording.left_out
    if reasons:
        yield f"{len(reasons)} observations could not be published, the first: {shown(reasons[0])}"


def _warn(sentences: Sequence[Any]) -> None:
    for sentence in sentences:
        print(f"WARN: {printable(str(sentence))}", file=sys.stderr, flush=True)
