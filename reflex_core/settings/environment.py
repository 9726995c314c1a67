# SPDX-License-Identifier: Apache-2.0
"""Read settings from environment variables: `REFLEX_` and the setting's name in capitals."""

from __future__ import annotations

import re
from collections.abc import Mapping

from reflex_core.errors import SettingError
from reflex_core.settings.row import PREFIX, Value, from_text
from reflex_core.settings.table import TABLE
from reflex_core.text.suggestions import nearest
from reflex_core.text.untrusted import escaped

VARIABLES = tuple(row.variable for row in TABLE)
OF_BUILD = ("REFLEX_ROS",)  # which ROS setup.py compiles the messages with
# secrets have a variable of their own, beside the setting that names their file: REFLEX_API_KEY
SECRETS = tuple(row.variable.removesuffix("_FILE") for row in TABLE if row.name.endswith("_key_file"))

# Kubernetes gives every container variables for each service of its namespace: for one called reflex, REFLEX_PORT=tcp://...
_SERVICE = re.compile(r"(REFLEX\w*?)_(SERVICE_(HOST|PORT)(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_\w+)?)?)")
_SERVICE_URL = re.compile(r"(tcp|udp|sctp)://")


def from_environment(environment: Mapping[str, str]) -> dict[str, Value]:
    """Return the settings that variables give, by setting; an empty variable gives none. Raises SettingError naming the variable."""
    found: dict[str, Value] = {}
    for row in TABLE:
        text = environment.get(row.variable, "")
        if text and not _of_a_service(row.variable, environment):
            try:
                found[row.name] = from_text(row, text)
            except SettingError as error:
                raise SettingError(f"environment variable {row.variable}: {error}") from error
    return found


def unknown_variables(environment: Mapping[str, str]) -> str:
    """Return one sentence that names every `REFLEX_` variable that sets nothing, with what was meant; '' without any."""
    known = (*VARIABLES, *SECRETS, *OF_BUILD)
    unknown = sorted(
        name
        for name in environment
        if name.startswith(PREFIX) and name not in known and not _of_a_service(name, environment)
    )
    if not unknown:
        return ""
    by_name = {name.removeprefix(PREFIX).lower(): name for name in known}
    words = []
    for name in unknown:
        meant = by_name.get(nearest(name.removeprefix(PREFIX), list(by_name)), "")
        words.append(escaped(name, 100) + (f" (did you mean {meant}?)" if meant else ""))
    return f"environment variables that set nothing: {', '.join(words)}"


def _of_a_service(name: str, environment: Mapping[str, str]) -> bool:
    """Return whether Kubernetes made this variable, which describes a service and is no setting."""
    found = _SERVICE.fullmatch(name)
    if found is None or f"{found[1]}_SERVICE_HOST" not in environment:
        return False
    # a service called reflex-lerobot makes REFLEX_LEROBOT_PORT, which a person may have set instead
    return name not in VARIABLES or bool(_SERVICE_URL.match(environment[name]))
