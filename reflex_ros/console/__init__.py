# SPDX-License-Identifier: Apache-2.0
"""Terminal output, command-line arguments and stop signals of every executable."""
