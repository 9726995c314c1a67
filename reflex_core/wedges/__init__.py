# SPDX-License-Identifier: Apache-2.0
"""The wedges of the middleware chain, one concern and one file each. Their order is in order.py."""
