"""Whose signatures count on this node: the CA in force, and during a rollover the other one too."""

from broker.errors import MeshError
from broker.shell.state import BrokerState
from broker.wire.codec import decode_body
from broker.wire.ids import DER
from broker.wire.roster import SignedBundle


def issuers_of(state: BrokerState) -> tuple[DER, ...]:
    """Return every issuing certificate whose word counts now; the first is the usual one.

    All were verified before: those of the vault and of the rows when they came, those of the bundle
    when it was installed.
    """
    found: list[bytes] = []
    if state.keys.vault is not None:
        found.append(state.keys.vault.issuing)
        row = state.rollover()
        if row is not None:
            found += [row.issuing, row.retiring_issuing]
    found += _of_bundle(state)
    return tuple(dict.fromkeys(filter(None, found)))


def _of_bundle(state: BrokerState) -> list[bytes]:
    book, raw = state.trust, state.follow.bundle_bytes
    if not raw or state.follow.bundle is None:
        return []
    if book.bundle is not raw:
        try:
            book.signer = decode_body(raw, SignedBundle).issuing
        except MeshError:
            book.signer = b""
        book.bundle = raw
    return [book.signer, *state.follow.bundle.issuers]
