"""What a probe looks at: `tcp://HOST:PORT` or `postgresql://HOST:PORT`."""

import re
from dataclasses import dataclass
from typing import Literal

Scheme = Literal["tcp", "postgresql"]
PORT_MAX = 65_535

_TARGET = re.compile(
    r"(?P<scheme>tcp|postgresql)://"
    r"(?:\[(?P<six>[0-9a-fA-F:.]+)\]|(?P<host>[^\[\]:/\s]+)):(?P<port>[0-9]{1,5})"
)


@dataclass(frozen=True, slots=True)
class Target:
    """A port that serves TLS, from the first octet on or as PostgreSQL begins it."""

    scheme: Scheme
    host: str
    port: int


def parse_target(text: str) -> Target:
    """Return the target that `text` names.

    Raises:
        ValueError: Another scheme, no port, or one that cannot be.
    """
    found = _TARGET.fullmatch(text)
    if found is None or not 0 < int(found["port"]) <= PORT_MAX:
        raise ValueError(f'`probe` takes tcp://HOST:PORT or postgresql://HOST:PORT, not "{text}"')
    scheme: Scheme = "postgresql" if found["scheme"] == "postgresql" else "tcp"
    return Target(scheme, found["six"] or found["host"], int(found["port"]))
