# SPDX-License-Identifier: Apache-2.0
"""The pages about clients, followed to the letter; installing is done by test/packaging/test_client_wheel.py."""

from __future__ import annotations

import pytest
from tutorial import blocks, reader

INSTALL = "bash install"


@pytest.mark.parametrize("page", ["use-the-python-client", "use-http-from-cpp"])
def test_the_page_is_followed_to_the_letter(page: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    found = blocks(f"../how-to/{page}")
    assert len(found) > 6
    with reader(tmp_path_factory.mktemp("page")) as tutorial:
        tutorial.follow([block for block in found if block.kind != INSTALL])
        tutorial.interrupt()
