"""The words of the approval loop."""

from pathlib import Path

import msgspec
import pytest

from broker.errors import SettingsError
from broker.runtime.settings import ApprovalSettings
from broker.wire.operator import is_named
from broker.wire.work import Approve
from workers.accounts import is_shared, own_account
from workers.approval.choice import make_decider, operator_name, split_arguments
from workers.approval.decider import DenyDecider, QueueDecider
from workers.approval.logic import invitation, printable, question, read_answer, waiting_state
from workers.approval.prompt import PromptDecider

ITEM = Approve(
    approval_id="0a" * 16,
    host="node-c",
    sans=("node-c.home.internal", "127.0.0.4"),
    source="127.0.0.4",
    method="totp",
    key_fingerprint="cd" * 32,
    words=("acorn", "bishop", "cactus", "dollar"),
)


def test_the_question_shows_host_names_source_key_and_all_four_words() -> None:
    """The person must be able to compare everything with the other screen."""
    text = question(ITEM)

    for shown in (ITEM.host, *ITEM.sans, ITEM.source, ITEM.key_fingerprint, *ITEM.words):
        assert shown in text


def test_the_question_shows_what_the_policy_says() -> None:
    """A name that is taken, or was revoked, is what the person has to know first."""
    assert "replaces an active member" in question(
        msgspec.structs.replace(ITEM, note="replaces an active member")
    )


def test_a_host_name_cannot_move_the_cursor_or_add_lines() -> None:
    """What a joiner sends is printed on the screen of the person who decides about it."""
    evil = "node\x1b[2J\r\nwords      all  fine\u202e"

    shown = printable(evil)

    assert shown.isprintable()
    assert "\x1b" not in invitation(evil, 5)
    assert "\n" not in shown


def test_long_text_is_cut() -> None:
    """A name of a kilobyte must not scroll the question away."""
    assert len(printable("n" * 2000)) == 200


@pytest.mark.parametrize(
    ("line", "meaning"),
    [("y", True), (" YES ", True), ("n", False), ("No", False), ("", None), ("yess", None)],
)
def test_only_a_clear_yes_or_no_is_an_answer(line: str, meaning: object) -> None:
    """Enter alone, or a half-typed word, decides nothing."""
    assert read_answer(line) is meaning


def test_the_queue_is_counted_in_the_state() -> None:
    """`certmesh ps` shows that somebody waits."""
    assert waiting_state(2) == "2 waiting for a person"
    assert waiting_state(0) == "nothing to decide"


def test_the_command_line_can_name_another_decider() -> None:
    """An operator runs the prompt in a terminal whatever the settings say."""
    argv = ["home/certmesh.toml", "--decider", "prompt", "--once"]

    assert split_arguments(argv) == ("prompt", ["home/certmesh.toml", "--once"])
    assert split_arguments(["x"]) == ("", ["x"])


@pytest.mark.parametrize("argv", [["--decider"], ["--decider", "allow"]])
def test_a_decider_that_does_not_exist_is_refused(argv: list[str]) -> None:
    """A typo must not fall back to anything."""
    with pytest.raises(ValueError, match="deny, queue, prompt"):
        split_arguments(argv)


def test_each_name_makes_its_decider() -> None:
    """The safe default is what nobody recognises."""
    assert isinstance(make_decider("prompt", ApprovalSettings(), Path("/nowhere")), PromptDecider)
    assert isinstance(make_decider("queue", ApprovalSettings(), Path("/nowhere")), QueueDecider)
    assert isinstance(make_decider("anything", ApprovalSettings(), Path("/nowhere")), DenyDecider)


def test_the_operator_is_who_runs_the_process_whatever_the_environment_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An approval is signed with a name; LOGNAME is anybody's."""
    before = own_account()
    monkeypatch.setenv("LOGNAME", "somebody-else")
    monkeypatch.setenv("USER", "somebody-else")

    assert own_account() == before
    assert "somebody-else" not in operator_name("")


@pytest.mark.skipif(not own_account().shared, reason="this account is one person's")
def test_at_a_shared_account_the_settings_name_the_operator() -> None:
    """Root is nobody's name; what a person set for this prompt is."""
    account = own_account().name

    assert operator_name("anna") == f"anna (as {account})"
    assert not is_named(operator_name(""))
    with pytest.raises(SettingsError, match=r"approval\.operator"):
        operator_name("anna (as root)")


@pytest.mark.parametrize(
    ("uid", "shell", "shared"),
    [
        (0, "/bin/bash", True),
        (33, "/bin/sh", True),
        (1001, "/usr/sbin/nologin", True),
        (1002, "/bin/false", True),
        (1000, "/bin/zsh", False),
    ],
)
def test_root_and_service_accounts_are_nobodys_own(uid: int, shell: str, *, shared: bool) -> None:
    """Only a login account of one person is a name."""
    assert is_shared(uid, shell) is shared
