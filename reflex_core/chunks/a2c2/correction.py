# SPDX-License-Identifier: Apache-2.0
"""A head fitted to one policy: corrections of whole chunks, or of one action per control step, in physical units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reflex_core.chunks.a2c2.checkpoint import read_checkpoint
from reflex_core.chunks.a2c2.features import Features, Moment, robot_of
from reflex_core.chunks.a2c2.head import Head
from reflex_core.errors import ConfigurationError
from reflex_core.export.binding import Binding
from reflex_core.values import Floats


@dataclass(frozen=True, slots=True)
class Corrected:
    """actions: (rows, action_dim) float32, physical units. magnitude: L2 norm of the residual in the head's units."""

    actions: Floats
    magnitude: float


class Correction:
    """The correction of one policy's actions by one head. Stateless: called from several threads at once.

    The head works in the policy's normalised action units where the export has statistics, else in physical ones.
    Columns that snap to one of two ends, as some grippers do, are left as the policy gave them.
    """

    def __init__(
        self, head: Head, features: Features, binding: Binding, excluded: Sequence[int] = ()
    ) -> None:
        """Bind a head to a policy. excluded: action columns that are never corrected."""
        self.head = head
        self.features = features
        scale = (
            np.ones(len(binding.action_names))
            if binding.action_statistics is None
            else binding.action_statistics.back
        )
        self._statistics = binding.action_statistics
        self._scale = scale.astype(np.float32)
        snapped = {end.component_idx for end in binding.ends if end.switch is not None}
        self._excluded = sorted(snapped | set(excluded))

    def features_of(self, moment: Moment) -> Floats:
        """Return (obs_dim,) float32 of the moment. Raises ObservationError where an input of the recipe is missing."""
        return self.features.vector(moment)

    def chunk(
        self, actions: Floats, observation: Floats, latency_ms: float, elapsed_rows: int = 0
    ) -> Corrected:
        """Correct a whole chunk (horizon, action_dim).

        Rows before `elapsed_rows` are over when the chunk arrives; they take the residual of the first row that is not,
        so that the correction begins without a step of its own.
        """
        residual = self._residual(actions, observation, latency_ms, np.arange(len(actions)))
        first = min(max(elapsed_rows, 0), len(actions) - 1)
        residual[:first] = residual[first]
        magnitude = float(np.linalg.norm(residual))
        return Corrected(actions + residual * self._scale, magnitude)

    def step(self, action: Floats, observation: Floats, position: int, latency_ms: float) -> Floats:
        """Correct the one action (action_dim,) that is due now, row `position` of its chunk: for a control loop.

        latency_ms: how much newer the observation is than the one that the chunk was made from.
        """
        residual = self._residual(action[None], observation, latency_ms, np.array([position]))
        corrected: Floats = action + residual[0] * self._scale
        return corrected

    def _residual(
        self, actions: Floats, observation: Floats, latency_ms: float, positions: NDArray[np.intp]
    ) -> Floats:
        normalised = actions if self._statistics is None else self._statistics.normalise(actions)
        residual = self.head.residual(normalised, observation, latency_ms, positions)
        residual[:, self._excluded] = 0
        return residual


def load_correction(path: Path, binding: Binding, excluded: Sequence[int] = ()) -> Correction:
    """Read a checkpoint for a policy. Raises ConfigurationError where the two do not fit."""
    checkpoint = read_checkpoint(path)
    action_dim = len(binding.action_names)
    if checkpoint.action_dim != action_dim:
        raise ConfigurationError(
            f"{path}: action_dim: expected {action_dim} as the policy has, got {checkpoint.action_dim}"
        )
    if checkpoint.chunk_size < binding.horizon:
        raise ConfigurationError(
            f"{path}: chunk_size: expected {binding.horizon} or more, the policy's chunk, got {checkpoint.chunk_size}"
        )
    outside = [column for column in excluded if not 0 <= column < action_dim]
    if outside:
        raise ConfigurationError(
            f"{path}: columns to leave out: expected 0 to {action_dim - 1}, got {outside[0]}"
        )
    try:
        features = Features(checkpoint.features, robot_of(binding))
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: {error}") from error
    if features.dim != checkpoint.obs_dim:
        named = "" if checkpoint.names_features else " (the file names none, so these are taken)"
        raise ConfigurationError(
            f"{path}: obs_dim: expected {features.dim} for the features '{features.recipe}'{named}, got {checkpoint.obs_dim}"
        )
    return Correction(Head(checkpoint), features, binding, excluded)
