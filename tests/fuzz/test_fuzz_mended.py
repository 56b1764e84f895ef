"""What fuzzing found and a single input cannot show; the rest are files in `corpus/`."""

from pathlib import Path

import msgspec
import pytest

from broker.core.own import OwnCertificate
from broker.errors import MalformedMessageError
from broker.pki.crl import LISTS_MAX, read_lists
from broker.units import UnixSeconds
from broker.wire.console_api import HookRun
from broker.wire.control import Ack
from broker.wire.ids import Service
from broker.wire.plain import decode_json
from broker.wire.renewal import NoteOwnCertificate
from tests.fuzz.target import attempt
from tests.fuzz.targets import TARGETS
from tests.fuzz.targets_pki import _crl_pem
from tests.shell.office import Office
from tests.wire.samples import sample


@pytest.mark.parametrize("not_after", [0, 1_000, 2_000, 2_060])
def test_a_certificate_that_ends_before_it_begins_is_due_and_stops_no_broker(
    not_after: int,
) -> None:
    """A renewal worker reports it; `status` computed a lifetime of it and the broker died."""
    own = OwnCertificate(
        known=True,
        present=True,
        serial="0a",
        not_before=UnixSeconds(2_000),
        not_after=UnixSeconds(not_after),
    )
    for pulls in (True, False):
        assert own.due_at(fraction=0.667, pulls=pulls) == 0


def test_a_report_without_a_serial_is_refused_and_the_one_before_stays(home: Path) -> None:
    """Looking for no number in a revocation list ended the broker, found by coverage."""
    office = Office.create(home)
    report = msgspec.structs.replace(sample(NoteOwnCertificate), present=True, serial="0a")
    office.ask(Service.RENEWAL, report, Ack)
    with pytest.raises(MalformedMessageError):
        office.ask(Service.RENEWAL, msgspec.structs.replace(report, serial=""), Ack)
    assert office.desk.state.own.serial == "0a"
    office.ledger.close()


def test_a_text_with_several_lists_is_still_read_in_its_order() -> None:
    """The scanner that replaced a quadratic expression finds what that one found."""
    both = read_lists(b"some words\n" + _crl_pem())
    assert len(both) == 2
    assert both[0] == both[1]
    with pytest.raises(ValueError, match="too many"):
        read_lists(_crl_pem() * LISTS_MAX)
    with pytest.raises(ValueError, match="no list"):
        read_lists(b"-----BEGIN X509 CRL-----\n")


def test_reading_lists_takes_time_by_their_length_alone() -> None:
    """A peer may send a mebibyte of beginnings; the broker reads it on its loop (P10)."""
    attempt(TARGETS["crl-pem"], b"-----BEGIN X509 CRL-----\n" * 40_000)


def test_plain_json_is_read_as_ever() -> None:
    """The one reader of this node's own files gives what is in them."""
    run = sample(HookRun)
    assert decode_json(msgspec.json.encode(run), HookRun) == run
