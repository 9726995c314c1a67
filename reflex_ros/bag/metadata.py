# SPDX-License-Identifier: Apache-2.0
"""Write metadata.yaml, by which rosbags and `ros2 bag` read files as a bag."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from rosbags.interfaces import Connection, ConnectionExtRosbag2
from rosbags.rosbag2.metadata import dump_qos_v9

VERSION = 9  # of the format, that of Jazzy
FILE = "metadata.yaml"


@dataclass(frozen=True, slots=True)
class Part:
    """One file of a bag. connections: with the number of their messages. start_ns, end_ns: of the first and last."""

    name: str
    connections: Sequence[Connection]
    start_ns: int
    end_ns: int

    @property
    def messages(self) -> int:
        """The number of messages in it."""
        return sum(connection.msgcount for connection in self.connections)


def text(parts: Sequence[Part], storage: str) -> str:
    """Return the YAML that is stored in the file of a part, without the key around it."""
    return str(yaml.safe_dump(_information(parts, storage), sort_keys=False))


def save(directory: Path, parts: Sequence[Part], storage: str) -> None:
    """Write metadata.yaml atomically."""
    temporary = directory / f".{FILE}"
    document = {"rosbag2_bagfile_information": _information(parts, storage)}
    temporary.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    temporary.replace(directory / FILE)


def _information(parts: Sequence[Part], storage: str) -> dict[str, Any]:
    filled = [part for part in parts if part.messages]
    start_ns = min((part.start_ns for part in filled), default=0)
    end_ns = max((part.end_ns for part in filled), default=0)
    return {
        "version": VERSION,
        "storage_identifier": storage,
        "relative_file_paths": [part.name for part in parts],
        "duration": {"nanoseconds": end_ns - start_ns},
        "starting_time": {"nanoseconds_since_epoch": start_ns},
        "message_count": sum(part.messages for part in parts),
        "topics_with_message_count": _topics(parts),
        "compression_format": "",
        "compression_mode": "",
        "files": [
            {
                "path": part.name,
                "starting_time": {"nanoseconds_since_epoch": part.start_ns},
                "duration": {"nanoseconds": part.end_ns - part.start_ns},
                "message_count": part.messages,
            }
            for part in parts
        ],
        "custom_data": None,
        "ros_distro": "rosbags",
    }


def _topics(parts: Sequence[Part]) -> list[dict[str, Any]]:
    """Return every topic once, counted over all parts."""
    counts: dict[str, int] = {}
    first: dict[str, Connection] = {}
    for part in parts:
        for connection in part.connections:
            first.setdefault(connection.topic, connection)
            counts[connection.topic] = counts.get(connection.topic, 0) + connection.msgcount
    return [
        {
            "topic_metadata": {
                "name": topic,
                "type": connection.msgtype,
                "serialization_format": "cdr",
                "offered_qos_profiles": _profiles(connection),
                "type_description_hash": connection.digest,
            },
            "message_count": counts[topic],
        }
        for topic, connection in first.items()
    ]


def _profiles(connection: Connection) -> list[dict[str, Any]]:
    assert isinstance(connection.ext, ConnectionExtRosbag2)
    return [dict(profile) for profile in dump_qos_v9(connection.ext.offered_qos_profiles)]
