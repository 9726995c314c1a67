# SPDX-License-Identifier: Apache-2.0
"""The rqt plugin: a board with the newest data, a ROS client, a widget, and the plugin that joins them.

Only `widget`, `plots` and `plugin` need Qt; importing this package needs neither Qt nor rqt.
"""
