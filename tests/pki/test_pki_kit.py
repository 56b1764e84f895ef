"""The recovery secret on paper: exact, forgiving to the reader, strict with errors."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import BadPassphraseError
from broker.pki.kit import recovery_public, recovery_secret, recovery_text

SECRET = bytes(range(32))
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"


@given(st.binary(min_size=32, max_size=32))
def test_every_secret_is_read_back_as_it_was_printed(secret: bytes) -> None:
    """Paper is the only copy."""
    assert recovery_secret(recovery_text(secret)) == secret


@pytest.mark.parametrize("place", range(56))
def test_one_wrong_letter_is_a_typing_error_and_not_a_wrong_kit(place: int) -> None:
    """Who copied the kit by hand has to learn that the hand was wrong, not the kit."""
    letters = recovery_text(SECRET).replace("-", "")
    for wrong in ALPHABET.replace(letters[place], ""):
        with pytest.raises(BadPassphraseError, match="typing error"):
            recovery_secret(letters[:place] + wrong + letters[place + 1 :])


def test_two_letters_that_changed_places_are_seen() -> None:
    """The usual error of a tired person."""
    letters = recovery_text(SECRET).replace("-", "")
    place = next(n for n in range(55) if letters[n] != letters[n + 1])
    swapped = letters[:place] + letters[place + 1] + letters[place] + letters[place + 2 :]
    with pytest.raises(BadPassphraseError, match="typing error"):
        recovery_secret(swapped)


def test_case_blanks_line_ends_and_lookalikes_do_not_matter() -> None:
    """A person types what the page looks like."""
    text = recovery_text(SECRET)
    assert recovery_secret(text.lower().replace("-", "  ")) == SECRET
    assert recovery_secret(text.replace("-", "\n", 7)) == SECRET
    assert recovery_secret(text.replace("O", "0").replace("I", "1").replace("B", "8")) == SECRET


def test_the_secret_is_found_in_the_text_of_a_printed_kit() -> None:
    """The whole page may be given, whatever is written around the secret."""
    groups = recovery_text(SECRET).split("-")
    rows = "\n".join("    " + " ".join(groups[n : n + 7]) for n in (0, 7))
    pin = "ab2c " * 16
    kit = f"recovery kit\n\nsha256  {pin}\n\nsecret\n{rows}\n\nKeep it safe with your gold.\n"
    assert recovery_secret(kit) == SECRET


@pytest.mark.parametrize("text", ["", "hello", "AAAA-BBBB", "A" * 55, "A" * 57, "ab" * 4000])
def test_what_is_no_secret_is_refused_with_what_one_looks_like(text: str) -> None:
    """A wrong file is another trouble than a wrong letter."""
    with pytest.raises(BadPassphraseError, match="fourteen groups"):
        recovery_secret(text)


def test_no_part_of_a_refused_secret_is_in_the_refusal() -> None:
    """Refusals are logged and pasted into issues."""
    letters = recovery_text(SECRET).replace("-", "")
    with pytest.raises(BadPassphraseError) as caught:
        recovery_secret("Z" + letters[1:])
    assert letters[4:12] not in caught.value.detail + caught.value.hint


def test_the_public_half_is_the_same_for_ever() -> None:
    """A backup made today has to open with tomorrow's release."""
    stated = "f3821f25c25cd1b064626e830e2ea7277c8cc44aef2ada2a849f89d5e008c623"
    assert recovery_public(SECRET) == stated
