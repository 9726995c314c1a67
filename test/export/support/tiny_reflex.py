# SPDX-License-Identifier: Apache-2.0
"""`reflex` in a process that can load small pi0 and pi0.5: python test/export/support/tiny_reflex.py export FOLDER OUT."""

from __future__ import annotations

import sys
from pathlib import Path

import tiny_models

sys.path.insert(0, str(Path(__file__).parents[3]))

from reflex_ros.cli.main import main

if __name__ == "__main__":
    tiny_models.shrink_pi()
    sys.exit(main(sys.argv[1:]))
