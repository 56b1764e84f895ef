"""Ask what the broker answers later: the slow part runs in its real thread."""

import secrets
from typing import TypeVar

from broker.errors import MeshError, error_classes
from broker.shell.desk import Outgoing
from broker.wire.base import Reply, Request
from broker.wire.control import Fault
from broker.wire.ids import Service
from tests.shell.office import Office
from tests.support import eventually

R = TypeVar("R", bound=Reply)


def settled(office: Office, request: Request, kind: type[R]) -> R:
    """Return the reply to a request of the console that is answered when a slow job is done."""
    identity, request_id = office.introduce(Service.CONSOLE), secrets.token_bytes(16)
    found = [entry.reply for entry in office.turn([(identity, request, request_id)])]

    def look() -> bool:
        batch = office.desk.open_batch()
        for then, outcome in office.desk.state.offloop.finished():
            then(batch, outcome)
        outgoing: list[Outgoing] = []
        office.events.extend(office.desk.finish(batch, outgoing))
        late = (entry for entry in outgoing if entry.caller.request_id == request_id)
        found.extend(entry.reply for entry in late)
        return bool(found)

    eventually(look, within_s=20)
    if isinstance(found[0], Fault):
        raise _error(found[0])
    assert isinstance(found[0], kind), found[0]
    return found[0]


def _error(fault: Fault) -> MeshError:
    by_code = {code.value: each for code, each in error_classes().items()}
    return by_code[fault.code](fault.detail, hint=fault.hint)
