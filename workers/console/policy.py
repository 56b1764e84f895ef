"""Routes of what the mesh allows: its policy, and the secret behind its enrollment codes."""

from broker.wire.console_api import CodeBody
from broker.wire.enrollment import (
    EnrollmentView,
    FinishTOTPRotation,
    StartTOTPRotation,
    TOTPRotationView,
)
from broker.wire.policy import GetPolicy, PolicyBody, PolicyView, SetPolicy
from workers.route import Route, Visit

SURVEY_TIMEOUT_MS = 30_000
"""Looking at a hundred thousand members takes seconds, in steps that let others pass."""


def _set_policy(visit: Visit) -> SetPolicy:
    body = visit.content(PolicyBody)
    return SetPolicy(patch=body.patch, operator=visit.caller.operator, dry_run=body.dry_run)


def _finish(visit: Visit) -> FinishTOTPRotation:
    code = visit.content(CodeBody).code
    return FinishTOTPRotation(code=code, operator=visit.caller.operator)


POLICY_ROUTES = (
    Route(
        method="GET",
        path="/v1/ca/policy",
        summary="What the mesh allows, and which members it would not admit any more.",
        make=lambda _visit: GetPolicy(),
        reply=PolicyView,
        timeout_ms=SURVEY_TIMEOUT_MS,
        scope="admin",
    ),
    Route(
        method="PUT",
        path="/v1/ca/policy",
        summary="Change the policy; dry_run only tells what would be.",
        body=PolicyBody,
        make=_set_policy,
        reply=PolicyView,
        timeout_ms=SURVEY_TIMEOUT_MS,
        scope="admin",
    ),
    Route(
        method="POST",
        path="/v1/enrollment/totp/rotate",
        once=False,
        summary="Draw a new enrollment secret; the only time it is shown.",
        make=lambda visit: StartTOTPRotation(operator=visit.caller.operator),
        reply=TOTPRotationView,
        scope="uid",
    ),
    Route(
        method="POST",
        path="/v1/enrollment/totp/confirm",
        summary="Prove the new enrollment secret with one of its codes; the old one is over.",
        body=CodeBody,
        make=_finish,
        reply=EnrollmentView,
        scope="uid",
    ),
)
