"""Secrets that the settings name by file: never in the settings, never open to others."""

import os
import stat
from pathlib import Path

from broker.errors import SettingsError

SECRET_BYTES_MIN = 16
SECRET_BYTES_MAX = 4096
OTHERS = stat.S_IRWXG | stat.S_IRWXO


def read_secret_file(path: Path, setting: str, bytes_min: int = SECRET_BYTES_MIN) -> bytes:
    """Return the secret in a file that nobody else may read, without the newline at its end.

    Args:
        path: The file.
        setting: What named it, for errors.
        bytes_min: A secret that others chose, a password, may be shorter than ours.

    Raises:
        SettingsError: Missing, of another owner, open to others, too short or too long.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            found = os.fstat(file.fileno())
            secret = file.read(SECRET_BYTES_MAX + 1).rstrip(b"\r\n")
    except OSError as error:
        raise SettingsError(
            f"{setting}: cannot read {path}: {error.strerror}",
            hint=f"umask 077; openssl rand -hex 32 > {path}",
        ) from None
    if found.st_mode & OTHERS or found.st_uid not in {0, os.geteuid()}:
        raise SettingsError(
            f"{setting}: {path} is open to other users or belongs to one",
            hint=f"chown and chmod 600 {path}, and draw a new secret",
        )
    if not bytes_min <= len(secret) <= SECRET_BYTES_MAX:
        raise SettingsError(
            f"{setting}: {path} has {len(secret)} bytes",
            hint=f"use {bytes_min} to {SECRET_BYTES_MAX}, such as openssl rand -hex 32",
        )
    return secret
