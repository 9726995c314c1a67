# SPDX-License-Identifier: Apache-2.0
"""Rows for clients that execute them at another rate than the policy's."""

from __future__ import annotations

import numpy as np

from reflex_core.values import Floats


def resampled(rows: Floats, dt_s: float, fps: float) -> Floats:
    """Return the same motion in rows that are 1 / fps apart, linear between the policy's; before its first one that.

    rows: (n, action_dim), the first dt_s after the observation.
    """
    count = max(int(len(rows) * dt_s * fps + 1e-6), 1)
    at = np.clip((np.arange(count) + 1) / (fps * dt_s) - 1.0, 0.0, len(rows) - 1.0)
    low = np.floor(at).astype(np.intp)
    high, part = np.minimum(low + 1, len(rows) - 1), (at - low)[:, None]
    made: Floats = (rows[low] * (1.0 - part) + rows[high] * part).astype(np.float32)
    return made
