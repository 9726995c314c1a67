# SPDX-License-Identifier: Apache-2.0
"""Action chunks in time: when the next is due, how it follows the one before it, how smooth they are."""
