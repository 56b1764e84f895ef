"""`[notify]`: what cannot be meant is refused at the start, with the key that is wrong."""

from typing import Any

import pytest

from broker.errors import SettingsError
from broker.runtime.settings import NOTICES, Settings, parse_settings

MAIL = {"smtp_from": "certmesh@example.org", "smtp_to": ["ops@example.org"]}


def parsed(**notify: Any) -> Settings:
    """Return the settings with this section."""
    return parse_settings({"notify": notify}, "certmesh.toml")


def test_nobody_is_told_by_default() -> None:
    """What leaves the machine is somebody's choice."""
    assert Settings().notify.targets == ()
    assert Settings().notify.on == NOTICES


def test_every_kind_of_target_can_be_named() -> None:
    """In the order in which they are shown."""
    found = parsed(
        webhook="https://hooks.example.org/x?y=1",
        ntfy="http://[::1]:8080/ops",
        smtp="smtp+plain://127.0.0.1:25",
        **MAIL,
    )
    assert found.notify.targets == ("webhook", "ntfy", "smtp")


@pytest.mark.parametrize(
    ("section", "reason"),
    [
        ({"webhook": "http://10.0.0.1/x"}, "use https"),
        ({"webhook": "http://localhost.evil.example/x"}, "use https"),
        ({"ntfy": "http://ntfy.example.org/ops"}, "use https"),
        ({"webhook": "ftp://hooks.example.org/"}, "begins with https"),
        ({"webhook": "hooks.example.org"}, "is no address"),
        ({"webhook": "https://hooks.example.org/a b"}, "is no address"),
        ({"webhook": "https://h.example.org/\r\nX-Evil: 1"}, "is no address"),
        ({"webhook": "https://h.example.org:99999/"}, "webhook"),
        ({"webhook": "https://user:secret@hooks.example.org/"}, "secrets belong into files"),
        ({"webhook_secret_file": "x"}, "needs webhook"),
        ({"ntfy_token_file": "x"}, "needs ntfy"),
        ({"smtp_to": ["ops@example.org"]}, "need smtp"),
        ({"smtp": "smtp://mail"}, "needs smtp_from and smtp_to"),
        ({"smtp": "mail:25", **MAIL}, "smtp"),
        ({"smtp": "smtp://mail/x", **MAIL}, "smtp://HOST:PORT"),
        ({"smtp": "smtp+plain://10.0.0.1:25", **MAIL}, "on this machine"),
        ({"smtp": "smtp://mail", **MAIL, "smtp_user": "x"}, "come together"),
        (
            {
                "smtp": "smtp+plain://127.0.0.1",
                **MAIL,
                "smtp_user": "x",
                "smtp_password_file": "y",
            },
            "never sent plain",
        ),
        ({"smtp": "smtp://mail", **MAIL, "smtp_to": ["a@b.org\nBcc: c@d.org"]}, "no mail address"),
        ({"smtp": "smtp://mail", **MAIL, "smtp_from": "nobody"}, "no mail address"),
        ({"timeout": "50ms"}, "timeout"),
        ({"timeout": "90s"}, "timeout"),
        ({"on": ["everything"]}, "Invalid enum value"),
    ],
)
def test_what_cannot_be_meant_is_refused(section: dict[str, Any], reason: str) -> None:
    """Before anything starts, and with the section's name."""
    with pytest.raises(SettingsError, match="notify") as found:
        parsed(**section)
    assert reason in found.value.detail
