"""The target that takes mail: one message a notice, over TLS wherever it leaves the machine.

`smtp://` upgrades with STARTTLS when it is offered, and refuses to log in without it; `smtps://` is
TLS from the first byte; `smtp+plain://` is for a relay on this machine. A message keeps its
Message-ID through all retries.
"""

import contextlib
import smtplib
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import EmailMessage
from email.utils import formatdate
from pathlib import Path
from urllib.parse import urlsplit

from broker.runtime.settings import Notify
from broker.wire.notice import Notice
from workers.notify.logic import NotTakenError, lines_of, one_line, title_of
from workers.notify.web import context_of
from workers.secretfile import read_secret_file
from workers.wires import Wires

PORTS = {"smtp": 25, "smtps": 465, "smtp+plain": 25}
PASSWORD_BYTES_MIN = 1
ANSWER_LENGTH_MAX = 160
SILENT = "did not answer in time"


def message_of(notice: Notice, notify: Notify) -> EmailMessage:
    """Return the mail about a notice; a line break cannot get into a header."""
    mail = EmailMessage()
    mail["From"] = notify.smtp_from
    mail["To"] = ", ".join(notify.smtp_to)
    mail["Subject"] = title_of(notice)
    mail["Date"] = formatdate(notice.at)
    mail["Message-ID"] = f"<{notice.notice_id}@{_domain(notify)}>"
    mail["Auto-Submitted"] = "auto-generated"
    mail["X-Certmesh-Event"] = notice.event
    mail.set_content("\n".join(lines_of(notice)) + "\n")
    return mail


@dataclass(frozen=True, slots=True)
class Mail:
    """Sends mail; the password is read each time."""

    notify: Notify
    home: Path
    name: str = "smtp"

    def deliver(self, notice: Notice, wires: Wires) -> str:
        """Return whom the server refused, empty when nobody was.

        Raises:
            NotTakenError: The server could not be reached or took the mail for nobody.
            SettingsError: The file of the password cannot be used.
        """
        password = self._password()
        try:
            with self._connection(wires) as smtp:
                if self.notify.smtp_user:
                    smtp.login(self.notify.smtp_user, password)
                refused = smtp.send_message(message_of(notice, self.notify))
        except smtplib.SMTPException as error:
            raise NotTakenError(_said(error)) from None
        except TimeoutError:
            raise NotTakenError(SILENT) from None
        except ssl.SSLCertVerificationError:
            raise NotTakenError("its certificate is not trusted (notify.ca_file)") from None
        except OSError as error:
            raise NotTakenError(f"cannot be reached: {error.strerror or error}") from None
        return f"refused for {', '.join(refused)}" if refused else ""

    def _password(self) -> str:
        if not self.notify.smtp_user:
            return ""
        path = self.home / self.notify.smtp_password_file
        read = read_secret_file(path, "notify.smtp_password_file", PASSWORD_BYTES_MIN)
        return read.decode(errors="replace")

    @contextlib.contextmanager
    def _connection(self, wires: Wires) -> Iterator[smtplib.SMTP]:
        parts = urlsplit(self.notify.smtp)
        timeout_s, name = self.notify.timeout.seconds, _domain(self.notify)
        context = context_of(self.notify, self.home)
        smtp = (
            smtplib.SMTP_SSL(local_hostname=name, timeout=timeout_s, context=context)
            if parts.scheme == "smtps"
            else smtplib.SMTP(local_hostname=name, timeout=timeout_s)
        )
        host = parts.hostname or ""
        # TLS checks this name; the library takes it from its constructor, which would connect.
        smtp._host = host  # type: ignore[attr-defined]  # noqa: SLF001 (see above)
        try:
            wires.note(smtp)
            smtp.connect(host, parts.port or PORTS[parts.scheme])
            wires.note(smtp)  # cut meanwhile: the library waited for a greeting before
            smtp.ehlo()
            if parts.scheme == "smtp":
                self._upgrade(smtp, context)
            yield smtp
            with contextlib.suppress(smtplib.SMTPException, OSError):
                smtp.quit()
        finally:
            wires.forget(smtp)
            smtp.close()

    def _upgrade(self, smtp: smtplib.SMTP, context: ssl.SSLContext) -> None:
        if smtp.has_extn("starttls"):
            smtp.starttls(context=context)
            smtp.ehlo()
        elif self.notify.smtp_user:
            raise NotTakenError("offers no STARTTLS, and a password is never sent plain")


def _domain(notify: Notify) -> str:
    return notify.smtp_from.rpartition("@")[2]


def _said(error: smtplib.SMTPException) -> str:
    """Return what the server said, on one line."""
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        return "refused every recipient"
    if isinstance(error, smtplib.SMTPResponseException):
        raw = error.smtp_error
        text = raw.decode(errors="replace") if isinstance(raw, bytes) else str(raw)
        return one_line(f"answered {error.smtp_code}: {text}", ANSWER_LENGTH_MAX)
    if "timed out" in str(error):  # the library wraps what its socket says
        return SILENT
    return one_line(f"the call failed ({type(error).__name__}): {error}", ANSWER_LENGTH_MAX)
