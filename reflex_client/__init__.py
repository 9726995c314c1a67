# SPDX-License-Identifier: Apache-2.0
"""Ask a reflex_ros server for action chunks, and play them: numpy and the standard library, Python 3.8 and newer.

policy = Policy("http://robot:8000", key="...")
with policy.episode(instruction="reach the red block") as episode:
    reply = episode.act(images={"camera": pixels}, state=joints)
"""

from reflex_client.aio import AsyncEpisode, AsyncPolicy
from reflex_client.errors import (
    InferenceFailedError,
    InvalidObservationError,
    MalformedReplyError,
    ObservationRefusedError,
    OutOfTimeError,
    ReflexClientError,
    RefusedError,
    UnauthorizedError,
    UnavailableError,
    UnreachableError,
)
from reflex_client.play.playback import Playback, Row
from reflex_client.play.player import ChunkPlayer
from reflex_client.policy import Episode, Policy
from reflex_client.reply import Guard, Reply
from reflex_client.transport.retries import Retries
from reflex_client.version import __version__

__all__ = [
    "AsyncEpisode",
    "AsyncPolicy",
    "ChunkPlayer",
    "Episode",
    "Guard",
    "InferenceFailedError",
    "InvalidObservationError",
    "MalformedReplyError",
    "ObservationRefusedError",
    "OutOfTimeError",
    "Playback",
    "Policy",
    "ReflexClientError",
    "RefusedError",
    "Reply",
    "Retries",
    "Row",
    "UnauthorizedError",
    "UnavailableError",
    "UnreachableError",
    "__version__",
]
