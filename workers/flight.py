"""One member on its way through a renewal, on plain values: what came, and what is next.

    csr ──► sign ──► install ──► tell ──► over
     └────────┴─────────┴─failed──┘        ▲ the lease was lost, at any step

`csr` and `install` are calls to the member; `sign` and `tell` are requests to the broker. Order
rule: nothing is delivered but what was signed under the lease a moment ago. A worker that was
frozen in between asks again, and is refused when another one has the member by now; the same
request for the same key makes no second certificate.
"""

from dataclasses import dataclass
from typing import Literal

from broker.errors import DeadlineError, LeaseLostError, MeshError
from broker.units import Millis
from broker.wire.base import Body, Reply
from broker.wire.claims import KeyProof
from broker.wire.enrollment import Issued
from broker.wire.mesh_api import InstallBody, RekeyBody
from broker.wire.renewal import InstallAnswer, RekeyAnswer
from broker.wire.work import Failed, Installed, RenewMember
from workers.renewed import sentence_of

Step = Literal["csr", "sign", "install", "tell", "over"]

DELIVERY_CALL_MS = 125_000
"""A member answers a delivery after its hooks have run, or after 120 s that they go on running."""

EXTEND_EVERY_MS = 20_000
"""The shortest lease (60 s) outlives two lost extensions."""

PROOF_MS = 1_000
"""So long a signature proves the lease: a broker gives no worker up that was silent for less."""

AGAIN_MS = 2_000
GIVE_UP_MS = 30_000
"""So long a broker that cannot take a request now (no broker, a full disk) is asked again."""

STILL_INSTALLING = "the member is still installing; its report follows"
ANOTHER = "the member answered for another certificate than the one it was given"


@dataclass(slots=True)
class Flight:
    """The renewal of one member under one lease.

    Attributes:
        lease_id: Fencing number.
        ttl_ms: What an extension asks for.
        item: The member.
        extend_ms: When to extend the lease next.
        step: What happens now, or what the broker is to be asked next.
        again_ms: Not before this the broker is asked.
        refused_ms: Since when the broker could not take the request of this step.
    """

    lease_id: int
    ttl_ms: int
    item: RenewMember
    extend_ms: Millis
    step: Step = "csr"
    csr: bytes = b""
    proof: KeyProof | None = None
    issued: Issued | None = None
    result: Installed | Failed | None = None
    again_ms: int = 0
    refused_ms: Millis | None = None

    @property
    def asks(self) -> bool:
        """Whether the next step is a request to the broker."""
        return self.step in {"sign", "tell"}

    def request(self) -> tuple[str, Body]:
        """Return path and body of the present call to the member."""
        if self.step == "csr":
            return "/v1/renewal/csr", RekeyBody(self.item.term, self.item.mandate)
        assert self.issued is not None, "nothing is delivered unsigned"
        leaf, issuing = self.issued.leaf, self.issued.issuing
        return "/v1/renewal/install", InstallBody(
            leaf=leaf, issuing=issuing, term=self.item.term, mandate=self.item.mandate
        )

    def call_ms(self, peer_timeout_ms: int) -> int:
        """Return how long the present call may take."""
        return peer_timeout_ms if self.step == "csr" else DELIVERY_CALL_MS

    def answered(self, answer: Reply | MeshError) -> None:
        """Take what the member answered, or why it did not."""
        match answer:
            case RekeyAnswer():
                self.csr, self.proof, self.step = answer.csr, answer.proof, "sign"
            case InstallAnswer() if self.issued is not None and answer.serial != self.issued.serial:
                self._ends(Failed(ANOTHER))
            case InstallAnswer():
                self._ends(Installed(answer.serial, answer.state, answer.detail, answer.hook_ms))
            case DeadlineError() if self.step == "install":
                self._ends(Failed(STILL_INSTALLING))
            case MeshError():
                self._ends(Failed(sentence_of(answer)))
            case _:
                raise AssertionError(f"{type(answer).__name__} is no answer to this call")

    def signed(self, issued: Issued, asked_ms: Millis, now_ms: Millis) -> None:
        """Take the certificate that the broker was asked for at `asked_ms`.

        An answer that took long proves nothing any more; the broker is asked again.
        """
        if now_ms - asked_ms > PROOF_MS:
            self.refused(DeadlineError("the broker answers too late to deliver anything"), now_ms)
            return
        self.issued, self.step = issued, "install"
        self.again_ms, self.refused_ms = 0, None

    def told(self) -> None:
        """The broker took the result."""
        self.step = "over"

    def refused(self, error: MeshError, now_ms: Millis) -> None:
        """Take that the broker did not do what this step asked for.

        A lost lease ends the flight. What may pass (no broker, a full disk) is asked again for a
        while; then a certificate that could not be had is a failure, and a result that could not
        be told is left to the end of the lease.
        """
        since_ms = now_ms if self.refused_ms is None else self.refused_ms
        if isinstance(error, LeaseLostError):
            self.step = "over"
        elif error.retryable and now_ms - since_ms < GIVE_UP_MS:
            self.refused_ms = since_ms
            self.again_ms = now_ms + max(error.retry_after_ms, AGAIN_MS)
        elif self.step == "tell":
            self.step = "over"
        else:
            self._ends(Failed(sentence_of(error)))

    def _ends(self, result: Installed | Failed) -> None:
        self.result, self.step = result, "tell"
        self.again_ms, self.refused_ms = 0, None
