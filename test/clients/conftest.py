# SPDX-License-Identifier: Apache-2.0
"""Programs with clients of other projects, each in the environment that `make test-clients` makes for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from client_programs import Peer, running


@pytest.fixture
def peer() -> Iterator[Callable[..., Peer]]:
    """`peer("openpi", "openpi", port)`: a program in one of the environments."""
    with ExitStack() as stack:
        yield lambda *arguments: stack.enter_context(running(*arguments))
