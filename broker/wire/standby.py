"""The order of succession as an operator sees and changes it."""

from broker.wire.base import Body, Reply, Request
from broker.wire.ids import CAState, Count, Hex, Host, Role, Sequence, Term, Text, UnixSeconds


class StandbyLine(Body, frozen=True):
    """One key holder or nominated node.

    `state`: `primary`, `nominated` (has no key yet), `ready`, `lagging`, `locked`, `away`
    (silent for a grace period), `unready` (`reason` says why). `lag` is in journal rows, None when
    unknown. `rank` is the place in the order of succession, 0 for the first.
    """

    host: Host
    member_id: Hex
    role: Role
    state: Text
    ca: CAState | None
    lag: Count | None
    sequence: Sequence
    term: Term
    rank: Count
    last_heard_at: UnixSeconds | None
    reason: Text = ""


class ListStandbys(Request, frozen=True, tag="list-standbys"):
    """Ask for the `StandbysView`; any key holder answers, the primary knows most."""


class StandbysView(Reply, frozen=True, tag="standbys-view"):
    """The order of succession and where this node stands in it.

    `phase` is the word of the transition table; `withheld` says why this node does not take over
    although the primary is silent. `silent_ms` is how long the primary has been silent. `powers`
    is `full`, or why enrollment, policy and roles are refused here.
    """

    host: Host
    phase: Text
    mode: Text
    term: Term
    primary: Text
    lines: tuple[StandbyLine, ...]
    powers: Text
    withheld: Text = ""
    silent_ms: Count = 0
    reviews: Count = 0


class NominateStandby(Request, frozen=True, tag="nominate-standby"):
    """Offer a member the issuing key."""

    host: Host
    operator: Text


class RemoveStandby(Request, frozen=True, tag="remove-standby"):
    """Take a nomination or a standby's role back."""

    host: Host
    operator: Text


class PromoteHere(Request, frozen=True, tag="promote-here"):
    """An operator wants this node to be the primary, or confirms a caretaker's full powers.

    `force` accepts what readiness would withhold for (rows behind, isolated); never a locked key.
    """

    operator: Text
    force: bool = False
    dry_run: bool = False


class PromotionAnswer(Reply, frozen=True, tag="promotion-answer"):
    """What happens: `promoted`, `confirmed`, `asked` (the living primary hands over), `would`."""

    outcome: Text
    term: Term
    detail: Text = ""


class StepDown(Request, frozen=True, tag="step-down"):
    """An operator, or the end of this pool, takes the primary's role from this node.

    `successor` empty means the first ready standby; with nobody ready the answer is a refusal and
    the node stays primary. With `closing` the doors of this node are
    already shut: nothing more is written, the last beat is signed at once.
    """

    operator: Text
    successor: Text = ""
    closing: bool = False


class StepDownAnswer(Reply, frozen=True, tag="step-down-answer"):
    """Who was asked to take over."""

    successor: Text
    term: Term


class SyncNow(Request, frozen=True, tag="sync-now"):
    """Let the roster-sync worker start a round at once."""

    operator: Text


class ReviewLine(Body, frozen=True):
    """Something the merge decided that a person should look at.

    `kind`: `hostname`, `invite`, `totp`, `enrollment`, `role`, `rollover`. `kept` and `lost` say
    what won and what did not.
    """

    review_id: Hex
    kind: Text
    subject: Text
    kept: Text
    lost: Text
    at: UnixSeconds
    sequence: Sequence


class ListReviews(Request, frozen=True, tag="list-reviews"):
    """Ask for conflicts nobody has looked at yet."""

    limit: Count = 500


class ReviewsView(Reply, frozen=True, tag="reviews-view"):
    """Open reviews, oldest first."""

    reviews: tuple[ReviewLine, ...]
    total: Count


class CloseReview(Request, frozen=True, tag="close-review"):
    """A person looked at it."""

    review_id: Hex
    operator: Text
