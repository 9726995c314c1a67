# SPDX-License-Identifier: Apache-2.0
"""A policy that a server serves, and episodes with it."""

from __future__ import annotations

import time
import uuid
from types import TracebackType
from typing import TYPE_CHECKING, Any, Mapping
from urllib.parse import quote

from reflex_client import openpi
from reflex_client.errors import OutOfTimeError, UnavailableError, UnreachableError
from reflex_client.play.player import ChunkPlayer, Observe
from reflex_client.reply import Reply, reply_of
from reflex_client.request import JPEG_QUALITY, Images, encoded, fields_of
from reflex_client.transport.connection import Call, Server
from reflex_client.transport.exchange import (
    DEFAULT_RETRIES,
    DEFAULT_TIMEOUT_S,
    Exchanger,
    outcome_body,
    require_key,
)

if TYPE_CHECKING:
    import ssl

    from reflex_client.transport.retries import Retries

POLL_S = 0.1


class Policy:
    """Asks one server. Thread-safe, but for `infer` and `reset`; usable as a context manager, which closes its connections.

    timeout_s: of one `act` with connecting, waiting and every retry. jpeg_quality: of pixels, where cv2 or Pillow is
    installed; None sends them as they are. robot_id: this robot's name, by which the guard counts.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        key: str | None = None,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        robot_id: str | None = None,
        jpeg_quality: int | None = JPEG_QUALITY,
        retries: Retries | None = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._server = Server(url, ssl_context)
        self._exchanger = Exchanger(self._server, require_key(key), timeout_s, retries or DEFAULT_RETRIES)
        self._robot_id, self._jpeg_quality = robot_id, jpeg_quality
        self._openpi = openpi.Session()

    def __enter__(self) -> Policy:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections that are kept; the next request opens others."""
        self._server.close()

    def act(
        self,
        images: Images = None,
        state: Any = None,
        instruction: str = "",
        *,
        episode_id: str | None = None,
        request_id: str | None = None,
        seed: int | None = None,
        elapsed_rows: float | None = None,
        previous_request_id: str | None = None,
        timeout_s: float | None = None,
        call: Call | None = None,
        **more: Any,
    ) -> Reply:
        """Return the action chunk for one observation.

        images: by camera name, or one image of the first camera: uint8 (height, width, 3) RGB, or the bytes of a JPEG or PNG
        file. state: numbers in rad and m in the order of the server's `/config`. elapsed_rows: rows of the answer
        `previous_request_id` that were executed at the observation. more: other fields of a request. Raises
        ReflexClientError: InvalidObservationError before anything is sent, RefusedError with the server's slug and sentence,
        UnreachableError, OutOfTimeError, MalformedReplyError.
        """
        name = request_id or f"c-{uuid.uuid4().hex[:12]}"
        fields = fields_of(
            images, state, instruction, self._jpeg_quality, robot_id=self._robot_id, episode_id=episode_id,
            request_id=name, seed=seed, elapsed_rows=elapsed_rows,
            previous_request_id=previous_request_id, **more,
        )  # fmt: skip
        document, round_trip_ms = self._exchanger.send(
            "POST", "/act", encoded(fields), episode_id=episode_id, timeout_s=timeout_s, call=call
        )
        return reply_of(document, round_trip_ms, name)

    def observe(
        self, images: Images, state: Any, instruction: str, *, episode_id: str, call: Call | None = None
    ) -> Mapping[str, Any]:
        """Have the server keep an observation for the next chunks of its episode, for policies that see several; no inference.

        Return what it says: `kept` is how many observations of the episode it has now.
        """
        fields = fields_of(
            images, state, instruction, self._jpeg_quality, robot_id=self._robot_id, episode_id=episode_id,
            observe_only=True,
        )  # fmt: skip
        return self._exchanger.send("POST", "/act", encoded(fields), episode_id=episode_id, call=call)[0]

    def episode(self, episode_id: str | None = None, instruction: str = "") -> Episode:
        """Return an episode: requests that belong together. instruction: of its requests that bring none."""
        return Episode(self, episode_id or f"ep-{uuid.uuid4().hex[:12]}", instruction)

    def config(self) -> Mapping[str, Any]:
        """Return the server's `/config`; `effective` has the names of cameras and state, and the configuration in force."""
        return self._exchanger.send("GET", "/config")[0]

    def health(self) -> Mapping[str, Any]:
        """Return the server's `/health`. Raises UnavailableError while it is not ready."""
        return self._exchanger.send("GET", "/health")[0]

    def wait_until_ready(self, timeout_s: float = 120.0) -> None:
        """Return once the server is ready, whenever it is started. Raises OutOfTimeError."""
        end_s = time.monotonic() + timeout_s
        while True:
            try:
                self._exchanger.send("GET", "/health", timeout_s=max(end_s - time.monotonic(), 1e-3))
                return
            except (UnavailableError, UnreachableError) as error:
                if time.monotonic() + POLL_S >= end_s:
                    raise OutOfTimeError(
                        f"{self._server.url} was not ready within {timeout_s:g} s: {error.sentence}"
                    ) from error
                time.sleep(POLL_S)

    def report_outcome(
        self, episode_id: str, *, success: bool, score: float | None = None, note: str = ""
    ) -> Mapping[str, Any]:
        """Report how an episode ended; return what the server keeps of it."""
        body = outcome_body(success=success, score=score, note=note)
        return self._exchanger.send("POST", f"/episodes/{quote(episode_id, safe='')}/outcome", body)[0]

    def infer(self, observation: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the openpi client's `infer` does, for the same observation.

        The reply has `actions`, `server_timing`, `policy_timing` and, as plain values, `reflex`. Images and state are found by
        openpi's own names; `reset` begins the next episode.
        """
        cameras = self._openpi.cameras
        if cameras is None:
            cameras = self._openpi.cameras = openpi.cameras_of(self.config())
        fields = openpi.arguments_of(observation, cameras)
        return openpi.reply_of(self.act(episode_id=self._openpi.episode_id, **fields))

    def reset(self) -> None:
        """Begin the next episode of `infer`."""
        self._openpi.reset()

    def get_server_metadata(self) -> dict[str, Any]:
        """Return what the openpi client's method does: names and rates of what is served."""
        return dict(self.config().get("effective") or {})


class Episode:
    """Requests that belong together. One request at a time; as a context manager it ends what is under way."""

    def __init__(self, policy: Policy, episode_id: str, instruction: str = "") -> None:
        self.id = episode_id
        self.instruction = instruction
        self.last: Reply | None = None
        self._policy = policy
        self._call = Call()

    def __enter__(self) -> Episode:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.abort()

    def act(
        self,
        images: Images = None,
        state: Any = None,
        instruction: str | None = None,
        *,
        elapsed_rows: float | None = None,
        previous_request_id: str | None = None,
        **more: Any,
    ) -> Reply:
        """Return the next chunk of the episode; arguments as of `Policy.act`.

        With `elapsed_rows` and without `previous_request_id` it counts from the newest reply of this episode.
        """
        if elapsed_rows is not None and previous_request_id is None and self.last is not None:
            previous_request_id = self.last.request_id
        self.last = self._policy.act(
            images, state, self.instruction if instruction is None else instruction, episode_id=self.id,
            elapsed_rows=elapsed_rows, previous_request_id=previous_request_id, call=self._call, **more,
        )  # fmt: skip
        return self.last

    def observe(
        self, images: Images = None, state: Any = None, instruction: str | None = None
    ) -> Mapping[str, Any]:
        """Have the server keep an observation for the next chunks of the episode; as `Policy.observe`."""
        text = self.instruction if instruction is None else instruction
        return self._policy.observe(images, state, text, episode_id=self.id, call=self._call)

    def player(self, observe: Observe, **options: Any) -> ChunkPlayer:
        """Return a player of this episode's chunks; options as of ChunkPlayer."""
        return ChunkPlayer(self, observe, **options)

    def outcome(self, *, success: bool, score: float | None = None, note: str = "") -> Mapping[str, Any]:
        """Report how the episode ended."""
        return self._policy.report_outcome(self.id, success=success, score=score, note=note)

    def abort(self) -> None:
        """Give up the request that is under way; the episode can go on with another."""
        call, self._call = self._call, Call()
        call.abort()
