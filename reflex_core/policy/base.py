# SPDX-License-Identifier: Apache-2.0
"""What every policy is to the rest of the package, whatever its network computes: the protocol, and what it predicts."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from reflex_core.export.flow import Adaptive
from reflex_core.policy.prefix_cache import NOTHING_KEPT, Found
from reflex_core.policy.sampler import PLAIN, Sampling
from reflex_core.values import Floats, Observation

if TYPE_CHECKING:
    from reflex_core.chunks.rtc import Rtc
    from reflex_core.concurrency.cancellation import Cancellation
    from reflex_core.export.binding import Binding
    from reflex_core.export.contract import Contract
    from reflex_core.export.export import Export
    from reflex_core.policy.capabilities import Capabilities
    from reflex_core.policy.inputs import Arrays
    from reflex_core.policy.micro_batch import Batching
    from reflex_core.policy.prefix_cache import PrefixCache


@dataclass(frozen=True, slots=True)
class MadeElsewhere:
    """What another server says of the chunk that it made; empty where it says nothing.

    rtc_mode, rtc_delay: how the previous chunk guided it. seed: below 0 where it names none.
    """

    model_version: str = ""
    model_hash: str = ""
    config_hash: str = ""
    seed: int = -1
    rtc_mode: str = ""
    rtc_delay: int = 0


@dataclass(frozen=True, slots=True)
class Prediction:
    """One answer of a network.

    Attributes:
        actions: (horizon, action_dim) float32, physical units, the robot's column order; not checked by any guard.
        denoise_steps: How many were taken.
        tokens_cut: How many tokens of the instruction did not fit.
        stages_ms: Duration in milliseconds, by stage.
        normalised: (1, horizon, width) float32 as the network made them.
        cache: What the episode cache reports.
        masked_cameras: Cameras it reads and had no image from.
        unreached: Why the poses that it wants cannot be reached; then the actions stay where it could not go on.
        elsewhere: Of another server's chunk; None for one that was made here.
        batch_size: Requests that shared the run of the network.
    """

    actions: Floats
    denoise_steps: int
    tokens_cut: int
    stages_ms: Mapping[str, float]
    normalised: Floats
    cache: Found = NOTHING_KEPT
    masked_cameras: tuple[str, ...] = ()
    unreached: str = ""
    elsewhere: MadeElsewhere | None = None
    batch_size: int = 1


class Policy(Protocol):
    """A policy slot's network. Thread-safe. A kind of network is a file next to this one and a row in policy/load.py."""

    export: Export
    contract: Contract
    binding: Binding
    statistics_notes: tuple[str, ...]
    notes: tuple[str, ...]
    providers: tuple[str, ...]
    inference_mode: str
    kind: str
    capabilities: Capabilities

    def predict(
        self,
        observation: Observation,
        seed: int,
        sampling: Sampling = PLAIN,
        cancellation: Cancellation | None = None,
        episode_id: str | None = None,
        cache: PrefixCache | None = None,
        noise: Floats | None = None,
    ) -> Prediction:
        """Run the network on one observation.

        Args:
            observation: Frames, state (state_dim,) float32 in physical units, instruction.
            seed: Of the start noise, not below 0; policies without noise ignore it.
            sampling: Number of steps, guidance, early stop.
            cancellation: Ends the inference from another thread.
            episode_id: Of the cached prefix; None shares nothing.
            cache: Of this policy's `prefix_cache`.
            noise: Of `noise_shape` float32; None for the seed's.

        Raises:
            ObservationError: An observation it cannot take.
            InferenceError: The network failed.
            CancelledError: It was cancelled.
        """

    def arrays(self, observation: Observation) -> tuple[Arrays, int]:
        """Return every graph input made from the observation, and how many instruction tokens were cut."""

    def canary(self) -> Observation:
        """Return an observation with every shape as in service: what warm-up and probes run on."""

    def trial(self, number: int) -> Floats:
        """Return the network's chunk, (1, horizon, width), for one of two inputs that differ in everything."""

    def capture_graphs(self) -> tuple[str, ...]:
        """Capture the requested CUDA graphs, once, before serving; return notes for the log."""

    @property
    def batching(self) -> Batching | None:
        """What micro-batching does (policy/micro_batch.py); None where requests run one at a time."""

    def verify_batches(self) -> tuple[str, ...]:
        """Compare batches with single runs, once, before serving; return notes for the log where batching is off."""

    @property
    def noise_shape(self) -> tuple[int, int, int]:
        """(draws, horizon, width) of the noise that one inference takes; no draws where it takes none."""

    @property
    def fell_back(self) -> bool:
        """True when a GPU was requested and the policy runs on the CPU, as --allow-cpu-fallback allows."""

    @property
    def free_horizon(self) -> bool:
        """True when its graphs take a chunk of any length."""

    def require_stepped(self) -> None:
        """Raise ConfigurationError where its inference cannot be left early."""

    def adaptive(self, threshold: float = 0.0, *, fresh: bool = True) -> Adaptive:
        """Return when its denoise loop may stop. Raises ConfigurationError where it cannot, or there is no threshold."""

    def prefix_cache(
        self, max_age_ms: float = 0.0, clock_ns: Callable[[], int] = time.monotonic_ns, *, fresh: bool = True
    ) -> PrefixCache:
        """Return a new cache of its prefixes. Raises ConfigurationError where a prefix cannot be cached."""

    def rtc(self) -> Rtc:
        """Return the real-time chunking of this policy; its `note` tells why it does nothing, where it cannot."""

    def physical(self, normalised: Floats, state: Floats | None) -> Floats:
        """Return (horizon, action_dim) of the robot, physical units, from (1, horizon, width) of the network."""

    def positions(self, normalised: Floats, state: Floats | None) -> Floats:
        """Return `physical` before the gripper is brought to its ends."""

    def as_trained(self) -> Policy:
        """Return the same policy with the state and the actions of training where the robot's are joints in their place."""

    def checked_state(self, state: Floats | None) -> Floats:
        """Return the state, if it is one this policy takes. Raises ObservationError naming expected and got."""


def reads_state(policy: Policy) -> bool:
    """Return whether a policy needs the robot's state: its network sees it, or its poses are reached from there."""
    return policy.contract.state is not None or policy.binding.tool is not None
