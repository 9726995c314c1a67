# SPDX-License-Identifier: Apache-2.0
"""Robots by preset name or by file (docs/reference/embodiments.md)."""

from __future__ import annotations

from pathlib import Path

from reflex_core.errors import EmbodimentError
from reflex_core.files.json_fields import read_json
from reflex_core.files.share import share
from reflex_core.robot.embodiment import Embodiment
from reflex_core.robot.embodiment_file import Reader
from reflex_core.text.suggestions import nearest


def preset_names() -> tuple[str, ...]:
    """Return the names of the embodiments in the package."""
    return tuple(sorted(path.stem for path in (share() / "config" / "embodiments").glob("*.json")))


def load_preset(name: str, calibration_file: str = "") -> Embodiment:
    """Load a bundled embodiment. Raises EmbodimentError with the list of presets for an unknown name.

    calibration_file: of LeRobot, for this very arm; empty: none.
    """
    if name not in preset_names():
        raise EmbodimentError(no_such_preset(name), "unknown-preset")
    return load_embodiment(share() / "config" / "embodiments" / f"{name}.json", calibration_file)


def no_such_preset(name: str) -> str:
    """Return the sentence that refuses an unknown preset, with the one that was meant and all that there are."""
    meant = nearest(name, preset_names())
    suggestion = f"; did you mean {meant}? There are" if meant else ": there are"
    return f"no embodiment preset {name!r:.100}{suggestion} {', '.join(preset_names())}"


def load_embodiment(path: Path, calibration_file: str = "") -> Embodiment:
    """Read and check an embodiment file. Raises EmbodimentError naming file, key, expected and got.

    calibration_file: of LeRobot, in place of the one that the file names; empty: that one.
    """
    try:
        document = read_json(path, finite=False)
    except OSError as error:
        raise EmbodimentError(f"{path}: {error.strerror or error}", "embodiment-missing") from error
    except ValueError as error:
        raise EmbodimentError(f"{path}: {error}", "schema-violation") from error
    return Reader(path, Path(calibration_file) if calibration_file else None).embodiment(document)
