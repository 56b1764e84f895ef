"""What carries a secret shows nothing of itself: a log line or a traceback may hold any message."""

import importlib
import pkgutil
from collections.abc import Iterator

import msgspec
import pytest

import broker.wire
from broker.wire.base import Veiled
from broker.wire.ids import UnixSeconds
from broker.wire.token import TokenCreated

SECRETS = frozenset(
    {
        "half",
        "invite_secret",
        "kit",
        "new_passphrase",
        "passphrase",
        "recovery",
        "secret",
        "ticket_secret",
        "token",
        "totp",
        "totp_code",
        "totp_key",
        "totp_uri",
    }
)


def with_secrets() -> Iterator[type[msgspec.Struct]]:
    """Yield every struct of the wire that has a field for a secret."""
    for module in pkgutil.iter_modules(broker.wire.__path__, "broker.wire."):
        for found in vars(importlib.import_module(module.name)).values():
            if (
                isinstance(found, type)
                and issubclass(found, msgspec.Struct)
                and found.__module__ == module.name
                and SECRETS & set(found.__struct_fields__)
            ):
                yield found


@pytest.mark.parametrize("struct", list(with_secrets()), ids=lambda struct: struct.__name__)
def test_no_message_with_a_secret_shows_itself(struct: type[msgspec.Struct]) -> None:
    """A new message with such a field fails here until it is veiled."""
    assert issubclass(struct, Veiled)


def test_a_veiled_message_says_what_it_is_and_nothing_else() -> None:
    """And its octets on the wire are what they were."""
    made = TokenCreated("cmt_secret", "ab", "grafana", ("read",), UnixSeconds(1))
    assert repr(made) == "TokenCreated(...)"
    assert made.__rich_repr__() == []
    assert msgspec.json.decode(msgspec.json.encode(made), type=TokenCreated) == made
