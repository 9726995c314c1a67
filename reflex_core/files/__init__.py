# SPDX-License-Identifier: Apache-2.0
"""Files that people write: read with bounds, refused in one sentence."""
