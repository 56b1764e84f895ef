"""The words of the approval loop: questions, answers and denials, without a terminal.

Whatever a joiner sent is printed only after `printable`: a host name must not move the cursor of
the person who decides about it.
"""

from broker.wire.work import Approve, Decided

NOBODY_TO_ASK = "enrollment auto-denied (no interactive console to approve)"
VALUE_LENGTH_MAX = 400
_YES = frozenset({"y", "yes"})
_NO = frozenset({"n", "no"})


def printable(text: str, limit: int = 200) -> str:
    """Return `text` without control, format and other unprintable characters, cut to `limit`."""
    shown = "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text
    )
    return shown if len(shown) <= limit else f"{shown[: limit - 3]}..."


def question(item: Approve) -> str:
    """Return the lines that describe a join to the person who decides."""
    rows = (
        ("host", item.host),
        ("names", ", ".join(item.sans) or "none asked for"),
        ("source", item.source or "unknown"),
        ("credential", item.method),
        ("key", item.key_fingerprint),
        ("words", "  ".join(item.words)),
        ("note", item.note or "nothing to remark"),
    )
    lines = [f"  {name:<11}{printable(value, VALUE_LENGTH_MAX)}" for name, value in rows]
    return "\n".join(["", "A node asks to join the mesh:", *lines, ""])


def invitation(host: str, timeout_s: int) -> str:
    """Return the line at which the answer is typed."""
    return (
        "The joining screen must show the same four words.\n"
        f"Let {printable(host)} in? yes or no ({timeout_s} s): "
    )


def read_answer(line: str) -> bool | None:
    """Return what the person said, or None when it was neither yes nor no."""
    word = line.strip().lower()
    if word in _YES:
        return True
    return False if word in _NO else None


def denied(reason: str, operator: str = "") -> Decided:
    """Return a refusal."""
    return Decided(approve=False, operator=operator, reason=reason[:1024])


def approved(operator: str) -> Decided:
    """Return a yes, signed with the name of the person who gave it."""
    return Decided(approve=True, operator=operator, reason="")


def deferred() -> Decided:
    """Return the answer that leaves the request pending for a person elsewhere."""
    return Decided(approve=None, operator="", reason="")


def crashed(error: Exception) -> Decided:
    """Return the denial that a broken decider amounts to."""
    return denied(f"the decider failed: {type(error).__name__}")


def waiting_state(pending: int) -> str:
    """Return the line of `certmesh ps` about the queue."""
    return f"{pending} waiting for a person" if pending else "nothing to decide"
