# SPDX-License-Identifier: Apache-2.0
"""A policy that another server runs: observations go out, checked rows come back, or a refusal that the robot can live with."""

from __future__ import annotations

import itertools
import logging
import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np

from reflex_core.chunks.rtc import Rtc
from reflex_core.concurrency.cancellation import Cancellation
from reflex_core.errors import (
    ConfigurationError,
    InferenceError,
    NotReadyError,
    ObservationError,
    ReflexError,
)
from reflex_core.export.config_schema import OFF
from reflex_core.export.flow import Adaptive
from reflex_core.policy.base import MadeElsewhere, Policy, Prediction
from reflex_core.policy.capabilities import Capabilities
from reflex_core.policy.cloud_server import (
    BREAKER_OPEN,
    INVALID,
    REFUSED,
    STATUS,
    TIMEOUT,
    CloudAnswer,
    CloudBreaker,
    CloudError,
    Expected,
    believed,
)
from reflex_core.policy.inputs import Arrays, masked_cameras
from reflex_core.policy.prefix_cache import PrefixCache
from reflex_core.policy.remote_contract import RemoteParts
from reflex_core.policy.remote_server import RemoteServer
from reflex_core.policy.robot_rows import checked_state, ended, robot_rows
from reflex_core.policy.sampler import PLAIN, RequestContext, Sampling
from reflex_core.robot.embodiment import Embodiment
from reflex_core.text.rate_limit import RateLimitedLog
from reflex_core.values import Floats, Frame, Observation, Request

KIND = "remote"
UNREACHABLE, LATE, REFUSAL, BAD_REPLY = (
    "remote-unreachable",
    "remote-late",
    "remote-refused",
    "remote-bad-reply",
)
FIRST_S = 120.0  # for an answer outside of service: the first one may compile the network there
FAILURES = 3  # in a row, after which nothing is sent until the server is ready again
FIRST_PROBE_S, PROBE_EVERY_S = 0.25, 2.0
SIDE = 224  # pixels of the canary's picture from a camera that the embodiment does not name
OVERLOADED = 429

log = logging.getLogger(__name__)


class RemotePolicy:
    """One server's policy, behind the protocol of a network. Thread-safe.

    It is not ready (NotReadyError) while its server cannot be reached, does not answer in time or is not ready itself: the
    robot goes on with the rows that it has, then holds, and the first answer after that moves it again. An answer that cannot
    be this robot's is a failure of the policy (InferenceError), which its breaker counts.
    """

    kind = KIND
    inference_mode = KIND
    statistics_notes: tuple[str, ...] = ()
    fell_back = False
    free_horizon = False

    def __init__(
        self, server: RemoteServer, parts: RemoteParts, dialect: str, timeout_ms: float, notes: tuple[str, ...] = (),
        count: Callable[[str], None] = lambda _: None,
    ) -> None:  # fmt: skip
        """Make the policy of a server that is described by its parts. count: called with the reason of every failure."""
        self.export, self.contract, self.binding = parts.export, parts.contract, parts.binding
        self.notes = notes + parts.binding.notes
        self.url, self.dialect = parts.export.address, dialect
        self.providers: tuple[str, ...] = (f"{self.url} ({dialect})",)
        here = "the policy runs on another server"
        self.capabilities = Capabilities(
            "" if parts.contract.rtc.mode != OFF else f"its server, of {dialect}, does not guide chunks by the one before",
            here, here, here,
        )  # fmt: skip
        self._server, self._timeout_s = server, timeout_ms * 1e-3
        names = self.contract.action_names or tuple("" for _ in range(self.contract.action_dim))
        self._expected = Expected(names, self.binding.dt_s, self.contract.horizon)
        self._link = CloudBreaker(server.ready, FAILURES, PROBE_EVERY_S, "remote", FIRST_PROBE_S)
        self._log, self._count = RateLimitedLog(log), count
        self._session, self._numbers = secrets.token_hex(4), itertools.count()
        self.why = ""  # of the newest failure to get an answer

    @property
    def reachable(self) -> bool:
        """False while nothing is sent because the server did not answer."""
        return self._link.closed

    def close(self) -> None:
        """Drop the connections."""
        self._link.stop()
        self._server.close()

    def predict(
        self,
        observation: Observation,
        seed: int,
        sampling: Sampling = PLAIN,
        cancellation: Cancellation | None = None,
        episode_id: str | None = None,
        cache: PrefixCache | None = None,  # noqa: ARG002  (its prefixes are there)
        noise: Floats | None = None,
    ) -> Prediction:
        """Ask the server (Policy.predict). Raises NotReadyError besides, where it gives no answer in time."""
        if noise is not None:
            raise InferenceError(f"{self.url}: takes no noise: it makes its own of the seed")
        self._checked(observation)
        request = self._request(observation, seed, sampling.context, cancellation, episode_id)
        if request.forwarded:
            raise NotReadyError(
                KIND, f"the policy is served by {self.url}: a request that another server sent is not sent on", UNREACHABLE
            )  # fmt: skip
        began_s = time.monotonic()
        answer, rows = self._exchanged(request, FIRST_S if sampling.context is None else self._timeout_s)
        own = self._chosen(rows)
        actions, unreached = robot_rows(own, self.contract, self.binding, observation.state)
        return Prediction(
            actions=ended(actions, self.binding, observation.state),
            denoise_steps=answer.inference.denoise_steps or 1,
            tokens_cut=0,
            stages_ms={"remote_ms": (time.monotonic() - began_s) * 1e3},
            normalised=np.ascontiguousarray(own[None]),
            masked_cameras=masked_cameras(self.contract.images, observation.frames, self.binding.cameras),
            unreached=unreached,
            elsewhere=MadeElsewhere(
                "" if answer.model_version == "unknown" else answer.model_version, answer.model_hash,
                answer.config_hash, answer.seed, answer.rtc_mode, answer.rtc_delay,
            ),
        )  # fmt: skip

    def _chosen(self, rows: Floats) -> Floats:
        """Return (rows, width) as they came, without those that the robot's chunks have no room for."""
        return rows[: self.binding.horizon]

    def _request(
        self, observation: Observation, seed: int, context: RequestContext | None, cancellation: Cancellation | None,
        episode_id: str | None,
    ) -> Request:  # fmt: skip
        """Return the request as it is sent: cameras, state and rows in the server's own words."""
        if context is None:
            # an episode of its own: what a canary is answered says nothing of where the robot was commanded to
            name = f"canary-{self._session}-{next(self._numbers)}"
            request = Request(observation, time.monotonic_ns(), name, episode_id or name)
        else:
            request = context.request
        return replace(
            request,
            observation=self._theirs(observation),
            seed=seed,
            cancellation=cancellation,
            elapsed_rows=None if context is None else context.elapsed_rows,
            previous_request_id="" if context is None else context.previous_request_id,
        )

    def _theirs(self, observation: Observation) -> Observation:
        """Return the observation with the policy's names of cameras and its units of the state."""
        frames = {
            theirs: observation.frames[ours]
            for theirs, ours in self.binding.cameras.items()
            if ours in observation.frames
        }
        state = observation.state if self.contract.state is not None else None
        if state is not None:
            state = self.binding.seen(state)
            statistics = self.binding.seen_statistics
            state = state if statistics is None else statistics.normalise(state)
        history = tuple(self._theirs(replace(one, history=())) for one in observation.history)
        return replace(observation, frames=frames, state=state, history=history)

    def _exchanged(self, request: Request, left_s: float) -> tuple[CloudAnswer, Floats]:
        """Return the server's answer and its checked rows, (n, action_dim)."""
        if not self._link.closed:
            self._count(BREAKER_OPEN)
            raise self._not_ready(UNREACHABLE, self.why)
        try:
            answer = self._server.ask(request, left_s)
            rows = believed(answer, self._expected)
        except CloudError as error:
            raise self._failure(error) from error
        self._link.succeeded()
        return answer, rows

    def _failure(self, error: CloudError) -> ReflexError:
        """Return what a failed exchange is to the robot."""
        self._count(error.reason)
        self._log(logging.WARNING, error.reason, "remote: %s: %s", self.url, error)
        if error.reason == INVALID:
            self._link.succeeded()  # it answers, whatever it says
            return InferenceError(f"{self.url}: {error}", BAD_REPLY)
        if error.reason == STATUS and error.status < 500 and error.status != OVERLOADED:
            self._link.succeeded()
            return InferenceError(f"{self.url}: {error}", REFUSAL)
        self.why = str(error)
        self._link.failed()
        return self._not_ready({TIMEOUT: LATE, STATUS: REFUSAL, REFUSED: UNREACHABLE}.get(error.reason, REFUSAL), self.why)  # fmt: skip

    def _not_ready(self, slug: str, why: str) -> NotReadyError:
        return NotReadyError(KIND, f"the policy's server {self.url} gives no chunk: {why}", slug)

    def _checked(self, observation: Observation) -> None:
        """Raise ObservationError for what the server could not answer."""
        frames = observation.frames
        for slot in self.contract.images:
            ours = self.binding.cameras.get(slot.camera or "", slot.camera or "")
            if ours not in frames:
                raise ObservationError(
                    f"no image from camera '{ours}' (got {', '.join(sorted(frames)) or 'none'}); the policy needs it",
                    "missing-image",
                )
        if self.contract.state is not None or self.binding.tool is not None:
            self.checked_state(observation.state)

    def arrays(self, observation: Observation) -> tuple[Arrays, int]:
        """Return no arrays: they are made there. Raises ObservationError for what the server could not answer."""
        self._checked(observation)
        return {}, 0

    def canary(self) -> Observation:
        """Return an observation with every shape as in service."""
        robot, dim = self.binding.embodiment, self.binding.state_dim
        assert robot is not None, "no server's policy is loaded without one"
        state = robot.usual_position()
        if dim and dim != len(state):
            state = np.zeros(dim, np.float32)
        return canary_of(robot, self.binding.cameras.values(), state)

    def trial(self, number: int) -> Floats:
        """Return the chunk, (1, horizon, width), for one of two seeds."""
        return self.predict(self.canary(), number).normalised

    def capture_graphs(self) -> tuple[str, ...]:
        """Return no notes: there is nothing to capture."""
        return ()

    @property
    def batching(self) -> None:
        """Nothing: requests are sent one by one, and its server may batch them."""
        return None

    def verify_batches(self) -> tuple[str, ...]:
        """Return no notes: there is nothing to verify."""
        return ()

    @property
    def noise_shape(self) -> tuple[int, int, int]:
        """No draws: the noise is made there."""
        return (0, self.contract.horizon, self.contract.width)

    def require_stepped(self) -> None:
        """Raise ConfigurationError: its loop is there."""
        raise self._cannot("its denoise loop cannot be left early")

    def adaptive(self, threshold: float = 0.0, *, fresh: bool = True) -> Adaptive:  # noqa: ARG002
        """Raise ConfigurationError: its loop is there."""
        raise self._cannot("--adaptive-steps is its server's own setting")

    def prefix_cache(
        self, max_age_ms: float = 0.0, clock_ns: Callable[[], int] = time.monotonic_ns, *, fresh: bool = True  # noqa: ARG002
    ) -> PrefixCache:  # fmt: skip
        """Raise ConfigurationError: its prefixes are there."""
        raise self._cannot("--prefix-cache is its server's own setting")

    def _cannot(self, why: str) -> ConfigurationError:
        return ConfigurationError(f"{self.url}: {why}")

    def rtc(self) -> Rtc:
        """Return the book of which chunk is executed: the server guides by it, where its wire can carry that."""
        return Rtc(self.contract, self.binding, unable=self.capabilities.guidance)

    def physical(self, normalised: Floats, state: Floats | None) -> Floats:
        """Return (rows, action_dim) of the robot, physical units, from (1, rows, width) of the server."""
        return ended(self.positions(normalised, state), self.binding, state)

    def positions(self, normalised: Floats, state: Floats | None) -> Floats:
        """Return `physical` before the gripper is brought to its ends."""
        return robot_rows(self._chosen(normalised[0]), self.contract, self.binding, state)[0]

    def as_trained(self) -> Policy:
        """Return itself: what it was trained on is not known here."""
        return self

    def checked_state(self, state: Floats | None) -> Floats:
        """Return the state, if it is one this policy takes. Raises ObservationError naming expected and got."""
        return checked_state(state, self.contract, self.binding)


def canary_of(robot: Embodiment, cameras: Iterable[str], state: Floats) -> Observation:
    """Return a grey picture of each camera, as large as the robot's are, and the state."""
    sizes = {camera.name: camera.resolution for camera in robot.cameras}
    frames: dict[str, Frame] = {}
    for name in cameras:
        width, height = sizes.get(name, (SIDE, SIDE))
        frames[name] = Frame(np.full((height, width, 3), 127, np.uint8), "rgb8", height, width)
    return Observation(frames, state, "warm up")
