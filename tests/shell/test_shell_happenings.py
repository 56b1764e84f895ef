"""What happens to a node is told to its hooks: when it is true, once, and over crashes."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from broker.clock import wall_s
from broker.errors import BundleRejectedError, ForbiddenError
from broker.pki.crl import sign_crl
from broker.runtime.files import private_directory, write_atomic
from broker.shell.happenings import TRIES_MAX, note_happenings
from broker.shell.membership import write_membership
from broker.wire.control import Ack
from broker.wire.enrollment import CRLInstalled, InstallCRL
from broker.wire.events import WorkAvailable
from broker.wire.ids import Service
from broker.wire.work import (
    CompleteWork,
    Failed,
    HooksRan,
    Installed,
    Lease,
    LeaseWork,
    RunHooks,
    WorkAnswer,
    WorkResult,
)
from tests.pki.making import issuer
from tests.shell.mesh_room import Node, Room, pushed_clock
from tests.shell.rollover_room import RolloverRoom
from tests.shell.scenes import Make
from tests.shell.test_shell_lists import carry, revoke, text_of, trust


@pytest.fixture
def duo(make: Make) -> Room:
    """Atlas leads birch, which knows its bundle; failed work rests for a minute."""
    room = make("birch", renewal={"backoff_min": "60s", "backoff_max": "60s"})
    room.run(2_000)
    return room


def leased(node: Node) -> tuple[bytes, Lease | None]:
    """Ask for work as a fresh renewal worker."""
    identity = node.office.introduce(Service.RENEWAL)
    return identity, node.office.send(identity, LeaseWork(), WorkAnswer).lease


def told(node: Node, result: WorkResult) -> str:
    """Do what hooks are to be told now, with this result; empty when nothing is."""
    identity, lease = leased(node)
    if lease is None:
        return ""
    assert isinstance(lease.item, RunHooks)
    assert lease.item.host == node.host
    node.office.send(identity, CompleteWork(lease.lease_id, result), Ack)
    return lease.item.event


def revoked(room: Room, host: str) -> Node:
    """Revoke a member and bring it the signed list that says so."""
    revoke(room, host)
    carry(room, host)
    room[host].note_certificate()
    return room[host]


def test_a_node_that_a_signed_list_names_as_revoked_tells_its_hooks(duo: Room) -> None:
    """Its services should stop before their peers refuse them one by one."""
    duo["birch"].note_certificate()
    duo["birch"].office.events.clear()
    birch = revoked(duo, "birch")
    assert WorkAvailable(Service.RENEWAL) in birch.office.events
    assert told(birch, HooksRan()) == "revoked"


def test_a_list_that_names_somebody_else_tells_nobody(make: Make) -> None:
    """The serial counts."""
    room = make("birch", "cedar")
    room.run(2_000)
    revoke(room, "cedar")
    carry(room, "birch")
    room["birch"].note_certificate()
    assert told(room["birch"], HooksRan()) == ""


def test_a_list_that_the_ca_did_not_sign_revokes_nobody(duo: Room) -> None:
    """Whoever stands in the network could otherwise stop every service of the mesh."""
    birch, now = duo["birch"], wall_s()
    entries = [(int(birch.peer.serial, 16), int(now))]
    forged = sign_crl(issuer(), entries, number=1 << 60, now=now, next_update=now + 99)
    request = InstallCRL(text_of(forged, trust(duo, "atlas").root_crl), "atlas")
    with pytest.raises(BundleRejectedError):
        birch.ask(Service.ROSTER_SYNC, request, CRLInstalled)
    birch.note_certificate()
    assert told(birch, HooksRan()) == ""


def test_a_list_that_came_before_the_certificate_was_known_counts_too(duo: Room) -> None:
    """After a start the roster-sync worker may be quicker than the renewal worker."""
    birch = duo["birch"]
    revoke(duo, "birch")
    birch.restart()
    carry(duo, "birch")
    birch.restart()
    assert told(birch, HooksRan()) == "revoked"


def test_what_hooks_were_told_they_are_not_told_again(duo: Room) -> None:
    """Once per identity, also after another start and another list."""
    birch = revoked(duo, "birch")
    assert told(birch, HooksRan()) == "revoked"
    birch.restart()
    assert told(birch, HooksRan()) == ""
    birch.note_certificate()
    assert told(birch, HooksRan()) == ""


def test_another_identity_of_the_node_is_told_of_its_own_revocation(duo: Room) -> None:
    """Who joined again may be revoked again."""
    birch = revoked(duo, "birch")
    assert told(birch, HooksRan()) == "revoked"
    state = birch.office.desk.state
    assert state.membership is not None
    again = msgspec.structs.replace(state.membership, member_id="ab" * 8)
    birch.restart(lambda: write_membership(birch.office.paths, again))
    assert told(birch, HooksRan()) == "revoked"


def test_what_hooks_wait_for_survives_a_crash_also_while_it_is_leased(duo: Room) -> None:
    """At least once: a worker and the broker may be killed at any instant."""
    birch = revoked(duo, "birch")
    birch.restart()
    _, lease = leased(birch)
    assert lease is not None
    birch.restart()
    assert told(birch, HooksRan()) == "revoked"


def test_it_is_leased_to_one_worker_at_a_time(duo: Room) -> None:
    """Two runs of one hook side by side are one too many."""
    birch = revoked(duo, "birch")
    assert leased(birch)[1] is not None
    other = birch.office.introduce(Service.RENEWAL, "renewal-1")
    assert birch.office.send(other, LeaseWork(), WorkAnswer).lease is None


@pytest.mark.parametrize("failure", [HooksRan("hook web exit 1"), Failed("disk full")])
def test_a_failed_hook_is_told_again_later_and_given_up_in_the_end(
    duo: Room, failure: WorkResult
) -> None:
    """It may be busy for a moment; nothing waits for it, so it need not be told for ever."""
    birch = revoked(duo, "birch")
    for _ in range(TRIES_MAX):
        assert told(birch, failure) == "revoked"
        assert told(birch, failure) == "", "it rests"
        duo.clock.push(61_000)
    assert told(birch, failure) == ""
    birch.restart()
    assert told(birch, failure) == ""


def test_only_its_own_result_ends_it(duo: Room) -> None:
    """An installation is no outcome of telling hooks."""
    birch = revoked(duo, "birch")
    identity, lease = leased(birch)
    assert lease is not None
    wrong = CompleteWork(lease.lease_id, Installed("aa", "served", ""))
    with pytest.raises(ForbiddenError):
        birch.office.send(identity, wrong, Ack)
    assert told(birch, HooksRan()) == "revoked"


@pytest.fixture
def changing(home: Path) -> Iterator[RolloverRoom]:
    """Atlas and pi, whose CA is about to be replaced."""
    with pushed_clock() as clock:
        yield RolloverRoom.begin(home, clock, "pi")


def roots_of(changing: RolloverRoom) -> tuple[str, ...]:
    """Return the roots in the chain file of pi."""
    return changing["pi"].office.desk.state.own.roots


def test_hooks_are_told_of_each_change_of_the_ca_and_not_of_the_first_one(
    changing: RolloverRoom,
) -> None:
    """Another root is trusted, it signs, the old one is gone: after the chain file has it."""
    changing.run(5_000)
    assert changing.told == []
    old, new = changing.pin, changing.start().next_pin
    everybody = {("atlas", "ca_changed"), ("pi", "ca_changed")}

    def all_told() -> bool:
        return set(changing.told) == everybody

    changing.run(300_000, until=all_told)
    assert roots_of(changing) == (old, new)
    changing.told.clear()
    changing.finish()
    changing.run(300_000, until=all_told)
    assert roots_of(changing) == (new, old)
    changing.told.clear()
    changing.run(300_000, until=all_told)
    assert roots_of(changing) == (new,)
    assert sorted(changing.told) == sorted(everybody)


def test_a_root_that_is_trusted_and_not_yet_in_the_chain_file_is_no_change(
    changing: RolloverRoom,
) -> None:
    """The hook copies that file: it must find the new one there."""
    changing.run(5_000)
    changing.idle.add("pi")
    changing.start()
    changing.run(30_000)
    assert len(changing.trusts(changing["pi"])) == 2
    assert ("pi", "ca_changed") not in changing.told
    changing.idle.clear()
    changing.run(300_000, until=lambda: ("pi", "ca_changed") in changing.told)


def with_both_roots(changing: RolloverRoom) -> tuple[Node, str, str]:
    """Start a rollover; return pi, which trusts both roots and renews no more, and the roots."""
    changing.run(5_000)
    changing.idle.add("pi")
    old, new = changing.pin, changing.start().next_pin
    changing.run(30_000)
    return changing["pi"], old, new


def test_a_change_that_no_hook_was_told_of_survives_a_crash(changing: RolloverRoom) -> None:
    """After the crash the new chain file is all there is: it looks as if nothing had changed."""
    pi, old, new = with_both_roots(changing)
    changing.say(pi, (old, new))
    changing.back(pi, (old, new))
    assert told(pi, HooksRan()) == "ca_changed"
    changing.back(pi, (old, new))
    assert told(pi, HooksRan()) == ""


def test_a_rollback_to_a_chain_file_of_before_is_no_change_of_the_ca(
    changing: RolloverRoom,
) -> None:
    """It tells of a hook that failed; the CA is what it was told to be."""
    pi, old, new = with_both_roots(changing)
    changing.say(pi, (old, new))
    assert told(pi, HooksRan()) == "ca_changed"
    changing.say(pi, (old,))
    changing.say(pi, (old, new))
    for _ in range(2):
        _, lease = leased(pi)
        assert lease is None or not isinstance(lease.item, RunHooks)


def write_lists(node: Node, text: str) -> None:
    """Play the roster-sync worker: the file is replaced whole."""
    place = private_directory(node.office.paths.trust)
    write_atomic(place / "crl.pem", text.encode())


def test_hooks_are_told_when_the_file_of_revocation_lists_has_another_content(
    duo: Room,
) -> None:
    """Servers read it when they are reloaded: without that a revocation reaches none of them."""
    birch = duo["birch"]
    birch.note_certificate()
    assert told(birch, HooksRan()) == ""
    for text in ("first", "second"):
        write_lists(birch, text)
        birch.note_certificate()
        assert told(birch, HooksRan()) == "crl_changed"
        assert told(birch, HooksRan()) == ""
    write_lists(birch, "second")
    birch.note_certificate()
    assert told(birch, HooksRan()) == "", "another file with the same content"


def test_a_change_of_the_lists_while_the_broker_was_away_is_told(duo: Room) -> None:
    """What was told last is durable, and so is what is still to be told."""
    birch = duo["birch"]
    write_lists(birch, "first")
    birch.note_certificate()
    birch.restart()
    assert told(birch, HooksRan()) == "crl_changed"
    birch.restart()
    assert told(birch, HooksRan()) == ""
    birch.restart(lambda: write_lists(birch, "second"))
    assert told(birch, HooksRan()) == "crl_changed"


@pytest.mark.parametrize("event", ["revoked", "crl_changed"])
def test_what_was_found_in_a_drain_that_was_lost_is_found_again(duo: Room, event: str) -> None:
    """The disk was full for a moment; nothing else comes to make the node look."""
    birch = duo["birch"]
    birch.note_certificate()
    if event == "revoked":
        revoke(duo, "birch")
        carry(duo, "birch")
    else:
        write_lists(birch, "first")
    desk = birch.office.desk
    batch = desk.open_batch()
    note_happenings(desk.state, batch)
    batch.rollback()
    birch.note_certificate()
    assert told(birch, HooksRan()) == event
