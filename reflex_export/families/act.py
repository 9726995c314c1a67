# SPDX-License-Identifier: Apache-2.0
"""ACT: one deterministic graph from pictures and state to a chunk."""
