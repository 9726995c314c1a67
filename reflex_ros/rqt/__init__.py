# SPDX-License-Identifier: Apache-2.0
"""The rqt plugin: a board that remembers, a client that listens, a widget that draws, a plugin that joins them.

Only `widget`, `plots` and `plugin` need Qt; importing this package needs neither Qt nor rqt.
"""
