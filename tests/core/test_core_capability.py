"""The capability table: least privilege between processes of one node."""

from typing import get_args

import pytest

from broker.core.capability import CAPABILITIES, EVERYONE, is_allowed
from broker.shell.dispatch import VERBS
from broker.wire.approval import DecideApproval
from broker.wire.authority import LockAuthority, UnlockAuthority
from broker.wire.base import Request
from broker.wire.ids import Service
from broker.wire.messages import AnyRequest
from broker.wire.roster import RevokeMember


def test_every_service_has_a_row() -> None:
    """A new service without a row can do nothing, and this says so first."""
    assert set(CAPABILITIES) == set(Service)


def test_every_request_is_known_to_the_dispatcher_and_allowed_to_somebody() -> None:
    """A request nobody may send, or nobody answers, is dead or missing code."""
    kinds = set(get_args(AnyRequest))
    allowed: set[type[Request]] = set().union(*CAPABILITIES.values())
    assert set(VERBS) == kinds
    assert allowed == kinds


@pytest.mark.parametrize("service", [s for s in Service if s is not Service.CONSOLE])
def test_only_the_console_speaks_for_an_operator(service: Service) -> None:
    """A gateway that was taken over cannot unlock, approve or revoke."""
    operator: set[type[Request]] = {UnlockAuthority, LockAuthority, DecideApproval, RevokeMember}
    assert not operator & CAPABILITIES[service]


def test_what_is_not_listed_is_forbidden() -> None:
    """The table is an allow-list (row 41)."""
    assert is_allowed(Service.CONSOLE, LockAuthority(operator="root"))
    assert not is_allowed(Service.GATEWAY, LockAuthority(operator="root"))
    assert CAPABILITIES[Service.GATEWAY] >= EVERYONE
