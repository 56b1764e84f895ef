"""Why a standby holds back although the primary is silent; every reason is for people."""

from collections.abc import Iterable

from broker.core.company import Company
from broker.core.observation import Rules, Silence, Surroundings, Version
from broker.units import Millis

WITNESSES_NAMED = 8


def lag(shown: Version, around: Surroundings) -> str:
    """Return what this journal misses of the highest head anybody showed, or nothing."""
    if shown <= around.version:
        return ""
    own = around.version
    if own.term == shown.term:
        return f"lagging: row {own.sequence} of {shown.sequence}"
    return f"lagging: a head of term {shown.term} was shown, the last row here is of {own.term}"


def doubt(
    rules: Rules, around: Surroundings, company: Company, silence: Silence, now_ms: Millis
) -> str:
    """Return why silence may not be the primary's death, or nothing.

    After a signed last beat neither death nor a cut has to be proved. Whoever is cut off hears
    everybody for the last time at about the same moment: so only those are company who were heard
    after the silence had become suspicious.
    """
    if silence.left:
        return ""
    if around.others <= 1:
        return "lone pair" if rules.lone_pair == "wait" else ""
    suspicious_ms = Millis(silence.last_alive_ms + rules.timing.suspect_ms)
    present = {host for host in company.present(now_ms) if company.heard_since(host, suspicious_ms)}
    if not present:
        return "isolated: heard no node of the mesh for a whole grace period"
    witnesses = len(present - set(around.key_holders))
    if rules.mode == "witnessed" and witnesses < rules.witnesses:
        return f"{witnesses} of {rules.witnesses} witnesses"
    return ""


def evidence(gone: str, silent_ms: int, present: Iterable[str]) -> str:
    """Return what a promotion rests on, for the journal."""
    heard = ", ".join(sorted(present)[:WITNESSES_NAMED]) or "nobody"
    return f"no beat of {gone} for {silent_ms / 1000:.1f} s; heard {heard}"
