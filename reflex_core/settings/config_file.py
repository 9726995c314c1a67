# SPDX-License-Identifier: Apache-2.0
"""Write settings as the file that --config reads, with where each value comes from."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from reflex_core.settings.cli import GROUPS
from reflex_core.settings.row import Value
from reflex_core.settings.table import TABLE, Settings

DEFAULT = "default"
COLUMN = 48  # where the comments begin, unless a value is longer


def config_lines(settings: Settings, sources: Mapping[str, str]) -> Iterator[str]:
    """Yield the lines of a YAML file of every setting. sources: where each came from, by name; the others are defaults."""
    for number, (group, title) in enumerate(GROUPS.items()):
        yield from ("",) if number else ()
        yield f"# {title}"
        for row in TABLE:
            if row.group == group:
                line = f"{row.name}: {_yaml(getattr(settings, row.name))}"
                yield f"{line:{COLUMN}}  # {sources.get(row.name, DEFAULT)}"


def _yaml(value: Value) -> str:
    """Return a value in YAML: JSON is YAML, and quotes keep a text from being read as a number."""
    return json.dumps(list(value) if isinstance(value, tuple) else value)
