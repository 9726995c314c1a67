# SPDX-License-Identifier: Apache-2.0
"""The check of the certificate that https would be served with."""

from __future__ import annotations

import time

from reflex_core.doctor.finding import FAIL, OK, WARN, Finding
from reflex_core.errors import SettingError
from reflex_core.settings.table import Settings
from reflex_ros.sidecar.key_file import utc
from reflex_ros.sidecar.tls import read_certificate

SOON_DAYS = 14
DAY_S = 86_400.0
REMEDY = "renew it and replace the files: a running server reads them again"


def certificate(settings: Settings, now_s: float | None = None) -> Finding:
    """Check that the certificate can be served with, and when it expires. now_s: seconds since 1970, None: now."""
    try:
        found = read_certificate(settings)
    except SettingError as error:
        return Finding(
            "certificate", FAIL, str(error), "correct what the sentence names, or renew the certificate"
        )
    assert found is not None
    days = (found.not_after_s - (time.time() if now_s is None else now_s)) / DAY_S
    message = f"expires {utc(found.not_after_s)}, in {days:.0f} days"
    return (
        Finding("certificate", OK, message)
        if days > SOON_DAYS
        else Finding("certificate", WARN, message, REMEDY)
    )
