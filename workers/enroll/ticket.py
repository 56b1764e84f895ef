"""`ticket.json`: the join that is on its way, so that a later run goes on with it."""

import msgspec

from broker.errors import MalformedMessageError
from broker.runtime.files import write_atomic
from broker.runtime.paths import Paths
from broker.wire.plain import decode_json
from workers.enroll.logic import Ticket

NAME = "ticket.json"


class TicketFile:
    """At most one ticket, readable by this user alone: it holds the secret for polling."""

    def __init__(self, paths: Paths) -> None:
        self._path = paths.data / NAME

    def load(self) -> Ticket | None:
        """Return the ticket; None when there is none or it is damaged (join then starts anew)."""
        try:
            return decode_json(self._path.read_bytes(), Ticket)
        except (OSError, MalformedMessageError):
            return None

    def save(self, ticket: Ticket) -> None:
        """Keep the ticket, durable when this returns."""
        write_atomic(self._path, msgspec.json.encode(ticket))

    def remove(self) -> None:
        """Forget the ticket."""
        self._path.unlink(missing_ok=True)
