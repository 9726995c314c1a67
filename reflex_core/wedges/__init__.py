# SPDX-License-Identifier: Apache-2.0
"""The layers of the onion, one concern and one file each. Their order is in engine.py."""
