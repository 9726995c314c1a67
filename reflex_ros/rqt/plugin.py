# SPDX-License-Identifier: Apache-2.0
"""The class that rqt loads (plugin.xml). rqt calls methods by name, so that it needs no base class."""

from __future__ import annotations

from typing import Any

from rclpy.exceptions import InvalidTopicNameException
from rclpy.validate_full_topic_name import validate_full_topic_name

from reflex_ros.rqt.client import Client
from reflex_ros.rqt.panel_view import View
from reflex_ros.rqt.widget import Panel

DEFAULT_NODE = "/reflex"


class ReflexPlugin:
    """One panel and its client. context: rqt's PluginContext."""

    def __init__(self, context: Any) -> None:
        self._client = Client(DEFAULT_NODE)
        self.panel = Panel(self._look, self._client, self.watch)
        number = context.serial_number()
        if number > 1:
            self.panel.setWindowTitle(f"Reflex ({number})")
        context.add_widget(self.panel)

    def _look(self, now_s: float) -> View:
        return self._client.board.view(now_s)

    @property
    def node(self) -> str:
        """The policy node that is watched."""
        return self._client.board.view(0.0).node

    def watch(self, node_name: str) -> None:
        """Watch another policy node."""
        node_name = "/" + node_name.strip("/ ")
        if node_name in ("/", self.node):
            return
        before = self._client
        try:
            validate_full_topic_name(f"{node_name}/status")
        except InvalidTopicNameException as error:
            before.board.notify(f"{node_name} is no node name: {error}", ok=False)
            return
        self._client = Client(node_name)
        self.panel.use(self._look, self._client)
        before.close()

    def save_settings(self, _plugin_settings: Any, instance_settings: Any) -> None:
        """Store the node in the perspective, as rqt closes."""
        instance_settings.set_value("node", self.node)

    def restore_settings(self, _plugin_settings: Any, instance_settings: Any) -> None:
        """Take the node from the perspective, as rqt opens."""
        self.watch(instance_settings.value("node", DEFAULT_NODE) or DEFAULT_NODE)

    def shutdown_plugin(self) -> None:
        """Close the client, as rqt removes the panel."""
        self.panel.end()
        self._client.close()
