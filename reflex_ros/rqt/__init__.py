# SPDX-License-Identifier: Apache-2.0
"""The rqt plugin: a board with the newest data, a ROS client, a widget, and the plugin that joins them.

`panel_view`, `board`, `operator_state`, `panel_checklist`, `panel_theme` and `scale` need neither Qt nor ROS; importing this package needs
neither Qt nor rqt.
"""
