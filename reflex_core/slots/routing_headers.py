# SPDX-License-Identifier: Apache-2.0
"""Encode the routing of a reply in X-Reflex-* headers, whatever characters the episode id has."""

from __future__ import annotations

from urllib.parse import quote

from reflex_core.values import Served

KEY_LENGTH = 128
_PLAIN = "!\"#$&'()*+,/:;<=>?@[\\]^`{|}"  # with letters, digits and _.-~ all of printable ASCII but blank and per cent


def header_text(text: str) -> str:
    """Return the first 128 characters; blanks, %, and what is not printable ASCII as %XX of the UTF-8 bytes."""
    return quote(text[:KEY_LENGTH], safe=_PLAIN, errors="surrogatepass")


def routing_headers(served: Served) -> dict[str, str]:
    """Return the headers of an answer that was routed; none where there is one policy."""
    if not served.routing.present:
        return {}
    headers = {
        "X-Reflex-Policy-Slot": served.slot,
        "X-Reflex-Model-Version": header_text(served.model_version),
        "X-Reflex-Routing-Key": header_text(served.routing.routing_key),
    }
    return headers | ({"X-Reflex-Routing-Degraded": "true"} if served.routing.degraded else {})
