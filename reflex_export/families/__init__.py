# SPDX-License-Identifier: Apache-2.0
"""One file per model family: what it writes into reflex_config.json, its graphs, and LeRobot's own answer."""
