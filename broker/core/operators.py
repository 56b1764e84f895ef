"""Which decisions need a person's name, in one place.

A mesh whose policy asks for operators (profiles my-team and my-organization) takes no decision
about who belongs to it, what it trusts or who may decide, unless somebody put a name to it.
"""

from broker.errors import ForbiddenError
from broker.wire.approval import DecideApproval
from broker.wire.authority import LockAuthority, UnlockAuthority
from broker.wire.backup import TakeBackup
from broker.wire.base import Request
from broker.wire.enrollment import (
    CreateInvite,
    FinishTOTPRotation,
    RevokeInvite,
    SetEnrollment,
    StartTOTPRotation,
)
from broker.wire.notice import SendTestNotice
from broker.wire.operator import is_named
from broker.wire.policy import Policy, SetPolicy
from broker.wire.remote import EnrollWorker, RevokeWorker
from broker.wire.renewal import ForceRenewal
from broker.wire.rollover import AbortRollover, FinishRollover, StartRollover
from broker.wire.roster import ReinstateMember, RenameMember, RevokeMember
from broker.wire.slot import AddSlot, RemoveSlot, UnlockByCode
from broker.wire.standby import (
    CloseReview,
    NominateStandby,
    PromoteHere,
    RemoveStandby,
    StepDown,
    SyncNow,
)
from broker.wire.token import CreateToken, RevokeToken

DECISIONS: frozenset[type[Request]] = frozenset(
    {
        DecideApproval,
        CreateInvite,
        RevokeInvite,
        SetEnrollment,
        StartTOTPRotation,
        FinishTOTPRotation,
        RevokeMember,
        ReinstateMember,
        RenameMember,
        NominateStandby,
        RemoveStandby,
        PromoteHere,
        CloseReview,
        SetPolicy,
        AddSlot,
        RemoveSlot,
        StartRollover,
        FinishRollover,
        AbortRollover,
        CreateToken,
        RevokeToken,
        EnrollWorker,
        RevokeWorker,
    }
)
"""Refused without a named operator where the policy asks for one."""

UPKEEP: frozenset[type[Request]] = frozenset(
    {
        UnlockAuthority,
        UnlockByCode,
        LockAuthority,
        ForceRenewal,
        TakeBackup,
        SyncNow,
        StepDown,
        SendTestNotice,
    }
)
"""Names an operator and decides nothing about members or trust. Unlocking has a proof of its own,
and the brakes (lock, step down: also sent by a pool that ends) must never be harder to reach."""


def require_operator(policy: Policy | None, request: Request) -> None:
    """Let a request pass that has a name on it, or needs none.

    Args:
        policy: The mesh's, None while this node knows of no mesh.
        request: Any request; a dry run decides nothing and needs no name.

    Raises:
        ForbiddenError: A decision that nobody put a name to.
    """
    if policy is None or not policy.operator_required or type(request) not in DECISIONS:
        return
    if getattr(request, "dry_run", False) or is_named(getattr(request, "operator", "")):
        return
    raise unnamed_refusal()


def may_decide(policy: Policy, operator: str) -> bool:
    """Whether a worker's yes by `operator` counts; its no always does."""
    return not policy.operator_required or is_named(operator)


def unnamed_refusal() -> ForbiddenError:
    """Return the refusal of a decision without a name."""
    return ForbiddenError(
        "this mesh takes no decision that nobody put a name to, and the account in use is shared",
        hint="say who you are: --operator NAME, or CERTMESH_OPERATOR in the environment",
    )
