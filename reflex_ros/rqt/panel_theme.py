# SPDX-License-Identifier: Apache-2.0
"""Colours of the panel on a light and on a dark palette. No Qt: `widget_theme` takes anything that has a palette."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from reflex_ros.sidecar.operator_words import BAD, GOOD, HOLD, LOST, STOP, WAIT

# background and text of the banner, the same on both palettes: a colour is learned once
BANNER: Mapping[str, tuple[str, str]] = {
    GOOD: ("#1b6e3c", "#ffffff"), WAIT: ("#44525f", "#ffffff"), HOLD: ("#f0a71c", "#14100a"),
    STOP: ("#0b5cad", "#ffffff"), BAD: ("#a81e12", "#ffffff"), LOST: ("#24282c", "#ffffff"),
}  # fmt: skip
# beside the colour, for people who see no difference between two of them
SIGNS: Mapping[str, str] = {GOOD: "✔", WAIT: "…", HOLD: "▲", STOP: "■", BAD: "✖", LOST: "?"}


@dataclass(frozen=True, slots=True)
class Theme:
    """soft: secondary text. edge: frames and grid. ground: behind plots. blue: the policy; amber: changed; red: limits, errors."""

    text: str
    soft: str
    edge: str
    ground: str
    blue: str
    amber: str
    red: str
    green: str
    violet: str

    @property
    def levels(self) -> tuple[str, str, str, str]:
        """Colours of the levels of /diagnostics: fine, warning, error, stale."""
        return (self.green, self.amber, self.red, self.soft)

    def source(self, name: str) -> str:
        """Return the colour of where a chunk came from."""
        others = {"last known good": self.amber, "cloud": self.violet, "hold": self.red, "teleop": self.green}
        return others.get(name, self.blue)


LIGHT = Theme(
    "#10181f", "#4d5b67", "#c8d1d9", "#ffffff", "#0069b0", "#8f5600", "#b83200", "#1b6e3c", "#6d28d9"
)
DARK = Theme(
    "#eef3f7", "#a3b1bd", "#3a4855", "#10161c", "#5cb8f0", "#f0a71c", "#ff7a4d", "#4fc07f", "#b79bff"
)
MIDDLE = 128  # of 255


def widget_theme(widget: Any) -> Theme:
    """Return the theme for the palette that a widget has now."""
    palette = widget.palette()
    return DARK if palette.color(palette.Window).lightness() < MIDDLE else LIGHT


def contrast(one: str, other: str) -> float:
    """Return the contrast ratio of two colours, 1 to 21, as WCAG 2 defines it."""
    high, low = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def _luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
