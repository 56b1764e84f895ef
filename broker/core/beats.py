"""The newest beat of each primary, and what a new one proves.

A beat that is newer than one already known shows that its primary lived a moment ago, whoever
carried it. A beat that is merely known, or replayed, proves nothing; nor does the first one that
is seen of a primary in a term that was known before, for it may be of any age.
"""

from typing import NamedTuple

from broker.core.observation import Standing
from broker.wire.claims import Claim, PrimaryBeat

BEATS_MAX = 8


class Heard(NamedTuple):
    """A beat that was new here, and whether it proves life."""

    beat: PrimaryBeat
    life: bool


def remembered(standing: Standing) -> dict[str, PrimaryBeat]:
    """Return the beats that a node knew before it was restarted."""
    if not standing.leader or not standing.beat_number:
        return {}
    newest = PrimaryBeat("", standing.leader, standing.leader_term, standing.beat_number)
    return {standing.leader: newest}


def take(
    beats: dict[str, PrimaryBeat], heard: tuple[PrimaryBeat, ...], host: str, highest_term: int
) -> list[Heard]:
    """Keep and return those of `heard` that are newer than what `beats` has of their primary.

    Args:
        beats: The newest beat of each primary; of many primaries those of the oldest terms leave.
        heard: Verified beats.
        host: This node: its own beats come back to it and are no news.
        highest_term: What was known before this message. A beat of a higher one proves life: it
            was signed after a promotion that nobody here had heard of.
    """
    newer = []
    for beat in heard:
        known = beats.get(beat.primary)
        if beat.primary == host or (known is not None and not _is_newer(beat, known)):
            continue
        if known is None and len(beats) >= BEATS_MAX:
            del beats[min(beats, key=lambda primary: beats[primary].term)]
        beats[beat.primary] = beat
        advanced = known is not None and known.term == beat.term
        newer.append(Heard(beat, advanced or beat.term > highest_term))
    return newer


def rivals_in(term: int, host: str, newer: list[Heard], claim: Claim | None) -> dict[str, bool]:
    """Return who else is primary in this term besides `host`, and whether it serves.

    Of beats only those of a worse rank count: they make the better one take a new term, which
    settles it. To step down for a relayed beat would be wrong, for two old beats that come late,
    by two members, look like one that advanced.
    """
    rivals = {
        heard.beat.primary: True
        for heard in newer
        if heard.life
        and not heard.beat.left
        and heard.beat.term == term
        and heard.beat.primary > host
    }
    if claim is not None and claim.role == "primary" and claim.term == term:
        rivals[claim.host] = claim.serving or claim.host in rivals
    return rivals


def _is_newer(beat: PrimaryBeat, known: PrimaryBeat) -> bool:
    return (beat.term, beat.number) > (known.term, known.number)
