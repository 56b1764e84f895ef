"""Every way in, with octets bred to be hostile: a typed refusal, quickly, in little memory."""

import zlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.mutation import Edit, mutated, poisoned
from tests.fuzz.target import PEAK_BYTES_MAX, Target, attempt, peak_bytes
from tests.fuzz.targets import TARGETS
from tests.fuzz.targets_broker import verdict

CORPUS = Path(__file__).parent / "corpus"
EXAMPLES = 150
SEEDS_POISONED = 8
BRED = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
EDITS = st.lists(
    st.tuples(st.integers(0, 63), st.integers(0, 2**20), st.integers(0, 2**16)),
    min_size=1,
    max_size=4,
)
BOMBS = {
    "nested-json": b'{"a":' * 250_000,
    "nested-lists": b"[" * 1_048_576,
    "nested-msgpack": b"\x91" * 1_048_576,
    "many-numbers": b"[" + b"1," * 500_000 + b"1]",
    "many-fields": b"\xde\xff\xff" + b"".join(b"\xa4%04d\x00" % n for n in range(9999)) * 6,
    "digits": b"9" * 1_048_576,
    "zeros": bytes(1_048_576),
    "unpacks-to-much": zlib.compress(bytes(64 * 1_048_576), 9),
    "promises-much": b"\xdd\xff\xff\xff\xff" + b"\xc6\xff\xff\xff\xff",
    "der-promises-much": b"\x30\x84\x7f\xff\xff\xff" + b"\x30\x80" * 10_000,
    "pem": b"-----BEGIN X509 CRL-----\n" * 40_000,
}
"""Little on the wire, much for who believes it."""


def found() -> list[Path]:
    """Return what fuzzing found before, one file for each fault that was mended."""
    return sorted(path for path in CORPUS.rglob("*") if path.is_file())


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_hostile_octets_end_in_a_typed_refusal(name: str) -> None:
    """What a peer, a file or a person brings is never our traceback (row 39) (row 44) (row 50)."""
    target = TARGETS[name]
    seeds = target.seeds()

    @BRED
    @given(st.integers(0, len(seeds) - 1), EDITS)
    def breed(chosen: int, edits: list[Edit]) -> None:
        attempt(target, mutated(seeds[chosen], target.form, edits, target.bytes_max))

    breed()


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_poison_at_every_kind_of_place_is_refused(name: str) -> None:
    """Nesting without end, octets that are no UTF-8, numbers of thousands of digits (row 39)."""
    target = TARGETS[name]
    for seed in target.seeds()[:SEEDS_POISONED]:
        for octets in poisoned(seed):
            attempt(target, octets[: target.bytes_max])


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_what_is_bred_from_is_accepted(name: str) -> None:
    """A target that refuses everything at its first check would prove nothing."""
    target = TARGETS[name]
    assert any(_is_accepted(target, seed) for seed in target.seeds())


def _is_accepted(target: Target, seed: bytes) -> bool:
    try:
        target.run(seed)
    except target.refusals:
        return False
    return True


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_no_bomb_makes_a_process_grow(name: str) -> None:
    """A mebibyte from anybody must not cost more than sixteen, whatever it promises (row 39)."""
    target = TARGETS[name]
    for what, bomb in BOMBS.items():
        grown = peak_bytes(target, bomb[: target.bytes_max])
        assert grown <= PEAK_BYTES_MAX, (what, grown)


@pytest.mark.parametrize("path", found(), ids=lambda path: f"{path.parent.name}/{path.name}")
def test_what_fuzzing_found_stays_mended(path: Path) -> None:
    """Each file broke something once."""
    attempt(TARGETS[path.parent.name], path.read_bytes())


def test_the_journal_verifies_after_all_that_the_broker_was_asked() -> None:
    """Refusals and nonsense leave no row that does not follow from the one before (P1)."""
    target = TARGETS["broker"]
    for seed in target.seeds():
        attempt(target, seed)
    assert verdict() == ""
