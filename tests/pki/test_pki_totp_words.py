"""Codes from an authenticator app, and the words two people compare."""

from urllib.parse import parse_qs, urlparse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import MalformedMessageError
from broker.pki.authority import fingerprint
from broker.pki.request import parse_request
from broker.pki.totp import key_text, matching_step, provisioning_uri
from broker.pki.words import comparison_words
from tests.pki.making import TOTP_SECRET, authority, csr

# RFC 6238 appendix B, SHA-1, the last six of eight digits.
RFC_VECTORS = [
    (59, "287082"),
    (1_111_111_109, "081804"),
    (1_111_111_111, "050471"),
    (1_234_567_890, "005924"),
    (2_000_000_000, "279037"),
    (20_000_000_000, "353130"),
]
WORDS = [f"word{number}" for number in range(7776)]
PINNED = ("word3689", "word5146", "word352", "word4452")
PIN = fingerprint(authority().root)


@pytest.mark.parametrize(("now", "code"), RFC_VECTORS)
def test_the_vectors_of_rfc_6238_match_their_step(now: int, code: str) -> None:
    """Any authenticator app computes the same."""
    assert matching_step(TOTP_SECRET, code, now, 0) == now // 30


def test_a_code_counts_within_the_window_and_not_beyond() -> None:
    """The step is what the ledger remembers, so it must be the code's own, not the current one."""
    step = 1_111_111_111 // 30
    for drift in (-1, 0, 1):
        assert matching_step(TOTP_SECRET, "050471", (step + drift) * 30, 1) == step
    for drift in (-2, 2):
        assert matching_step(TOTP_SECRET, "050471", (step + drift) * 30, 1) is None


@pytest.mark.parametrize("code", ["", "05047", "0504711", "05047a", "٠٥٠٤٧١", " 50471", "-50471"])
def test_what_is_not_six_ascii_digits_never_matches(code: str) -> None:
    """Python takes other digits for digits."""
    assert matching_step(TOTP_SECRET, code, 1_111_111_111, 1) is None


def test_the_first_seconds_of_unix_time_are_no_special_case() -> None:
    """A machine without a clock battery starts there."""
    assert matching_step(TOTP_SECRET, "000000", 0, 3) is None


def test_the_provisioning_address_says_what_an_app_needs() -> None:
    """Key URI format of authenticator apps."""
    address = urlparse(provisioning_uri(TOTP_SECRET, "home"))
    assert (address.scheme, address.netloc, address.path) == ("otpauth", "totp", "/certmesh:home")
    query = parse_qs(address.query)
    assert query == {
        "digits": ["6"],
        "secret": ["GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"],
        "algorithm": ["SHA1"],
        "issuer": ["certmesh"],
        "period": ["30"],
    }


def test_the_key_is_readable_in_groups_of_four() -> None:
    """For the person whose phone cannot scan."""
    assert key_text(TOTP_SECRET) == "GEZD GNBV GY3T QOJQ GEZD GNBV GY3T QOJQ"


def test_both_sides_see_the_same_words() -> None:
    """The joiner has its key, the CA has the request; both have pin and nonce."""
    parsed = parse_request(csr())
    nonce = "00112233445566778899aabbccddeeff"
    joiner = comparison_words(parse_request(csr()).spki, PIN, nonce, WORDS)
    assert comparison_words(parsed.spki, PIN, nonce, WORDS) == joiner
    assert len(joiner) == 4


def test_the_words_of_a_known_input_are_pinned() -> None:
    """Nodes of different releases compare words; the rule never changes silently."""
    assert comparison_words(b"spki", "ab" * 32, "cd" * 16, WORDS) == PINNED


def test_another_key_ca_or_nonce_gives_other_words() -> None:
    """Whoever sits between the two has at least one of them different."""
    first = comparison_words(b"spki", PIN, "00" * 16, WORDS)
    assert comparison_words(b"spkj", PIN, "00" * 16, WORDS) != first
    assert comparison_words(b"spki", "00" * 32, "00" * 16, WORDS) != first
    assert comparison_words(b"spki", PIN, "01" * 16, WORDS) != first


@pytest.mark.parametrize("nonce", ["0", "zz", "é"])
def test_a_nonce_that_is_not_hex_is_malformed(nonce: str) -> None:
    """The wire type lets an odd number of digits through; a stranger sends it."""
    with pytest.raises(MalformedMessageError):
        comparison_words(b"spki", PIN, nonce, WORDS)


@given(st.binary(max_size=64), st.binary(max_size=32), st.integers(1, 200))
def test_every_word_is_in_the_list_whatever_its_length(
    spki: bytes, nonce: bytes, length: int
) -> None:
    """The index wraps round."""
    words = WORDS[:length]
    assert set(comparison_words(spki, PIN, nonce.hex(), words)) <= set(words)
