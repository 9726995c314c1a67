# SPDX-License-Identifier: Apache-2.0
"""Keep freed memory in the process: images are allocated and freed for every request, and fresh pages cost page faults."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Mapping

# mallopt(3) of glibc: which parameter, and the environment variable by which a user sets it
_TRIM, _MMAP = (-1, "MALLOC_TRIM_THRESHOLD_"), (-3, "MALLOC_MMAP_THRESHOLD_")
KEPT_BYTES = 64 << 20  # of each arena
LARGEST_BYTES = 32 << 20  # of one allocation that comes from an arena; glibc takes no larger threshold


def keep_freed_memory(environment: Mapping[str, str] | None = None) -> bool:
    """Let glibc keep what is freed; return False where the user has set it, or the C library is another one.

    environment: os.environ where not given.
    """
    present = os.environ if environment is None else environment
    if not sys.platform.startswith("linux") or _TRIM[1] in present or _MMAP[1] in present:
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # musl has none
        return False
    return bool(mallopt(_MMAP[0], LARGEST_BYTES) and mallopt(_TRIM[0], KEPT_BYTES))
