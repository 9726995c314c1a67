# SPDX-License-Identifier: Apache-2.0
"""Which exports the settings put where, and the combinations that make no sense."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from reflex_core.errors import SettingError
from reflex_core.files.regular_file import real_path
from reflex_core.files.share import export_path
from reflex_core.settings.table import Settings
from reflex_core.slots.routing import A, B

PROD = "prod"
EVEN = 50


@dataclass(frozen=True, slots=True)
class Choice:
    """exports: by slot, `prod` alone or `a` and `b`; an empty path is the embedded policy. shadow: its export, or empty."""

    exports: dict[str, str]
    shadow: str = ""

    @property
    def paths(self) -> tuple[Path, ...]:
        """Every export that is to be in memory at once."""
        served = (export_path(name) for name in self.exports.values())
        return (*served, *([export_path(self.shadow)] if self.shadow else []))

    @property
    def several(self) -> bool:
        """True when more than one policy is to be in memory."""
        return len(self.exports) > 1 or bool(self.shadow)


def chosen(settings: Settings) -> Choice:
    """Return the exports to load. Raises SettingError for options that exclude each other."""
    a, b, shadow = settings.policy_a, settings.policy_b, settings.shadow_policy
    if bool(a) != bool(b):
        given, missing = ("--policy-a", "--policy-b") if a else ("--policy-b", "--policy-a")
        raise SettingError(
            f"{given} needs {missing}: two policies are served side by side, or one without either"
        )
    if not a:
        if settings.split != EVEN:
            raise SettingError(
                f"--split {settings.split} shares the episodes of two policies: give --policy-a and --policy-b too"
            )
        return Choice({PROD: settings.export_dir}, shadow)
    if shadow:
        raise SettingError(
            "--shadow-policy cannot be combined with --policy-b: a shadow watches one policy, leave one of them out"
        )
    if settings.rtc:
        raise SettingError(
            "--policy-a and --policy-b need --no-rtc: what one policy was about to do would guide the other"
        )
    if settings.a2c2_checkpoint:
        raise SettingError(
            "--a2c2-checkpoint cannot be combined with --policy-b: a head corrects the one policy it was trained for"
        )
    if settings.export_dir and real_path(export_path(settings.export_dir)) != real_path(export_path(a)):
        raise SettingError(
            f"the export {settings.export_dir} is not --policy-a {a}: name the same directory, or leave the first out"
        )
    return Choice({A: a, B: b})
