"""Routes of the ways to unlock the CA of this node."""

from broker.wire.authority import AuthorityView, GetAuthority
from broker.wire.slot import (
    AddSlot,
    AddSlotBody,
    RemoveSlot,
    RemoveSlotBody,
    SlotAnswer,
    UnlockByCode,
    UnlockCodeBody,
)
from workers.route import Route, Visit

SLOT_TIMEOUT_MS = 45_000
"""Several key derivations, and for a peer slot the way to the peer."""


def _add(visit: Visit) -> AddSlot:
    body = visit.content(AddSlotBody)
    return AddSlot(
        slot_kind=body.slot_kind,
        passphrase=body.passphrase.encode(),
        operator=visit.caller.operator,
        new=body.new.encode(),
        peer=body.peer,
    )


def _remove(visit: Visit) -> RemoveSlot:
    return RemoveSlot(
        slot_id=visit.parameters["id"],
        passphrase=visit.content(RemoveSlotBody).passphrase.encode(),
        operator=visit.caller.operator,
    )


def _unlock(visit: Visit) -> UnlockByCode:
    code = visit.content(UnlockCodeBody).code
    return UnlockByCode(code=code, operator=visit.caller.operator)


SLOT_ROUTES = (
    Route(
        method="GET",
        path="/v1/ca/slots",
        summary="The ways to unlock, with the description of the CA that they open.",
        make=lambda _visit: GetAuthority(),
        reply=AuthorityView,
        scope="read",
    ),
    Route(
        method="POST",
        path="/v1/ca/slots",
        once=False,
        summary="Add a way to unlock; a passphrase of this CA proves the right.",
        body=AddSlotBody,
        make=_add,
        reply=SlotAnswer,
        timeout_ms=SLOT_TIMEOUT_MS,
    ),
    Route(
        method="DELETE",
        path="/v1/ca/slots/{id}",
        summary="Remove a way to unlock; the last passphrase stays.",
        body=RemoveSlotBody,
        make=_remove,
        reply=SlotAnswer,
        timeout_ms=SLOT_TIMEOUT_MS,
    ),
    Route(
        method="POST",
        path="/v1/ca/unlock-code",
        summary="Open the issuing key with a code of the authenticator.",
        body=UnlockCodeBody,
        make=_unlock,
        reply=AuthorityView,
    ),
)
