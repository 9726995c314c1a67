# SPDX-License-Identifier: Apache-2.0
"""X-VLA: a prefix graph of Florence-2 and one step of the action head, mixed by a table of numbers."""
