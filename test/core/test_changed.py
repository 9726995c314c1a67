# SPDX-License-Identifier: Apache-2.0
"""A frozen value with some fields changed is what dataclasses.replace makes."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest

from reflex_core.values import ActionChunk, Inference, changed


def test_a_changed_value_is_what_replace_makes() -> None:
    chunk = ActionChunk(np.zeros((2, 1), np.float32), ("joint",), 0.1)
    other = np.ones((2, 1), np.float32)
    made = changed(chunk, actions=other)
    expected = replace(chunk, actions=other)
    assert made.actions is other
    assert (made.names, made.dt_s, made.source) == (expected.names, expected.dt_s, expected.source)
    assert chunk.actions is not other
    inference = Inference("onnx_cpu", 10)
    assert changed(inference, denoise_steps=3) == replace(inference, denoise_steps=3)


def test_a_changed_value_is_frozen_and_has_no_new_fields() -> None:
    inference = changed(Inference("onnx_cpu", 10), tokens_cut=1)
    with pytest.raises(FrozenInstanceError):
        inference.tokens_cut = 2  # type: ignore[misc]
    with pytest.raises(AttributeError):
        changed(inference, tokens=1)
