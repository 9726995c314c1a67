# SPDX-License-Identifier: Apache-2.0
"""A policy of ONNX graphs: an observation and a seed become a raw action chunk, whatever kind of network makes it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reflex_core.chunks.rtc import Rtc
from reflex_core.concurrency.cancellation import Cancellation
from reflex_core.concurrency.fifo_lock import FifoLock
from reflex_core.errors import CancelledError, InferenceError, ObservationError
from reflex_core.export.binding import Binding, bind
from reflex_core.export.export import Export
from reflex_core.export.flow import Adaptive
from reflex_core.policy.adaptive import require_adaptive, require_stepped
from reflex_core.policy.base import Prediction
from reflex_core.policy.canary import canary
from reflex_core.policy.constant_dimensions import Constants
from reflex_core.policy.cuda_graph import capture
from reflex_core.policy.input_faults import blamed_on_input
from reflex_core.policy.inputs import (
    Arrays,
    blamed_on_earlier,
    image_arrays,
    masked_cameras,
    state_array,
    state_words,
)
from reflex_core.policy.language import Language
from reflex_core.policy.layouts import Layout, load_layout
from reflex_core.policy.micro_batch import (
    Batching,
    MicroBatches,
    Ran,
    Waiting,
    require_batches,
    why_alone,
)
from reflex_core.policy.network import OpenNetwork
from reflex_core.policy.prefix_cache import NOTHING_KEPT, PrefixCache, Seen, require_cache
from reflex_core.policy.providers import PLAIN_LOAD, LoadOptions, inference_mode
from reflex_core.policy.robot_rows import checked_state, ended, robot_rows
from reflex_core.policy.sampler import PLAIN, Sampling, start_noise
from reflex_core.policy.vlm_stack import LANGUAGE_MASK
from reflex_core.robot.embodiment import Embodiment
from reflex_core.values import Floats, Observation


class OnnxPolicy:
    """Inputs, prefix, network, units. Thread-safe: inputs are made in parallel, the graphs run one request at a time."""

    def __init__(
        self, export: Export, layout: Layout, fitted: Binding, options: LoadOptions = PLAIN_LOAD
    ) -> None:
        self.export = export
        self.contract = layout.contract
        self.kind, self.capabilities = layout.network.kind, layout.capabilities
        self.binding = fitted
        self._constants = Constants(self.contract.state, fitted, passes=options.pass_constant_state)
        self.statistics_notes = fitted.statistics_notes + self._constants.notes
        self.notes = layout.notes + fitted.notes + self.statistics_notes
        self.providers = layout.sessions[0].providers
        self.inference_mode = inference_mode(
            [session.providers for session in layout.sessions], fp16=layout.fp16
        )
        self._layout = layout
        self._fifo_lock = FifoLock()
        self._batches: MicroBatches | None = None
        if options.max_batch > 1:
            require_batches(layout, export.where, options.max_batch)
            self._batches = MicroBatches(self._fifo_lock, self._ran, options.max_batch, options.batch_metrics)
        self._language: Language | None = None
        if self.contract.language is not None:
            slot = self.contract.language
            self._language = Language(slot, export.file(slot.tokenizer, "the tokenizer"))

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
        """Run the network; of its prefix only what the cache does not have for this episode.

        noise: of `noise_shape` float32, None for what the seed gives (sampler.start_noise).
        Raises ObservationError for an observation it cannot take, InferenceError when it fails, CancelledError.
        """
        if seed < 0:
            raise ObservationError(f"the seed must not be negative, got {seed}", "bad-seed")
        began = time.perf_counter()
        arrays, tokens_cut = self.arrays(observation)
        for one in (*self._earlier(observation), observation):
            self._constants.check(one.state)
        if noise is None:
            noise = start_noise(seed, self.noise_shape)
        try:
            return self._predicted(
                observation, arrays, tokens_cut, began, noise, sampling, cancellation, episode_id, cache
            )
        except CancelledError:
            raise
        except InferenceError as error:
            works = partial(self._works, cancellation)
            if why := blamed_on_input(error, arrays, self.contract, self._usual_tokens, works):
                raise ObservationError(f"{why}: {error}", "input-not-taken") from error
            raise

    def _usual_tokens(self) -> NDArray[Any] | None:
        """Return the token ids of the canary's instruction, None for a policy without language."""
        if self._language is None:
            return None
        return self._language.tokens(self._language.prompt(self.canary().instruction)).ids

    def _works(self, cancellation: Cancellation | None) -> bool:
        """Return whether the network runs on its canary."""
        try:
            with self._fifo_lock.turn(cancellation):
                return bool(np.isfinite(self.trial(0)).all())
        except InferenceError:
            return False

    def _predicted(
        self,
        observation: Observation,
        arrays: Arrays,
        tokens_cut: int,
        began: float,
        noise: Floats,
        sampling: Sampling,
        cancellation: Cancellation | None,
        episode_id: str | None,
        cache: PrefixCache | None,
    ) -> Prediction:
        """Run the inference itself. began: when `predict` was called, in seconds of perf_counter."""
        seen = None if cache is None or episode_id is None else cache.seen(observation, arrays)
        prepared = time.perf_counter()

        def alone() -> Ran:
            return self._ran(arrays, noise, sampling, cancellation, episode_id, cache, seen)

        if self._batches is None:
            with self._fifo_lock.turn(cancellation):
                ran = alone()
        else:
            waiting = Waiting(arrays, noise, sampling, cancellation)
            ran = self._batches.answer(waiting, alone, why_alone(sampling, cached=seen is not None))
        stages = {
            "preprocess_ms": (prepared - began) * 1e3,
            "queue_ms": (ran.entered - prepared) * 1e3,
            "vlm_prefix_ms": (ran.prefixed - ran.entered) * 1e3,
            "expert_denoise_ms": (ran.denoised - ran.prefixed) * 1e3,
        }
        masked = masked_cameras(self.contract.images, observation.frames, self.binding.cameras)
        rows, unreached = self._rows(ran.normalised, observation.state)
        actions = self._at_the_ends(rows, observation.state)
        return Prediction(
            actions, ran.steps, tokens_cut, stages, ran.normalised, ran.cache, masked, unreached, batch_size=ran.batch,
        )  # fmt: skip

    def _ran(
        self, arrays: Arrays, noise: Floats, sampling: Sampling, cancellation: Cancellation | None,
        episode_id: str | None = None, cache: PrefixCache | None = None, seen: Seen | None = None,
    ) -> Ran:  # fmt: skip
        """Run the graphs; the caller has the turn."""
        entered = time.perf_counter()
        found = NOTHING_KEPT if cache is None or seen is None else cache.find(episode_id, seen)
        prefix = found.prefix or self._layout.prefix(arrays, cancellation)
        prefixed = time.perf_counter()
        normalised, steps = self._layout.network.sample(arrays, prefix, noise, sampling, cancellation)
        denoised = time.perf_counter()
        # the network that made NaN of this observation must not run again
        if cache is not None and seen is not None and not found.prefix and np.isfinite(normalised).all():
            cache.keep(episode_id, seen, prefix)
        return Ran(normalised, steps, entered, prefixed, denoised, found)

    @property
    def batching(self) -> Batching | None:
        """What micro-batching does; None where it was not asked for."""
        return None if self._batches is None else self._batches.state

    def verify_batches(self) -> tuple[str, ...]:
        """Compare batches with single runs, once, before serving; return notes for the log where they are not the same."""
        if self._batches is None:
            return ()
        with self._fifo_lock.turn(None):
            return self._batches.verify(self._trial_inputs)

    @property
    def noise_shape(self) -> tuple[int, int, int]:
        """(draws, horizon, width) of the noise that one inference takes."""
        return self._layout.network.draws, self.contract.horizon, self.contract.width

    @property
    def fell_back(self) -> bool:
        """True when a GPU was requested and the policy runs on the CPU, as --allow-cpu-fallback allows."""
        return self._layout.fell_back

    @property
    def free_horizon(self) -> bool:
        """True when its graphs take a chunk of any length."""
        return self._layout.free_horizon

    def capture_graphs(self) -> tuple[str, ...]:
        """Capture the requested CUDA graphs; to be called once, before serving.

        Returns notes for the log: none when all graphs replay what eager runs give, else why they are off.
        """
        with self._fifo_lock.turn(None):
            return capture(self._layout.sessions, self.trial)

    def trial(self, number: int) -> Floats:
        """Return the network's chunk for one of two inputs that differ in every pixel, word, joint and in the noise."""
        arrays, noise = self._trial_inputs(number)
        return self._layout.network.sample(arrays, self._layout.prefix(arrays, None), noise, PLAIN, None)[0]

    def _trial_inputs(self, number: int) -> tuple[Arrays, Floats]:
        """Return arrays and noise that differ from those of other numbers in every pixel, joint and in the noise.

        Every second one has another instruction, every third one lacks cameras that may be lacking.
        """
        plain = self.canary()
        required = (slot.camera for slot in self.contract.images if slot.required and slot.camera)
        always = {*list(plain.frames)[:1], *(self.binding.cameras.get(name, name) for name in required)}
        frames = {
            name: replace(frame, data=np.full_like(frame.data, (127 - 80 * number) % 256))
            for name, frame in plain.frames.items()
            if number % 3 < 2 or name in always
        }
        state, known = plain.state, self.binding.state_statistics
        if state is not None:
            # within what it was trained on: far from it networks saturate, and all answers are alike
            spread = (
                known.scale if known is not None and known.dim == len(state) else np.full(len(state), 0.4)
            )
            state = (state + 0.25 * (number % 4) * spread).astype(np.float32)
        words = "stop" if number % 2 else plain.instruction
        return self.arrays(Observation(frames, state, words))[0], start_noise(number, self.noise_shape)

    def adaptive(self, threshold: float = 0.0, *, fresh: bool = True) -> Adaptive:
        """Return when its denoise loop may stop, for `Sampling`; threshold 0 takes the export's own.

        fresh: only one that was measured on this very export; a replay repeats what was served.
        Raises ConfigurationError where it cannot stop early or there is no threshold.
        """
        return require_adaptive(
            self.export, self.contract, self.capabilities.early_stop, threshold, fresh=fresh
        )

    def prefix_cache(
        self,
        max_age_ms: float = 0.0,
        clock_ns: Callable[[], int] = time.monotonic_ns,
        *,
        fresh: bool = True,
    ) -> PrefixCache:
        """Return a new cache of its prefixes, for `predict`; max_age_ms 0 takes the export's.

        fresh: as for `adaptive`. Raises ConfigurationError where its prefix cannot be cached or there is no threshold.
        """
        layout = self._layout
        return require_cache(
            self.export,
            self.contract,
            self.capabilities.prefix_cache,
            layout.prefix_inputs,
            layout.overwritten,
            max_age_ms,
            clock_ns,
            fresh=fresh,
        )

    def rtc(self) -> Rtc:
        """Return the real-time chunking of this policy; its `note` tells why it does nothing, where it cannot."""
        return Rtc(self.contract, self.binding, unable=self.capabilities.guidance)

    def require_stepped(self) -> None:
        """Raise ConfigurationError where the denoise loop cannot be left early."""
        require_stepped(self.export, self.contract, self.capabilities.early_stop)

    def physical(self, normalised: Floats, state: Floats | None) -> Floats:
        """Convert (1, horizon, width) of the network to (horizon, action_dim) of the robot, physical units.

        state: of the observation that it was made from; what relative actions start from, and where a gripper is.
        """
        return self._at_the_ends(self.positions(normalised, state), state)

    def positions(self, normalised: Floats, state: Floats | None) -> Floats:
        """Return `physical` before the gripper is moved to its ends: the training library's actions, in rad and m.

        Rows of a tool's pose end where it is not reached, and stay there.
        """
        return self._rows(normalised, state)[0]

    def _at_the_ends(self, rows: Floats, state: Floats | None) -> Floats:
        return ended(rows, self.binding, state)

    def _rows(self, normalised: Floats, state: Floats | None) -> tuple[Floats, str]:
        """Return (horizon, action_dim) rad and m, and why they end before the poses that are wanted; "" where they do not."""
        expected = (1, self.contract.horizon, self.contract.width)
        if normalised.shape != expected:
            raise InferenceError(f"the model gave actions of shape {normalised.shape}, expected {expected}")
        first, binding = self.contract.first_row, self.binding
        own = normalised[0, first : first + binding.horizon]
        return robot_rows(own, self.contract, binding, state)

    def as_trained(self) -> OnnxPolicy:
        """Return the same policy with the state and the actions of training where the robot's are joints in their place.

        It runs the same graphs: one of the two at a time.
        """
        if self.binding.tool is None:
            return self
        own = self.binding.as_trained()
        options = LoadOptions(pass_constant_state=self._constants.passes)
        return OnnxPolicy(self.export, self._layout, own, options)

    def arrays(self, observation: Observation) -> tuple[Arrays, int]:
        """Return every graph input made from the observation, and how many instruction tokens were cut."""
        earlier = [one.frames for one in self._earlier(observation)]
        arrays = image_arrays(self.contract.images, observation.frames, self.binding.cameras, earlier)
        arrays |= self.contract.constants
        words = self._state(observation, arrays)
        cut = 0
        if self.contract.language is not None and self._language is not None:
            tokens = self._language.tokens(self._language.prompt(observation.instruction, words))
            cut = tokens.cut
            arrays[self.contract.language.tokens] = tokens.ids
            arrays[LANGUAGE_MASK] = tokens.mask
            if self.contract.language.mask is not None:
                arrays[self.contract.language.mask] = tokens.mask
        positions = self.contract.flow_names.get("positions")
        if positions is not None:
            arrays[positions] = np.arange(self.contract.horizon)[None]
        return arrays, cut

    def _state(self, observation: Observation, arrays: Arrays) -> str:
        """Add the state input; return the state as text when the prompt holds it."""
        slot = self.contract.state
        if slot is None:
            return ""
        binding, state = self.binding, self.checked_state(observation.state)
        if slot.input is not None:
            before = [binding.seen(one) for one in self._earlier_states(observation)]
            arrays[slot.input] = state_array(binding.seen(state), slot, binding.seen_statistics, before)
            return ""
        if not slot.bins:  # only its actions start from it
            return ""
        return state_words(binding.seen(state), slot, binding.seen_statistics)

    def _earlier(self, observation: Observation) -> tuple[Observation, ...]:
        return observation.earlier(self.contract.observation_steps)

    def _earlier_states(self, observation: Observation) -> list[Floats]:
        """Return the states before the newest one, oldest first. Raises ObservationError for one it does not take."""
        states: list[Floats] = []
        earlier = self._earlier(observation)
        for number, one in enumerate(earlier):
            with blamed_on_earlier(len(earlier) - number):
                states.append(self.checked_state(one.state))
        return states

    def checked_state(self, state: Floats | None) -> Floats:
        """Return the state, if this policy takes it. Raises ObservationError naming the expected and the actual shape."""
        return checked_state(state, self.contract, self.binding)

    def canary(self) -> Observation:
        """Return an observation with every shape as in service, for warm-up and probes."""
        return canary(self.contract, self.binding)


def load_graphs(
    open_network: OpenNetwork,
    export: Export,
    embodiment: Embodiment | None,
    device: str,
    intra_op_threads: int,
    joint_names: tuple[str, ...],
    options: LoadOptions,
) -> OnnxPolicy:
    """Load an export of one kind for a robot (policy/load.py). Raises ConfigurationError, or ExportError."""
    layout = load_layout(open_network, export, device, intra_op_threads, options)
    fitted = bind(export, layout.contract, embodiment, joint_names)
    if options.chunk_size:
        fitted = replace(fitted, horizon=min(fitted.horizon, options.chunk_size))
    return OnnxPolicy(export, layout, fitted, options)
