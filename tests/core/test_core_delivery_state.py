"""The one word for a host's certificate, case by case."""

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.delivery_state import DELIVERY_S_MAX, Loop, delivery_s, delivery_state
from broker.units import UnixSeconds

NOW = UnixSeconds(1_800_000_000)
DAY_S = 86_400
SILENT_S = 30
WELL = Loop(
    serial="02",
    issued_at=UnixSeconds(NOW - DAY_S),
    not_after=UnixSeconds(NOW + 29 * DAY_S),
    word="served",
    served_serial="02",
    serving_until=UnixSeconds(NOW + 29 * DAY_S),
    seen_at=NOW,
    silent_s=SILENT_S,
)


def state(**changed: Any) -> str:
    """Return the word after some changes."""
    return delivery_state(dataclasses.replace(WELL, **changed), NOW)


def ago(seconds: int) -> UnixSeconds:
    """Return a moment before now."""
    return UnixSeconds(NOW - seconds)


@pytest.mark.parametrize("word", ["served", "installed", "stale", "failed", "unknown"])
def test_what_a_host_says_of_its_newest_certificate_is_shown(word: str) -> None:
    """It proved it by probes and hooks; the CA cannot know better."""
    assert state(word=word) == word


@pytest.mark.parametrize("word", ["served", "installed", "stale", "failed"])
def test_a_certificate_that_is_over_goes_before_everything(word: str) -> None:
    """The service is down for everybody who checks: nothing else matters now."""
    assert state(word=word, serving_until=NOW, seen_at=ago(DAY_S)) == "expired"
    assert state(word=word, serving_until=UnixSeconds(NOW + 1)) != "expired"


def test_an_old_certificate_that_ends_is_expired_though_a_newer_one_was_issued() -> None:
    """What the CA signed and nobody picked up keeps no service alive."""
    assert state(word="failed", served_serial="01", serving_until=ago(1)) == "expired"


@pytest.mark.parametrize("word", ["served", "stale", "failed"])
def test_silence_goes_before_what_was_said_last(word: str) -> None:
    """Nobody knows whether it is still true."""
    assert state(word=word, seen_at=ago(SILENT_S)) == word
    assert state(word=word, seen_at=ago(SILENT_S + 1)) == "away"


def test_a_host_that_was_never_heard_is_new_until_it_said_something() -> None:
    """It has just joined; after a takeover the roster knows its last word, and nobody heard it."""
    assert state(word="unknown", served_serial="", seen_at=None) == "unknown"
    assert state(word="served", seen_at=None) == "away"


@pytest.mark.parametrize("word", ["served", "installed"])
def test_a_good_word_about_an_old_certificate_is_stale_once_a_delivery_is_over(word: str) -> None:
    """While the new one is on its way the old word is true; later it hides a lost delivery."""
    behind = {"word": word, "served_serial": "01"}
    assert state(**behind, issued_at=ago(DELIVERY_S_MAX)) == word
    assert state(**behind, issued_at=ago(DELIVERY_S_MAX + 1)) == "stale"


@pytest.mark.parametrize("word", ["stale", "failed"])
def test_a_bad_word_about_an_old_certificate_stays_what_it_is(word: str) -> None:
    """A host that rolled back says `failed` of the one before: the reason is worth more."""
    assert state(word=word, served_serial="01", issued_at=ago(DAY_S)) == word


def test_a_short_life_allows_a_short_delivery() -> None:
    """Five minutes of life and ten of patience would never call anything stale."""
    assert delivery_s(NOW, UnixSeconds(NOW + 300)) == 30
    assert delivery_s(NOW, UnixSeconds(NOW + 30 * DAY_S)) == DELIVERY_S_MAX
    short = {"not_after": UnixSeconds(NOW + 260), "serving_until": UnixSeconds(NOW + 50)}
    assert state(served_serial="01", issued_at=ago(40), **short) == "stale"


def test_a_host_without_a_certificate_is_unknown() -> None:
    """It joined by an approval that was granted a moment ago."""
    empty = {"serial": "", "issued_at": None, "not_after": None, "serving_until": None}
    assert state(**empty, word="unknown", served_serial="") == "unknown"


MOMENTS = st.one_of(st.none(), st.integers(NOW - 40 * DAY_S, NOW + 40 * DAY_S))


@given(
    word=st.sampled_from(["served", "installed", "stale", "failed", "unknown"]),
    served_serial=st.sampled_from(["", "01", "02"]),
    issued_at=MOMENTS,
    not_after=MOMENTS,
    serving_until=MOMENTS,
    seen_at=MOMENTS,
)
def test_a_good_word_is_never_shown_of_what_is_over_silent_or_behind(**known: Any) -> None:
    """Whatever is known and whatever is not: `served` is a promise."""
    said = state(**known)
    if said in {"served", "installed"}:
        assert known["serving_until"] is None or known["serving_until"] > NOW
        assert known["seen_at"] is not None
        assert NOW - known["seen_at"] <= SILENT_S
        issued_at = known["issued_at"]
        if known["served_serial"] != "02" and issued_at is not None and known["not_after"]:
            assert NOW - issued_at <= DELIVERY_S_MAX
