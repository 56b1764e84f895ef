"""Mail against a real SMTP server on loopback, with real TLS of a CA of our own."""

import msgspec
import pytest

from broker.errors import SettingsError
from broker.runtime.paths import Paths
from tests.workers.mail_sink import MailSink, server_context
from tests.workers.notify_place import NOTICE, notify_of, write_secret
from tests.workers.small_ca import SmallCA, pem
from workers.notify.logic import NotTakenError
from workers.notify.mail import Mail
from workers.wires import Wires

PEOPLE = {"smtp_from": "certmesh@example.org", "smtp_to": ["ops@example.org", "ann@example.org"]}
LOGIN = {"smtp_user": "certmesh", "smtp_password_file": "mail.password"}


@pytest.fixture(scope="module")
def ca() -> SmallCA:
    """Whoever signed the mail server's certificate."""
    return SmallCA()


@pytest.fixture
def trust(paths: Paths, ca: SmallCA) -> dict[str, str]:
    """Settings that trust it."""
    (paths.home / "ca.pem").write_bytes(pem(ca.root))
    return {"ca_file": "ca.pem"}


def test_a_relay_on_this_machine_gets_a_plain_mail(paths: Paths) -> None:
    """Who, what, why and what to do, in a mail that says that no person wrote it."""
    with MailSink() as sink:
        notify = notify_of(smtp=f"smtp+plain://{sink.place}", **PEOPLE)
        assert Mail(notify, paths.home).deliver(NOTICE, Wires()) == ""
        (mail,) = sink.mails
    assert mail.recipients == ["ops@example.org", "ann@example.org"]
    assert "Subject: [certmesh home] nas rolled its renewal back" in mail.text
    assert f"Message-ID: <{NOTICE.notice_id}@example.org>" in mail.text
    assert "Auto-Submitted: auto-generated" in mail.text
    assert "on nas: certmesh hook log" in mail.text


def test_starttls_is_used_where_it_is_offered(
    paths: Paths, ca: SmallCA, trust: dict[str, str]
) -> None:
    """And then the password goes over it."""
    write_secret(paths, "mail.password", b"hunter2")
    with MailSink(starttls=server_context(ca)) as sink:
        notify = notify_of(smtp=f"smtp://{sink.place}", **PEOPLE, **LOGIN, **trust)
        Mail(notify, paths.home).deliver(NOTICE, Wires())
        (mail,) = sink.mails
    assert (mail.secure, mail.login) == (True, "|certmesh|hunter2")


def test_tls_from_the_first_byte(paths: Paths, ca: SmallCA, trust: dict[str, str]) -> None:
    """`smtps://`, with the name in the address verified."""
    with MailSink(implicit=server_context(ca)) as sink:
        notify = notify_of(smtp=f"smtps://{sink.place}", **PEOPLE, **trust)
        Mail(notify, paths.home).deliver(NOTICE, Wires())
        assert sink.mails[0].secure


def test_a_password_is_never_sent_without_tls(paths: Paths) -> None:
    """Somebody between us and the server took the offer of STARTTLS out."""
    write_secret(paths, "mail.password", b"hunter2")
    with MailSink() as sink:
        notify = notify_of(smtp=f"smtp://{sink.place}", **PEOPLE, **LOGIN)
        with pytest.raises(NotTakenError, match="offers no STARTTLS"):
            Mail(notify, paths.home).deliver(NOTICE, Wires())
        assert (sink.mails, sink.logins) == ([], [])


@pytest.mark.parametrize("kind", ["smtp", "smtps"])
def test_a_server_that_is_not_trusted_gets_no_mail(
    paths: Paths, ca: SmallCA, trust: dict[str, str], kind: str
) -> None:
    """No fall-back to plain text either."""
    other = server_context(SmallCA())
    how = {"starttls": other} if kind == "smtp" else {"implicit": other}
    del ca
    with MailSink(**how) as sink:
        notify = notify_of(smtp=f"{kind}://{sink.place}", **PEOPLE, **trust)
        with pytest.raises(NotTakenError, match="not trusted"):
            Mail(notify, paths.home).deliver(NOTICE, Wires())
        assert sink.mails == []


def test_the_name_in_the_address_is_what_is_verified(
    paths: Paths, ca: SmallCA, trust: dict[str, str]
) -> None:
    """A certificate of the right CA for somebody else is the wrong one."""
    with MailSink(implicit=server_context(ca)) as sink:
        place = sink.place.replace("127.0.0.1", "localhost")
        notify = notify_of(smtp=f"smtps://{place}", **PEOPLE, **trust)
        with pytest.raises(NotTakenError):
            Mail(notify, paths.home).deliver(NOTICE, Wires())
        assert sink.mails == []


def test_a_server_that_refuses_says_why(paths: Paths) -> None:
    """On one line: it ends in a log and on a screen."""
    with MailSink(mail=b"554 \x1b[2Jno spam") as sink:
        notify = notify_of(smtp=f"smtp+plain://{sink.place}", **PEOPLE)
        with pytest.raises(NotTakenError) as found:
            Mail(notify, paths.home).deliver(NOTICE, Wires())
    assert found.value.detail == "answered 554:  [2Jno spam"


def test_one_address_that_is_refused_does_not_keep_the_mail_from_the_other(paths: Paths) -> None:
    """Who was refused is said; sending again would tell the other twice."""
    with MailSink(refused=("ann@",)) as sink:
        notify = notify_of(smtp=f"smtp+plain://{sink.place}", **PEOPLE)
        assert Mail(notify, paths.home).deliver(NOTICE, Wires()) == "refused for ann@example.org"
        assert sink.mails[0].recipients == ["ops@example.org"]


def test_when_everybody_is_refused_the_mail_was_not_taken(paths: Paths) -> None:
    """Else a typing error in `smtp_to` would look like success for ever."""
    with MailSink(refused=("example",)) as sink:
        notify = notify_of(smtp=f"smtp+plain://{sink.place}", **PEOPLE)
        with pytest.raises(NotTakenError, match="every recipient"):
            Mail(notify, paths.home).deliver(NOTICE, Wires())


def test_a_hostile_name_stays_inside_the_subject(paths: Paths) -> None:
    """No recipient of its own, no body of its own."""
    hostile = msgspec.structs.replace(
        NOTICE,
        summary="nas\r\nBcc: all@example.org\r\n\r\nhello",
        subject="nas\r\n.\r\nMAIL FROM:x",
    )
    with MailSink() as sink:
        notify = notify_of(smtp=f"smtp+plain://{sink.place}", **PEOPLE)
        Mail(notify, paths.home).deliver(hostile, Wires())
        (mail,) = sink.mails
    head = mail.text.partition("\r\n\r\n")[0]
    assert not [line for line in head.splitlines() if line.startswith("Bcc")]
    assert sum(word.upper().startswith("MAIL FROM") for word in sink.words) == 1


def test_a_server_that_never_greets_is_given_up(paths: Paths) -> None:
    """The rest waits for nobody."""
    with MailSink(hangs=True) as sink:
        notify = notify_of(smtp=f"smtp+plain://{sink.place}", timeout="300ms", **PEOPLE)
        with pytest.raises(NotTakenError, match="did not answer in time"):
            Mail(notify, paths.home).deliver(NOTICE, Wires())


def test_a_password_file_that_others_can_read_is_not_used(paths: Paths) -> None:
    """It is no secret any more."""
    write_secret(paths, "mail.password", b"hunter2", 0o644)
    notify = notify_of(smtp="smtp://127.0.0.1:9", **PEOPLE, **LOGIN)
    with pytest.raises(SettingsError, match="smtp_password_file"):
        Mail(notify, paths.home).deliver(NOTICE, Wires())
