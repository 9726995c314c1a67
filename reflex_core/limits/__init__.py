# SPDX-License-Identifier: Apache-2.0
"""What a robot may be told: limits, the file they come from, and the mathematics that keeps a chunk inside them."""
