"""The account behind a uid, and whether it is one person's or shared.

Root and service accounts are shared: the login name does not say who sat there.
"""

import os
import pwd
from dataclasses import dataclass
from pathlib import PurePath

PERSON_UID_MIN = 1000
"""login.defs(5), UID_MIN: accounts below it are made for services."""
_NO_LOGIN = frozenset({"nologin", "false"})


@dataclass(frozen=True, slots=True)
class Account:
    """Login name, and whether more than one person may use it."""

    name: str
    shared: bool


def account_of(uid: int) -> Account:
    """Return the account of `uid`; one that the machine does not know is nobody's own."""
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        return Account(f"uid:{uid}", shared=True)
    return Account(entry.pw_name, is_shared(uid, entry.pw_shell))


def own_account() -> Account:
    """Return the account this process runs under; the environment is not asked."""
    return account_of(os.getuid())


def is_shared(uid: int, shell: str) -> bool:
    """Whether an account is a service's or root's: nobody's own name."""
    return uid < PERSON_UID_MIN or PurePath(shell).name in _NO_LOGIN
