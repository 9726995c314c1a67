# SPDX-License-Identifier: Apache-2.0
"""Where things lie in the repository, for tests wherever they lie."""

from __future__ import annotations

from pathlib import Path

SUPPORT = Path(__file__).resolve().parent
FIXTURES = SUPPORT.parent / "fixtures"
ROOT = SUPPORT.parents[1]
