"""What happens after the commit cannot take the commit back."""

import secrets
from pathlib import Path
from typing import Any, cast

from broker.errors import StorageError
from broker.shell.desk import Incoming, Outgoing
from broker.wire.codec import encode
from broker.wire.enrollment import CreateInvite, InviteView
from broker.wire.ids import Service
from broker.wire.messages import Call
from tests.shell.office import Office


def test_a_disk_that_fails_after_the_commit_takes_no_answer_back(home: Path) -> None:
    """The row is durable: a caller told "nothing was written" would do it twice (row 13) (P1)."""
    office = Office.create(home)
    batch = office.desk.open_batch()
    outgoing: list[Outgoing] = []
    digest = secrets.token_hex(32)
    undone: list[str] = []
    done: list[str] = []
    request = CreateInvite(digest, "nas", (), 60, "root")
    frames = encode(Call(secrets.token_bytes(16), 5000, cast("Any", request)))
    incoming = Incoming(cast("Any", None), office.introduce(Service.CONSOLE), frames)

    def read_a_page_that_is_gone() -> None:
        raise StorageError("ledger.db: disk I/O error")

    batch.after_commit.append(read_a_page_that_is_gone)
    batch.after_commit.append(lambda: done.append("the other effects"))
    batch.on_void.append(lambda: undone.append("memory"))
    entry = office.desk.decide(batch, incoming)
    assert entry is not None
    outgoing.append(entry)
    office.desk.finish(batch, outgoing)
    assert isinstance(outgoing[0].reply, InviteView)
    assert (undone, done) == ([], ["the other effects"])
    assert office.desk.state.storage_failed_ms
    office.crash()
    assert office.ledger.invite(digest) is not None
