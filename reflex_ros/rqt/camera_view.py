# SPDX-License-Identifier: Apache-2.0
"""What the cameras see, as large as there is room for."""

from __future__ import annotations

from math import ceil
from typing import Any

from reflex_core.text.untrusted import escaped
from reflex_ros.rqt.painting import painter_of, text_width, write
from reflex_ros.rqt.panel_theme import widget_theme
from reflex_ros.rqt.panel_view import Picture, View
from reflex_ros.rqt.qt import QtCore, QtGui, QtWidgets

OLD_S = 1.0  # a picture older than this is called so
CAPTION = 18
EXPLANATION = (
    "The newest picture on each camera topic of the node, at most 10 a second, received only while this panel can be seen. The policy"
    " sees the same topic, scaled to its own input."
)


class CameraView(QtWidgets.QWidget):
    """The newest picture of each camera, side by side, with name, topic and age."""

    def __init__(self) -> None:
        super().__init__()
        self.setMinimumSize(240, 150)
        self.setAccessibleName("cameras")
        self.setToolTip(EXPLANATION)
        self._view, self._now_s = View(""), 0.0

    def show_view(self, view: View, now_s: float) -> None:
        """Draw another moment."""
        self._view, self._now_s = view, now_s
        self.setAccessibleDescription("; ".join(self._caption(camera)[0] for camera in self._cameras()))
        self.update()

    def _cameras(self) -> list[str]:
        return sorted({*self._view.cameras, *(picture.camera for picture in self._view.pictures)})

    def _picture(self, camera: str) -> Picture | None:
        return next((picture for picture in self._view.pictures if picture.camera == camera), None)

    def _caption(self, camera: str) -> tuple[str, bool]:
        """Return the caption of a camera, and whether it is a warning."""
        topic, picture = self._view.cameras.get(camera, ""), self._picture(camera)
        camera = escaped(camera, 60)
        where = f"{camera}   {escaped(topic, 100)}".rstrip()
        if picture is None:
            return f"{where}   no picture yet", True
        if picture.problem:
            return f"{camera}: {picture.problem}", True
        age_s = self._now_s - picture.at_s
        return (f"{where}   {age_s:.0f} s old", True) if age_s > OLD_S else (where, False)

    def paintEvent(self, _: Any) -> None:  # noqa: N802  (Qt calls it so)
        """Qt asks for the picture."""
        painter, theme = painter_of(self), widget_theme(self)
        cameras = self._cameras()
        if not cameras:
            painter.fillRect(self.rect(), QtGui.QColor(theme.ground))
            text = "No camera: the node lists its cameras once it is active"
            width = text_width(self, text)
            write(painter, self, (self.width() - width) / 2, self.height() / 2, text, colour=theme.soft)
        columns = ceil(len(cameras) ** 0.5)
        for number, camera in enumerate(cameras):
            rows = ceil(len(cameras) / columns)
            width, height = self.width() / columns, self.height() / rows
            down, across = divmod(number, columns)
            self._draw(painter, QtCore.QRectF(across * width, down * height, width - 2, height - 2), camera)
        painter.end()

    def _draw(self, painter: Any, area: Any, camera: str) -> None:
        theme, picture = widget_theme(self), self._picture(camera)
        room = area.adjusted(0, 0, 0, -CAPTION)
        text, warning = self._caption(camera)
        shown = picture is not None and picture.pixels is not None
        if not shown:
            painter.fillRect(room, QtGui.QColor(theme.ground))
            missing = "no picture" if picture else "no picture yet"
            x = room.center().x() - text_width(self, missing) / 2
            write(painter, self, x, room.center().y(), missing, colour=theme.soft)
        if picture is not None and picture.pixels is not None:
            height, width = picture.pixels.shape[:2]
            image = QtGui.QImage(picture.pixels.data, width, height, 3 * width, QtGui.QImage.Format_RGB888)
            scale = min(room.width() / width, room.height() / height)
            place = QtCore.QRectF(0, 0, width * scale, height * scale)
            place.moveCenter(room.center())
            painter.setRenderHint(QtGui.QPainter.SmoothPixmapTransform)
            painter.setOpacity(0.45 if warning else 1.0)  # what is old must not look alive
            painter.drawImage(place, image)
            painter.setOpacity(1.0)
        painter.setClipRect(area)
        write(
            painter,
            self,
            area.left() + 2,
            area.bottom() - 4,
            text,
            colour=theme.red if warning else theme.soft,
            bold=warning,
        )
        painter.setClipping(False)
