"""The webhook decider against a real HTTPS server: only a signed answer to this question counts."""

import hashlib
import hmac
import logging
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest

from broker.clock import boottime_ms
from broker.errors import LeaseLostError, SettingsError
from broker.runtime.events import EventName
from broker.runtime.paths import Paths
from broker.runtime.settings import Settings, parse_settings
from broker.wire.base import Reply, Request
from broker.wire.liveness import Beat
from broker.wire.work import CompleteWork, Decided, ExtendLease, ReleaseLease
from tests.support import eventually
from tests.workers.approval_office import ITEM, Office
from tests.workers.fake_node import FakeNode, Page, Visit
from tests.workers.loop_desk import logged, run_module
from tests.workers.small_ca import SmallCA, pem
from workers.approval.dialogue import SIGNATURE_HEADER, TIMESTAMP_HEADER
from workers.approval.loop import ApprovalLoop
from workers.approval.webhook import Receiver, WebhookDecider, receiver_of
from workers.secretfile import read_secret_file
from workers.webcall import public_context

SECRET = b"5f2c9f2e41f14b8c93d15a5ce6d14a02"
DEFERRED = Decided(approve=None, operator="", reason="")
YES = {"decision": "approve", "operator": "anna", "reason": ""}


@dataclass
class Ticketing:
    """Whoever is behind the webhook; answers in turn, the last answer for ever."""

    turns: list[Callable[[Visit], Page | None]] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)

    def respond(self, visit: Visit) -> Page | None:
        """Answer one POST."""
        turn = self.turns.pop(0) if len(self.turns) > 1 else self.turns[0]
        return turn(visit)

    def hang(self, _visit: Visit) -> None:
        """Say nothing until the test is over."""
        self.released.wait(30)

    def says(self, answer: object, secret: bytes = SECRET) -> Callable[[Visit], Page]:
        """Return a turn that answers with this, signed for the question."""

        def turn(visit: Visit) -> Page:
            body = answer if isinstance(answer, bytes) else msgspec.json.encode(answer)
            asked = visit.headers[SIGNATURE_HEADER].removeprefix("v1=")
            # By hand, as the documentation says it: a receiver is written in any language.
            text = b"\n".join((b"certmesh-approval-answer-v1", asked.encode(), body))
            signature = hmac.new(secret, text, hashlib.sha256).hexdigest()
            return Page(body, headers={SIGNATURE_HEADER: f"v1={signature}"})

        return turn


@dataclass
class Place:
    """The decider, its broker and its receiver."""

    office: Office
    server: FakeNode
    ticketing: Ticketing
    receiver: Receiver

    def decided(self, *turns: Callable[[Visit], Page | None], **changes: Any) -> Decided:
        """Return what one round reports after the receiver took these turns."""
        self.round(*turns, **changes)
        return self.office.result()

    def round(self, *turns: Callable[[Visit], Page | None], **changes: Any) -> None:
        """Run one round."""
        self.ticketing.turns = list(turns)
        receiver = Receiver(**{**_fields(self.receiver), **changes})
        self.office.round(ApprovalLoop(WebhookDecider(receiver)))

    @property
    def posts(self) -> list[Visit]:
        """What arrived at the receiver."""
        return self.server.seen("/hook")


def _fields(receiver: Receiver) -> dict[str, Any]:
    return {name: getattr(receiver, name) for name in Receiver.__slots__}


@pytest.fixture(scope="module")
def ca() -> SmallCA:
    """Whoever signed the receiver's certificate."""
    return SmallCA()


@pytest.fixture
def place(paths: Paths, settings: Settings, ca: SmallCA) -> Iterator[Place]:
    """A receiver on loopback and one join to decide."""
    ticketing, office = Ticketing(), Office(paths, settings)
    ca_file = paths.home / "hook-ca.pem"
    ca_file.write_bytes(pem(ca.root))
    with FakeNode(ca, {("POST", "/hook"): ticketing.respond}) as server:
        receiver = Receiver(
            url=f"{server.url}/hook",
            secret=SECRET,
            context=public_context(ca_file),
            timeout_ms=5000,
            retries=2,
            total_ms=20_000,
            backoff_ms=10,
        )
        yield Place(office, server, ticketing, receiver)
        ticketing.released.set()
    office.stop.close()


def test_a_signed_yes_lets_the_host_in_under_the_name_of_whoever_gave_it(place: Place) -> None:
    """The journal says that a person decided, and by which way."""
    found = place.decided(place.ticketing.says(YES))

    assert found == Decided(approve=True, operator="anna (by webhook)", reason="")


def test_a_signed_no_is_a_no_with_its_reason(place: Place) -> None:
    """The joiner is told why."""
    answer = {"decision": "deny", "operator": "anna", "reason": "unknown box\x1b[2J"}
    found = place.decided(place.ticketing.says(answer))

    assert (found.approve, found.operator) == (False, "anna (by webhook)")
    assert found.reason == "unknown box\N{REPLACEMENT CHARACTER}[2J"


def test_a_person_may_answer_later(place: Place) -> None:
    """A chat message is not read in ten seconds: 202, or a signed `defer`."""
    assert place.decided(place.ticketing.says({"decision": "defer"})) == DEFERRED


def test_accepted_leaves_the_request_in_the_queue(place: Place) -> None:
    """202 decides nothing, so it needs no signature."""
    assert place.decided(lambda _: Page(b"", 202)) == DEFERRED
    assert len(place.posts) == 1


def test_the_question_is_signed_over_its_time_and_carries_all_a_person_needs(place: Place) -> None:
    """As documented: a receiver in any language can check it."""
    place.office.items = [msgspec.structs.replace(ITEM, note="replaces nas", mesh="home")]
    place.round(place.ticketing.says(YES))

    (post,) = place.posts
    stamp = post.headers[TIMESTAMP_HEADER]
    text = b"certmesh-approval-question-v1\n" + stamp.encode() + b"\n" + post.body
    expected = hmac.new(SECRET, text, hashlib.sha256).hexdigest()
    assert post.headers[SIGNATURE_HEADER] == f"v1={expected}"
    asked = msgspec.json.decode(post.body)
    assert asked.pop("nonce")
    assert asked == {
        "approval_id": ITEM.approval_id,
        "mesh": "home",
        "host": ITEM.host,
        "sans": list(ITEM.sans),
        "source": ITEM.source,
        "method": "totp",
        "key_fingerprint": ITEM.key_fingerprint,
        "words": list(ITEM.words),
        "note": "replaces nas",
    }
    assert SECRET not in post.body


WRONG: dict[str, Callable[[Ticketing], Callable[[Visit], Page | None]]] = {
    "no signature": lambda _: lambda _: Page(msgspec.json.encode(YES)),
    "another secret": lambda who: who.says(YES, b"somebody else's secret"),
    "not json": lambda who: who.says(b"yes"),
    "unknown decision": lambda who: who.says({"decision": "allow", "operator": "anna"}),
    "nobody's name": lambda who: who.says({"decision": "approve"}),
    "a name that looks like two": lambda who: who.says({**YES, "operator": "anna (as root)"}),
    "not allowed": lambda _: lambda _: Page(b"", 403),
    "no content": lambda _: lambda _: Page(b"", 204),
    "too large": lambda who: who.says(msgspec.json.encode(YES) + b" " * 70_000),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_an_answer_that_proves_nothing_decides_nothing(
    place: Place, wrong: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither approved nor denied: the request stays in the queue, and the log says why."""
    caplog.set_level(logging.DEBUG, "certmesh")

    assert place.decided(WRONG[wrong](place.ticketing)) == DEFERRED

    (line,) = logged(caplog, EventName.APPROVAL_DEFERRED)
    assert "webhook did not decide" in line["reason"]
    assert len(place.posts) == 1
    assert SECRET.decode() not in caplog.text


def test_an_echo_of_the_question_is_no_answer(place: Place) -> None:
    """A receiver that echoes what it gets has agreed to nothing."""

    def echo(visit: Visit) -> Page:
        return Page(visit.body, headers={SIGNATURE_HEADER: visit.headers[SIGNATURE_HEADER]})

    assert place.decided(echo) == DEFERRED


def test_an_old_yes_cannot_be_played_again(place: Place) -> None:
    """The same request asked again is another question: its nonce is fresh."""
    place.office.items = [ITEM, ITEM]
    pages: list[Page] = []

    def first(visit: Visit) -> Page:
        pages.append(place.ticketing.says(YES)(visit))
        return Page(b"", 503)

    assert place.decided(first, lambda _: pages[0]) == DEFERRED
    before, after = place.posts[:2]
    assert before.body != after.body


def test_a_server_in_trouble_is_asked_again(place: Place) -> None:
    """A restart of the receiver costs a moment, not the answer."""
    found = place.decided(
        lambda _: Page(b"", 500), lambda _: None, place.ticketing.says(YES), retries=3
    )

    assert found.approve is True
    assert len(place.posts) == 3


def test_after_the_retries_the_request_is_left_to_a_person(place: Place) -> None:
    """Never approved because nobody could be reached; never denied either."""
    assert place.decided(lambda _: Page(b"", 500)) == DEFERRED
    assert len(place.posts) == 3


def test_a_server_that_hangs_costs_its_timeout_and_no_more(place: Place) -> None:
    """And the worker beats and keeps its lease meanwhile."""
    place.office.ttl_ms = 300
    beats = len(place.office.broker.seen(Beat))

    found = place.decided(place.ticketing.hang, timeout_ms=600, retries=1)

    assert found == DEFERRED
    assert len(place.posts) == 2
    assert place.office.broker.seen(ExtendLease)
    assert len(place.office.broker.seen(Beat)) > beats


def test_all_attempts_together_end_with_the_approval_timeout(place: Place) -> None:
    """Twenty retries of a dead server must not hold the queue up for an hour."""
    place.decided(place.ticketing.hang, timeout_ms=300, retries=20, total_ms=500)

    assert len(place.posts) <= 2


def test_a_stop_while_the_receiver_thinks_hands_the_request_back_at_once(place: Place) -> None:
    """The process must be able to end, whatever the other side does."""

    def stop_when_asked() -> None:
        eventually(lambda: place.posts)
        place.office.stop.ask()

    stopping = threading.Thread(target=stop_when_asked)
    stopping.start()
    began_ms = boottime_ms()
    place.round(place.ticketing.hang, timeout_ms=15_000)
    stopping.join()
    assert boottime_ms() - began_ms < 10_000

    assert place.office.broker.seen(ReleaseLease)
    assert not place.office.broker.seen(CompleteWork)
    eventually(lambda: not [t for t in threading.enumerate() if t.name == "webhook"])


def test_a_question_that_went_to_another_worker_is_cut(place: Place) -> None:
    """A late yes must not complete another worker's question."""
    place.office.ttl_ms = 300

    def lost(_: Request) -> Reply:
        raise LeaseLostError("lease 7 ended")

    place.office.extra[ExtendLease] = lost
    place.round(place.ticketing.hang, timeout_ms=30_000)

    assert not place.office.broker.seen(CompleteWork)
    eventually(lambda: not [t for t in threading.enumerate() if t.name == "webhook"])


def test_a_redirect_is_not_followed(place: Place) -> None:
    """The question is for one receiver; where it points is nobody the operator chose."""
    elsewhere = {"Location": f"{place.server.url}/elsewhere"}

    assert place.decided(lambda _: Page(b"", 307, dict(elsewhere))) == DEFERRED
    assert len(place.posts) == 1
    assert not place.server.seen("/elsewhere")


def test_a_receiver_that_cannot_prove_its_name_is_told_nothing(place: Place, paths: Paths) -> None:
    """Another CA's certificate, and a certificate of the right CA for another name."""
    other = paths.home / "other-ca.pem"
    other.write_bytes(pem(SmallCA("evil").root))

    foreign = {"context": public_context(other), "retries": 0}
    assert place.decided(place.ticketing.says(YES), **foreign) == DEFERRED
    assert place.posts == []


def test_the_name_in_the_url_is_what_counts(place: Place) -> None:
    """`localhost` is not in the certificate, though the same server answers there."""
    url = place.receiver.url.replace("127.0.0.1", "localhost")

    assert place.decided(place.ticketing.says(YES), url=url, retries=0) == DEFERRED
    assert place.posts == []


def test_the_environment_cannot_change_whom_to_trust_or_ask(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy or CA bundle from the environment would see every question."""
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere")

    assert place.decided(place.ticketing.says(YES)).approve is True


def hook_settings(**fields: str) -> Settings:
    """Return settings whose decider is the webhook."""
    usual = {"webhook": "https://tickets.home.arpa/hook", "webhook_secret_file": "hook.secret"}
    return parse_settings({"approval": {"decider": "webhook", **usual, **fields}}, "test")


@pytest.mark.parametrize(
    "fields",
    [
        {"webhook": "http://tickets.home.arpa/hook"},
        {"webhook": "tickets.home.arpa"},
        {"webhook": "https:///hook"},
        {"webhook": "https://anna:secret@tickets.home.arpa/hook"},
        {"webhook": ""},
        {"webhook_secret_file": ""},
    ],
)
def test_settings_refuse_a_webhook_without_tls_or_without_a_secret(fields: dict[str, str]) -> None:
    """Plain HTTP would show every join to the LAN, and let anybody there approve it."""
    with pytest.raises(SettingsError, match="webhook"):
        hook_settings(**fields)


def test_a_process_with_a_plain_http_webhook_ends_with_78(paths: Paths) -> None:
    """Bad settings are not a crash: the supervisor must not try for ever."""
    with paths.settings.open("a") as file:
        file.write('[approval]\ndecider = "webhook"\nwebhook = "http://tickets.home.arpa/"\n')
    process = run_module("workers.approval", paths, "--once")
    output, _ = process.communicate(timeout=20)

    assert process.returncode == 78, output
    assert "always https" in output


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620])
def test_a_secret_that_others_may_read_is_refused(home: Path, mode: int) -> None:
    """Whoever has the secret can approve anybody."""
    path = home / "hook.secret"
    path.write_bytes(SECRET + b"\n")
    path.chmod(mode)
    with pytest.raises(SettingsError, match="open to other users") as refusal:
        read_secret_file(path, "approval.webhook_secret_file")
    assert SECRET.decode() not in refusal.value.detail

    path.chmod(0o600)
    assert read_secret_file(path, "approval.webhook_secret_file") == SECRET


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_secret_of_another_user_is_refused(home: Path) -> None:
    """Its owner knows it, and can change it."""
    path = home / "hook.secret"
    path.write_bytes(SECRET)
    path.chmod(0o600)
    os.chown(path, 4711, 4711)
    with pytest.raises(SettingsError, match="belongs to one"):
        read_secret_file(path, "approval.webhook_secret_file")


def test_a_missing_or_short_secret_is_refused(home: Path) -> None:
    """An empty file is the signature anybody can make."""
    settings = hook_settings().approval
    with pytest.raises(SettingsError, match="cannot read"):
        receiver_of(settings, home)
    path = home / "hook.secret"
    path.touch(0o600)
    with pytest.raises(SettingsError, match="has 0 bytes"):
        receiver_of(settings, home)
    path.write_bytes(SECRET)
    receiver = receiver_of(settings, home)
    assert receiver.secret == SECRET
    assert SECRET.decode() not in repr(receiver)
    with pytest.raises(SettingsError, match="webhook_ca_file"):
        receiver_of(hook_settings(webhook_ca_file="none.pem").approval, home)


def test_one_round_as_a_process_asks_the_webhook(place: Place, paths: Paths) -> None:
    """The settings file alone is enough."""
    secret = paths.home / "hook.secret"
    secret.write_bytes(SECRET)
    secret.chmod(0o600)
    with paths.settings.open("a") as file:
        file.write(
            f'[approval]\ndecider = "webhook"\nwebhook = "{place.receiver.url}"\n'
            'webhook_secret_file = "hook.secret"\nwebhook_ca_file = "hook-ca.pem"\n'
        )
    place.ticketing.turns = [place.ticketing.says(YES)]
    with place.office.broker:
        process = run_module("workers.approval", paths, "--once")
        output, _ = process.communicate(timeout=20)

    assert process.returncode == 0, output
    assert place.office.result().operator == "anna (by webhook)"
