"""The broker itself: every request of every service, on a real ledger with real keys.

What decodes is decided: values that are well formed and make no sense reach the verbs, the ledger
and the folds. A mesh is built once for a process and takes all of it; every refusal has to be a
fault, and the journal has to verify in the end.
"""

import functools
import hashlib
import secrets
from typing import Any, cast

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec

from broker.core.capability import CAPABILITIES
from broker.shell.desk import Incoming
from broker.wire import codec
from broker.wire.authority import UnlockAuthority
from broker.wire.backup import TakeBackup
from broker.wire.base import Request
from broker.wire.control import Fault
from broker.wire.enrollment import CreateInvite, InviteView, JoinAnswer
from broker.wire.ids import Service
from broker.wire.messages import Answer, Call
from broker.wire.renewal import RenewAsPeer
from broker.wire.rollover import FinishRollover, StartRollover
from broker.wire.roster import LeaveMesh, RecordHeartbeat, RevokeMember, WhoAmI
from broker.wire.slot import AddSlot, RemoveSlot, UnlockByCode
from broker.wire.standby import PromoteHere, StepDown
from tests.fuzz.place import place
from tests.fuzz.target import Target
from tests.shell.office import Office, issued_of, join_request, make_csr, peer_of
from tests.wire.golden import REQUEST_ID
from tests.wire.samples import REQUESTS, sample

SLOW: frozenset[type[Request]] = frozenset(
    {AddSlot, FinishRollover, RemoveSlot, StartRollover, TakeBackup, UnlockAuthority, UnlockByCode}
)
"""Their work is done by threads or processes, which nobody waits for here."""
ENDING: frozenset[type[Request]] = frozenset({LeaveMesh, PromoteHere, RevokeMember, StepDown})
"""They would leave a mesh in which everything else is refused."""
HOST = "nas"


@functools.cache
def mesh() -> tuple[Office, dict[Service, bytes], Any]:
    """Return a mesh with one member, a worker of each service, and the member's certificate."""
    home = place() / "office"
    home.mkdir(mode=0o700)
    office = Office.create(home)
    secret = "x" * 22
    wish = CreateInvite(
        secret_hash=hashlib.sha256(secret.encode()).hexdigest(),
        host=HOST,
        sans=(),
        ttl_s=9000,
        operator="ann",
    )
    office.ask(Service.CONSOLE, wish, InviteView)
    key = ec.generate_private_key(ec.SECP256R1())
    join = join_request(HOST, make_csr(HOST, key=key), invite_secret=secret)
    issued = issued_of(office.ask(Service.GATEWAY, join, JoinAnswer))
    workers = {service: office.introduce(service) for service in Service}
    return office, workers, peer_of(issued, HOST)


def decide(octets: bytes) -> None:
    """Let the broker decide a call, as a worker whose service may send it."""
    call = codec.decode_call([codec.VERSION_FRAME, octets])
    kind = type(call.request)
    if kind in SLOW or kind in ENDING:
        return
    office, workers, _ = mesh()
    service = next(
        (one for one in Service if kind in CAPABILITIES.get(one, frozenset())), Service.CONSOLE
    )
    fresh = msgspec.structs.replace(call, request_id=secrets.token_bytes(16))
    incoming = Incoming(cast("Any", None), workers[service], codec.encode(fresh))
    batch = office.desk.open_batch()
    entry = office.desk.decide(batch, incoming)
    outgoing = [] if entry is None else [entry]
    office.desk.finish(batch, outgoing)
    for one in outgoing:
        # An answer that the caller cannot decode would look like a broker that is gone.
        codec.decode_answer(codec.encode(Answer(fresh.request_id, one.reply)))
        if isinstance(one.reply, Fault):
            assert one.reply.code != "internal", one.reply
            assert one.reply.detail, one.reply


def _seeds() -> tuple[bytes, ...]:
    peer = mesh()[2]
    known: tuple[Request, ...] = (
        WhoAmI(peer),
        RenewAsPeer(peer, make_csr(HOST)),
        join_request("birch", make_csr("birch"), invite_secret="y" * 22),
        join_request("birch", make_csr("birch"), totp_code="123456"),
        msgspec.structs.replace(sample(RecordHeartbeat), peer=peer),
    )
    usual = [cast("Request", _with_peer(sample(kind), peer)) for kind in REQUESTS]
    return tuple(
        codec.encode(Call(REQUEST_ID, 5000, cast("Any", request)))[1]
        for request in (*known, *usual)
        if type(request) not in SLOW | ENDING
    )


def _with_peer(request: Any, peer: Any) -> Any:
    names = type(request).__struct_fields__
    return msgspec.structs.replace(request, peer=peer) if "peer" in names else request


def verdict() -> str:
    """Return what is wrong with the journal after all of it, empty when nothing is."""
    return mesh()[0].ledger.verify_chain()[3]


BROKER_TARGETS = (Target("broker", decide, _seeds, "msgpack", bytes_max=262_144),)
