# SPDX-License-Identifier: Apache-2.0
"""Without an API key the browser is the only fence between a robot and every web site that its user has open."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from urllib.parse import urlsplit


def from_elsewhere(headers: Mapping[str, str]) -> bool:
    """True for a request that a browser sends for a page which this server did not serve.

    A page may always send to another server, and a name may be made to point at 127.0.0.1 after the page was loaded;
    so the request's Origin must be the address it is sent to, and that must be a number or localhost. Programs send no
    Origin and are let through.
    """
    origin = headers.get("Origin")
    if origin is None:
        return headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin")
    host = headers.get("Host", "")
    return urlsplit(origin).netloc.lower() != host.lower() or not is_own_name(host)


def is_own_name(host: str) -> bool:
    """Whether a Host header is an IP address or localhost: names that nobody else can point here."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        if name == "localhost" or name.endswith(".localhost"):
            return True
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
