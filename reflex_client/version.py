# SPDX-License-Identifier: Apache-2.0
"""The version of the client, which speaks to servers of other versions too."""

__version__ = "0.1.0"
