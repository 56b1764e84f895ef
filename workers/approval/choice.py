"""Which decider this process has: the setting, or the one named on the command line."""

from collections.abc import Sequence
from pathlib import Path

from broker.errors import MalformedMessageError, SettingsError
from broker.runtime.settings import ApprovalSettings
from broker.wire.operator import operator_of
from workers.accounts import own_account
from workers.approval.decider import Decider, DenyDecider, QueueDecider
from workers.approval.prompt import PromptDecider
from workers.approval.terminal import Terminal

FLAG = "--decider"
NAMES = ("deny", "queue", "prompt", "webhook")


def split_arguments(argv: Sequence[str]) -> tuple[str, list[str]]:
    """Return the decider named on the command line (or an empty string) and the other arguments.

    Raises:
        ValueError: The flag is there without a decider that exists.
    """
    rest = list(argv)
    if FLAG not in rest:
        return "", rest
    at = rest.index(FLAG)
    named = rest[at + 1] if at + 1 < len(rest) else ""
    if named not in NAMES:
        raise ValueError(f"{FLAG} takes one of {', '.join(NAMES)}")
    return named, rest[:at] + rest[at + 2 :]


def make_decider(name: str, settings: ApprovalSettings, home: Path) -> Decider:
    """Return the decider called `name`; whatever is unknown denies.

    Args:
        name: One of `NAMES`.
        settings: The section of the node's settings.
        home: Where relative file names begin.

    Raises:
        SettingsError: There is no webhook to ask, or its secret cannot be used.
    """
    match name:
        case "prompt":
            return PromptDecider(Terminal, operator_name(settings.operator), settings.timeout)
        case "queue":
            return QueueDecider()
        case "webhook":
            return _webhook(settings, home)
        case _:
            return DenyDecider()


def operator_name(stated: str) -> str:
    """Return under which name the person at this prompt decides.

    The environment is not asked: it says what it is told. A shared account without a name in the
    settings is nobody's, and a mesh that asks for operators then takes no yes from here.

    Raises:
        SettingsError: `stated` is no name.
    """
    account = own_account()
    if not account.shared:
        return account.name
    try:
        return operator_of(account.name, stated)
    except MalformedMessageError as error:
        raise SettingsError(f"approval.operator: {error.detail}", hint=error.hint) from None


def _webhook(settings: ApprovalSettings, home: Path) -> Decider:
    if not settings.webhook:
        raise SettingsError(
            "approval.webhook is empty: there is nobody to ask", hint="set it to an https address"
        )
    # Nine processes start on every node; requests and its kin are memory that one of them needs.
    from workers.approval.webhook import WebhookDecider, receiver_of  # noqa: PLC0415

    return WebhookDecider(receiver_of(settings, home))
