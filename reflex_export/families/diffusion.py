# SPDX-License-Identifier: Apache-2.0
"""Diffusion Policy: an encoder graph, one step of the U-Net, and the schedule as a table of numbers."""
