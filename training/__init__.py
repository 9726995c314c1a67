# SPDX-License-Identifier: Apache-2.0
"""Reproduces models/reach_panda from a seed."""
