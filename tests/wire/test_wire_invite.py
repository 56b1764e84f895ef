"""The invite string: what a person copies from one screen to another."""

import base64
import contextlib

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.errors import InviteMalformedError
from broker.units import UnixSeconds
from broker.wire.invite import PREFIX, TEXT_LENGTH_MAX, decode_invite, encode_invite
from broker.wire.mesh_api import InviteTicket
from tests.wire.samples import instances

TICKET = InviteTicket(
    addresses=("192.168.1.10", "192.168.1.11"),
    enroll_port=7642,
    pin="9f" * 32,
    host="nas",
    expires_at=UnixSeconds(1_900_000_000),
    secret="correct-horse",
    mesh="home",
)


@settings(max_examples=50, deadline=None)
@given(ticket=instances(InviteTicket))
def test_an_invite_reads_back(ticket: InviteTicket) -> None:
    """Everything the joiner needs is in the string."""
    with contextlib.suppress(InviteMalformedError):  # longer than a person would paste
        assert decode_invite(encode_invite(ticket)) == ticket


def test_an_invite_is_one_word_for_shells_and_terminals() -> None:
    """No character that a shell, a terminal or a mail would change."""
    text = encode_invite(TICKET)
    assert text.startswith(PREFIX)
    assert text.removeprefix(PREFIX).replace("-", "").replace("_", "").isalnum()
    assert len(text) < 400


def test_white_space_around_a_pasted_invite_is_forgiven() -> None:
    """Copying a line takes its end along."""
    assert decode_invite(f"  {encode_invite(TICKET)}\n") == TICKET


@pytest.mark.parametrize(
    "text",
    [
        "",
        "cm1:",
        "cm2:e30",
        "cm1:e30",
        "cm1:!!!!",
        "cm1:eyJ",
        "cm1:" + base64.urlsafe_b64encode(b"[" * 3000).decode(),
        "cm1:" + base64.urlsafe_b64encode(b'{"host": 7}').decode(),
        "cm1:" + base64.urlsafe_b64encode(b"\xff\xfe").decode(),
        "cm1:" + "A" * TEXT_LENGTH_MAX,
        encode_invite(TICKET)[:-9],
        "https://example.internal/",
    ],
)
def test_a_damaged_invite_says_so_and_what_to_do(text: str) -> None:
    """A person pasted it: the answer is a sentence, never a traceback."""
    with pytest.raises(InviteMalformedError) as caught:
        decode_invite(text)
    assert "certmesh invite create" in caught.value.hint


@settings(max_examples=300, deadline=None)
@given(text=st.one_of(st.text(max_size=100), st.text(max_size=100).map(lambda t: PREFIX + t)))
def test_any_text_is_an_invite_or_a_refusal(text: str) -> None:
    """Whatever is pasted."""
    with contextlib.suppress(InviteMalformedError):
        decode_invite(text)


def test_the_secret_is_not_in_the_refusal() -> None:
    """Refusals are logged; secrets are not."""
    with pytest.raises(InviteMalformedError) as caught:
        decode_invite(encode_invite(TICKET)[:-9])
    assert "correct-horse" not in f"{caught.value.detail}{caught.value.hint}"


def test_an_invite_longer_than_any_real_one_is_not_even_decoded() -> None:
    """A valid ticket padded with a field nobody knows: only the length can refuse it."""
    padded = base64.urlsafe_b64encode(
        b'{"padding": "' + b"x" * TEXT_LENGTH_MAX + b'", ' + msgspec.json.encode(TICKET)[1:]
    )
    with pytest.raises(InviteMalformedError):
        decode_invite(PREFIX + padded.decode().rstrip("="))
