# SPDX-License-Identifier: Apache-2.0
"""Every setting once: the table, its rows, the command line, parameter files."""
