"""What `[notify]` may say: addresses that can be meant, and nothing secret in the file itself."""

import ipaddress
from typing import Protocol
from urllib.parse import SplitResult, urlsplit

from broker.runtime.duration import Duration

TIMEOUT_MS_MIN = 100
TIMEOUT_MS_MAX = 40_000
"""Below the lease of a notice, so that whoever waits for a target still holds it."""
MAIL_SCHEMES = ("smtp", "smtps", "smtp+plain")


class Addresses(Protocol):
    """What is looked at here: the section of the settings."""

    @property
    def webhook(self) -> str:
        """Address of a program."""
        ...

    @property
    def webhook_secret_file(self) -> str:
        """File of the secret shared with it."""
        ...

    @property
    def ntfy(self) -> str:
        """Address of an ntfy topic."""
        ...

    @property
    def ntfy_token_file(self) -> str:
        """File of the token for it."""
        ...

    @property
    def smtp(self) -> str:
        """Address of a mail server."""
        ...

    @property
    def smtp_from(self) -> str:
        """Who writes."""
        ...

    @property
    def smtp_to(self) -> tuple[str, ...]:
        """To whom."""
        ...

    @property
    def smtp_user(self) -> str:
        """Name to log in with."""
        ...

    @property
    def smtp_password_file(self) -> str:
        """File of the password for it."""
        ...

    @property
    def timeout(self) -> Duration:
        """Patience with one target."""
        ...


def check_notify(notify: Addresses) -> None:
    """Check the section as a whole.

    Raises:
        ValueError: An address is none, plain text would leave the machine, or a part is missing.
    """
    _check_web("webhook", notify.webhook)
    _check_web("ntfy", notify.ntfy)
    if notify.webhook_secret_file and not notify.webhook:
        raise ValueError("webhook_secret_file needs webhook")
    if notify.ntfy_token_file and not notify.ntfy:
        raise ValueError("ntfy_token_file needs ntfy")
    if not TIMEOUT_MS_MIN <= notify.timeout.ms <= TIMEOUT_MS_MAX:
        raise ValueError(f"timeout is between {TIMEOUT_MS_MIN} ms and {TIMEOUT_MS_MAX // 1000} s")
    _check_mail(notify)


def is_loopback(host: str) -> bool:
    """Whether a host of a URL can only be this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _check_web(name: str, url: str) -> None:
    if not url:
        return
    parts = _split(name, url)
    if parts.scheme not in {"https", "http"}:
        raise ValueError(f"{name} begins with https://")
    if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        raise ValueError(f"{name} is http:// to another machine: use https://")


def _check_mail(notify: Addresses) -> None:
    given = (notify.smtp_from, notify.smtp_to, notify.smtp_user, notify.smtp_password_file)
    if not notify.smtp:
        if any(given):
            raise ValueError("smtp_from, smtp_to, smtp_user and smtp_password_file need smtp")
        return
    parts = _split("smtp", notify.smtp)
    if parts.scheme not in MAIL_SCHEMES or parts.path not in {"", "/"} or parts.query:
        raise ValueError("smtp is smtp://HOST:PORT, smtps://HOST:PORT or smtp+plain://HOST:PORT")
    if not notify.smtp_from or not notify.smtp_to:
        raise ValueError("smtp needs smtp_from and smtp_to")
    for address in (notify.smtp_from, *notify.smtp_to):
        _check_address(address)
    _check_login(notify, parts)


def _check_login(notify: Addresses, parts: SplitResult) -> None:
    if bool(notify.smtp_user) != bool(notify.smtp_password_file):
        raise ValueError("smtp_user and smtp_password_file come together")
    if parts.scheme != "smtp+plain":
        return
    if notify.smtp_user:
        raise ValueError("smtp_user needs smtp:// or smtps://: a password is never sent plain")
    if not is_loopback(parts.hostname or ""):
        raise ValueError("smtp+plain:// is for a relay on this machine: use smtp://")


def _split(name: str, url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    if not parts.hostname or port == 0 or not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError(f"{name} is no address such as https://HOST/PATH")
    if parts.username is not None or parts.password is not None:
        raise ValueError(f"{name} has a user or a password in it: secrets belong into files")
    return parts


def _check_address(address: str) -> None:
    local, at, domain = address.rpartition("@")
    odd = any(not c.isprintable() or c in ' ,;:<>()[]\\"' for c in address)
    if not (local and at and domain) or odd or not address.isascii():
        raise ValueError(f"{address!r} is no mail address such as ops@example.org")
