"""What the project promises, each with its bound; tests show them by a mark like `(P12)`."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Promise:
    """One promise; `bound` says when and how far it holds, `figures` name what was measured."""

    number: int
    text: str
    bound: str
    figures: tuple[str, ...] = ()

    @property
    def mark(self) -> str:
        """How a docstring refers to it."""
        return f"P{self.number}"


PROMISES = (
    Promise(
        1,
        "An answer that says done survives any crash, power loss or failover of processes here.",
        "always; one commit and fsync before the answer",
        ("broker_kill_s",),
    ),
    Promise(
        2,
        "A request that is sent again under its id has one effect and one answer.",
        "24 h after the first answer",
    ),
    Promise(
        3,
        "The CA's private key is in no message, log, core, argument or unencrypted file; "
        "the broker alone maps it.",
        "always",
    ),
    Promise(
        4,
        "Nothing is signed while locked, deposed or pending, nor under a name or key that the "
        "policy refuses; the broker checks every request itself.",
        "always",
    ),
    Promise(
        5,
        "Revoked means refused: here at once, by every connected CA node and every connected "
        "member soon; and nothing takes it back.",
        "same request; 2 probes (10 s); one bundle pull (60 s)",
    ),
    Promise(
        6,
        "No serial is issued twice, no name has two active holders in any node's view, an invite "
        "makes one active member at most.",
        "always; after a partition from the merge on",
    ),
    Promise(
        7,
        "The version of the roster that a node has seen never goes down.",
        "always, also over restarts and restores",
    ),
    Promise(8, "No unauthenticated packet changes a role.", "always"),
    Promise(
        9,
        "A standby takes over from a dead primary, and a connected mesh has two primaries for a "
        "moment at most.",
        "grace (30 s) + 2 probes, + 10 s for each dead standby before it; 2 probes",
    ),
    Promise(
        10,
        "A hung, slow or lying peer costs one worker its deadline at most; other loops go on.",
        "10 s, 1 MiB of body",
        ("hung_worker_s", "hung_broker_s"),
    ),
    Promise(
        11,
        "Every loop shows its last success, its last error and its next run.",
        "late by more than 3 periods: status says so",
    ),
    Promise(
        12,
        "A full or read-only disk leaves no half state; reads and revocation checks go on, writes "
        "say `storage`, and it recovers without a restart.",
        "always",
    ),
    Promise(
        13,
        "A wrong clock is told, and a very wrong one issues nothing.",
        "told from 5 min off its peers on, refused from 1 day on",
    ),
    Promise(
        14,
        "A silent or dead decider is a no that is said; the queue is bounded and the oldest stay.",
        "its deadline (120 s)",
    ),
    Promise(15, "One command tells what is wrong, its exit status how bad.", "`certmesh status`"),
    Promise(
        16,
        "A restored node goes back behind nobody, uses no stamp again and says what it may "
        "have lost.",
        "always",
    ),
)
