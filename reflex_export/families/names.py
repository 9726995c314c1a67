# SPDX-License-Identifier: Apache-2.0
"""Names of files, inputs and outputs that graphs and descriptions of all families share.

Those of a picture are with the camera, in checkpoint.py.
"""

from __future__ import annotations

PREFIX, DENOISE, MONOLITHIC = "prefix", "denoise", "monolithic"  # roles, as reflex_config.json calls them
STATE, TOKENS, TOKENS_MASK = "state", "lang_tokens", "lang_masks"
NOISY, TIME, VELOCITY = "x_t", "t", "v_t"  # of one denoise step; the last is whatever the network answers
NOISE, ACTIONS = "noise", "actions"  # of a whole chunk in one graph
