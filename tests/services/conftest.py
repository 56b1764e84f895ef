"""Fixtures: a node that is gone after the test, however it ended."""

import contextlib
from collections.abc import Callable, Iterator

import pytest

from tests.services.mesh import Node, create, remove

PORT = 16442

Make = Callable[[str], Node]


@pytest.fixture
def make_node() -> Iterator[Make]:
    """Return what creates the node; its argument is the scheme of the probe."""
    with contextlib.ExitStack() as stack:

        def make(scheme: str = "tcp") -> Node:
            node = create(PORT, f"{scheme}://127.0.0.1:{PORT}")
            stack.callback(remove, node)
            return node

        yield make
