# SPDX-License-Identifier: Apache-2.0
"""Cross-site request forgery: without an API key, refuse what a browser sends for pages of other sites."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from urllib.parse import urlsplit

PAGE_HEADER = "X-Reflex-Page"  # what no other site may send without asking first
# they may set a robot in motion
NEED_KEY = ("/resume", "/guard/reset", "/breaker/reset", "/policies", "/instruction", "/episodes")
COSTLY = ("/events", "/history")  # reading them takes a place or makes images
FOREIGN_HOST = "without an API key, use an IP address or localhost: a name may be of another machine"
FOREIGN_ORIGIN = "without an API key, browsers may send requests only from the page of this server, opened by IP address or localhost"
KEY_NEEDED = "this server can be reached from other machines without an API key, so that over HTTP only a stop acts: start it with one"


def refusal(method: str, path: str, headers: Mapping[str, str], *, alone: bool) -> tuple[str, str] | None:
    """Return slug and sentence of a request to refuse where there is no API key; None for one to answer.

    alone: only this machine can connect. Files of the page, /health and /metrics are not checked here.
    """
    if method != "POST" and not is_own_name(headers.get("Host", "")):
        return "foreign-host", FOREIGN_HOST  # what it reads, a page under that name could read as well
    # a browser says with every POST where it comes from, so that programs may use any name: http://cloud:8000
    if method == "POST" and from_elsewhere(headers):
        return "foreign-origin", FOREIGN_ORIGIN
    if path in COSTLY and (from_elsewhere(headers) or _of_an_unknown_page(headers)):
        return "foreign-origin", FOREIGN_ORIGIN  # an image of any site would cost as much
    if method == "POST" and path in NEED_KEY and not alone:
        return "key-needed", KEY_NEEDED
    return None


def from_elsewhere(headers: Mapping[str, str]) -> bool:
    """Return True for a request that a browser sends for a page which this server did not serve.

    A page may always send to another server, and a name may be made to point at 127.0.0.1 after the page was loaded;
    so the request's Origin must be the address it is sent to, and that must be a number or localhost. Programs send no
    Origin and are let through.
    """
    origin = headers.get("Origin")
    if origin is None:
        return headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin")
    host = headers.get("Host", "")
    return urlsplit(origin).netloc.lower() != host.lower() or not is_own_name(host)


def _of_an_unknown_page(headers: Mapping[str, str]) -> bool:
    """Return whether our page's own header is missing: over plain http beyond localhost browsers do not name the site."""
    is_browser = headers.get("User-Agent", "").startswith("Mozilla/")
    return is_browser and "Sec-Fetch-Site" not in headers and PAGE_HEADER not in headers


def is_own_name(host: str) -> bool:
    """Return whether a Host header is an IP address or localhost: names that no DNS server can point here."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        if name == "localhost" or name.endswith(".localhost"):
            return True
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
