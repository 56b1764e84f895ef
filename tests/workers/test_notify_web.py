"""Webhook and ntfy against real servers: signed, bounded, never redirected, never in the clear."""

import hashlib
import hmac
import json
from collections.abc import Callable

import msgspec
import pytest
import requests

from broker.clock import wall_s
from broker.errors import SettingsError
from broker.runtime.paths import Paths
from tests.workers.fake_node import FakeNode, Page, Visit
from tests.workers.notify_place import NOTICE, PlainServer, notify_of, write_secret
from tests.workers.small_ca import SmallCA, pem
from workers.notify.logic import NotTakenError
from workers.notify.web import Ntfy, Webhook, reason_of
from workers.webcall import public_context, web_session
from workers.wires import Wires

SECRET = b"5f2c9f2e41f14b8c93d15a5ce6d14a02"
HOSTILE = msgspec.structs.replace(
    NOTICE,
    subject="nas\r\nX-Evil: 1",
    summary="caf\u00e9\r\nBcc: everybody\x1b[2J rolled back",
    detail="line\nbreak " + "x" * 5000,
)


@pytest.fixture(scope="module")
def ca() -> SmallCA:
    """Whoever signed the receiver's certificate."""
    return SmallCA()


def trust(paths: Paths, ca: SmallCA) -> str:
    """Write the CA file; return its name."""
    (paths.home / "ca.pem").write_bytes(pem(ca.root))
    return "ca.pem"


def answering(page: Page) -> Callable[[Visit], Page]:
    """Return what always answers with this page."""
    return lambda _: page


def test_a_webhook_gets_the_notice_as_json_over_verified_tls(paths: Paths, ca: SmallCA) -> None:
    """What people's programs read has a schema and a time they can parse."""
    with FakeNode(ca, {("POST", "/hook"): lambda _: Page(b"", 204)}) as server:
        notify = notify_of(webhook=f"{server.url}/hook", ca_file=trust(paths, ca))
        assert Webhook(notify, paths.home).deliver(NOTICE, Wires()) == ""
        (visit,) = server.seen("/hook")
    told = json.loads(visit.body)
    assert (told["schema"], told["at"]) == ("certmesh.notice/1", "2026-11-23T13:20:00Z")
    assert (told["event"], told["subject"]) == ("hook.failed", "nas")
    assert visit.headers["X-Certmesh-Notice"] == NOTICE.notice_id
    assert "X-Certmesh-Signature" not in visit.headers


def test_with_a_secret_the_notice_is_signed_with_its_moment(paths: Paths) -> None:
    """By hand, as the documentation says it: a receiver is written in any language."""
    write_secret(paths, "hook.secret", SECRET)
    with PlainServer() as server:
        notify = notify_of(webhook=server.url, webhook_secret_file="hook.secret")
        Webhook(notify, paths.home).deliver(NOTICE, Wires())
        (visit,) = server.visits
    timestamp = visit.headers["X-Certmesh-Timestamp"]
    assert abs(int(timestamp) - wall_s()) < 30
    text = b"\n".join((b"certmesh-notice-v1", timestamp.encode(), visit.body))
    expected = hmac.new(SECRET, text, hashlib.sha256).hexdigest()
    assert visit.headers["X-Certmesh-Signature"] == f"v1={expected}"


def test_a_server_that_is_not_trusted_learns_nothing(paths: Paths, ca: SmallCA) -> None:
    """The notice names hosts; only the server in the settings may read it."""
    with FakeNode(ca, {("POST", "/hook"): lambda _: Page()}) as server:
        notify = notify_of(webhook=f"{server.url}/hook", ca_file=trust(paths, SmallCA()))
        with pytest.raises(NotTakenError, match="not trusted"):
            Webhook(notify, paths.home).deliver(NOTICE, Wires())
        assert server.seen("/hook") == []


@pytest.mark.parametrize("mode", [0o644, 0o640])
def test_a_secret_that_others_can_read_is_not_used(paths: Paths, mode: int) -> None:
    """It is no secret any more; the target says so and the others go on."""
    write_secret(paths, "hook.secret", SECRET, mode)
    with PlainServer() as server:
        notify = notify_of(webhook=server.url, webhook_secret_file="hook.secret")
        with pytest.raises(SettingsError, match="open to other users"):
            Webhook(notify, paths.home).deliver(NOTICE, Wires())
        assert server.visits == []


@pytest.mark.parametrize("status", [301, 307, 400, 403, 500, 503])
def test_only_success_means_taken(paths: Paths, status: int) -> None:
    """A redirect least of all: nobody chose where it leads."""
    with PlainServer() as other:
        page = Page(b"", status, {"Location": other.url})
        with (
            PlainServer(lambda _: page) as server,
            pytest.raises(NotTakenError, match=f"status {status}"),
        ):
            Webhook(notify_of(webhook=server.url), paths.home).deliver(NOTICE, Wires())
        assert other.visits == []


def test_a_server_says_when_to_come_again(paths: Paths) -> None:
    """429; bounded, because a day would be a way to silence us."""
    for text, wait_ms in (("7", 7_000), ("86400", 3_600_000), ("soon", 0), ("-5", 0)):
        page = Page(b"", 429, {"Retry-After": text})
        with PlainServer(answering(page)) as server:
            with pytest.raises(NotTakenError) as found:
                Webhook(notify_of(webhook=server.url), paths.home).deliver(NOTICE, Wires())
            assert found.value.retry_after_ms == wait_ms


def test_an_endless_answer_is_cut(paths: Paths) -> None:
    """Memory is ours."""
    with (
        PlainServer(lambda _: Page(b"x" * 200_000)) as server,
        pytest.raises(NotTakenError, match="larger than"),
    ):
        Webhook(notify_of(webhook=server.url), paths.home).deliver(NOTICE, Wires())


def test_a_dead_server_is_named_without_its_path(paths: Paths) -> None:
    """The path of a webhook is often all that keeps others out."""
    with PlainServer() as server:
        url = f"{server.url}/T0K3N"
    with pytest.raises(NotTakenError) as found:
        Webhook(notify_of(webhook=url), paths.home).deliver(NOTICE, Wires())
    assert found.value.detail == "refused the connection"


def test_no_error_carries_the_path() -> None:
    """Libraries put the whole address into their errors; they end in logs and on screens."""
    said = "HTTPSConnectionPool(host='h', port=443): Max retries exceeded with url: /T0K3N (odd)"
    assert reason_of(requests.ConnectionError(said)) == "the call failed (ConnectionError)"


def test_the_environment_is_not_asked(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy of somebody's shell must not read who fails in our mesh."""
    with PlainServer() as proxy, PlainServer() as server:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        Webhook(notify_of(webhook=server.url), paths.home).deliver(NOTICE, Wires())
        assert (len(proxy.visits), len(server.visits)) == (0, 1)


def test_plain_http_never_leaves_the_machine() -> None:
    """The settings refuse it; the call does too."""
    with pytest.raises(SettingsError, match="use https"):
        notify_of(webhook="http://10.1.2.3/x")
    with pytest.raises(ValueError, match="this machine"):
        web_session(public_context(None), "http://10.1.2.3/x", Wires())


def test_ntfy_gets_title_priority_tags_and_a_token(paths: Paths) -> None:
    """As ntfy.sh documents them."""
    write_secret(paths, "ntfy.token", b"tk_abc")
    with PlainServer() as server:
        notify = notify_of(ntfy=f"{server.url}/ops", ntfy_token_file="ntfy.token")
        Ntfy(notify, paths.home).deliver(NOTICE, Wires())
        (visit,) = server.visits
    assert visit.headers["Title"] == f"[certmesh home] {NOTICE.summary}"
    assert (visit.headers["Priority"], visit.headers["Tags"]) == ("4", "warning")
    assert visit.headers["Authorization"] == "Bearer tk_abc"
    assert visit.body.decode().splitlines()[:2] == [NOTICE.detail, NOTICE.hint]


def test_a_hostile_name_stays_inside_its_header(paths: Paths) -> None:
    """No header of its own, no control character, nothing longer than ntfy takes."""
    with PlainServer() as server:
        Ntfy(notify_of(ntfy=server.url), paths.home).deliver(HOSTILE, Wires())
        Webhook(notify_of(webhook=server.url), paths.home).deliver(HOSTILE, Wires())
        ntfy, webhook = server.visits
    assert not {"X-Evil", "Bcc"} & {*ntfy.headers, *webhook.headers}
    assert ntfy.headers["Title"].startswith("=?UTF-8?B?")
    assert ntfy.headers["Title"].isascii()
    assert len(ntfy.body) < 4096
    assert json.loads(webhook.body)["subject"] == HOSTILE.subject, "JSON escapes by itself"


def test_a_token_with_a_line_break_is_no_token(paths: Paths) -> None:
    """It would begin a header."""
    write_secret(paths, "ntfy.token", b"tk\r\nX-Evil: 1")
    with PlainServer() as server:
        notify = notify_of(ntfy=server.url, ntfy_token_file="ntfy.token")
        with pytest.raises(NotTakenError, match="holds no token"):
            Ntfy(notify, paths.home).deliver(NOTICE, Wires())
        assert server.visits == []
