"""The command as tests call it, and what it said."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Said:
    """What one run of the command said."""

    status: int
    out: str
    err: str

    @property
    def body(self) -> dict[str, Any]:
        """The one JSON object on stdout."""
        found = json.loads(self.out)
        assert isinstance(found, dict)
        return found


Certmesh = Callable[..., Said]
