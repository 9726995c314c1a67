# SPDX-License-Identifier: Apache-2.0
"""Files of users: read with bounds, refused with a message of one sentence."""
