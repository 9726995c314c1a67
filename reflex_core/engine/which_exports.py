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
    """exports: by slot, `prod` alone or `a` and `b`; an empty path is the embedded policy, a URL the server that runs the policy.

    shadow: its export or URL, or empty.
    """

    exports: dict[str, str]
    shadow: str = ""

    @property
    def paths(self) -> tuple[Path, ...]:
        """Every export that is to be in memory at once."""
        named = (*self.exports.values(), *([self.shadow] if self.shadow else []))
        return tuple(export_path(name) for name in named if not is_address(name))

    @property
    def addresses(self) -> tuple[str, ...]:
        """Every server that is to run a policy."""
        return tuple(name for name in (*self.exports.values(), self.shadow) if is_address(name))

    @property
    def several(self) -> bool:
        """True when more than one policy is to be in memory."""
        return len(self.exports) > 1 or bool(self.shadow)


def is_address(name: str) -> bool:
    """Return whether the name of a policy is the URL of a server that runs it."""
    return "://" in name


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
        return Choice({PROD: _served(settings)}, shadow)
    if settings.remote:
        raise SettingError(
            f"--remote {settings.remote} cannot be combined with --policy-a: name the server as one of the two, --policy-a"
            f" {settings.remote}"
        )
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


def _served(settings: Settings) -> str:
    """Return the one export, or the server that runs the policy in its place."""
    if settings.remote and settings.export_dir:
        raise SettingError(
            f"--remote {settings.remote} serves the policy of that server, and {settings.export_dir} one of this machine: leave one of"
            " them out, or name both as --policy-a and --policy-b"
        )
    if settings.export_dir and is_address(settings.export_dir):
        raise SettingError(f"the export {settings.export_dir} is the URL of a server: give it as --remote")
    return settings.remote or settings.export_dir
