"""How a person's name is written where a decision is recorded.

An account of one person is that person's name. An account that several people share (root, a
service account) is no name: whoever uses it says who it is, and both are kept: `alice (as root)`.
Without a name it is `unnamed (as root)`, which a mesh that asks for operators refuses.
"""

from broker.errors import MalformedMessageError

OPERATOR_HEADER = "X-Certmesh-Operator"
"""Carries the name on the local socket; believed for shared accounts alone."""
NAME_LENGTH_MAX = 64
_NOBODY = "unnamed"
_BRACKETS = "()"
"""A name must not look like two."""


def check_operator_name(name: str) -> str:
    """Return `name` if a person may be called that.

    Raises:
        MalformedMessageError: Empty, too long, or with something that is no part of a name.
    """
    fits = 0 < len(name) <= NAME_LENGTH_MAX and name == name.strip() and name.isprintable()
    if not fits or name == _NOBODY or any(bracket in name for bracket in _BRACKETS):
        raise MalformedMessageError(
            f"{name[:NAME_LENGTH_MAX]!r} is no name of an operator",
            hint=f"{NAME_LENGTH_MAX} printable characters at most, without brackets",
        )
    return name


def operator_of(account: str, claimed: str) -> str:
    """Return what is recorded for the user of a shared account.

    Args:
        account: Login name of the account.
        claimed: Who they say they are; empty when they say nothing.

    Raises:
        MalformedMessageError: That is no name.
    """
    return f"{check_operator_name(claimed) if claimed else _NOBODY} (as {account})"


def is_named(operator: str) -> bool:
    """Whether `operator` says who decided, and not only through which account."""
    return bool(operator.strip()) and not operator.startswith(f"{_NOBODY} (as ")
