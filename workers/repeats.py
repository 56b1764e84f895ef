"""What was said last about each subject, so that a lasting trouble is logged once per change."""

SUBJECTS_MAX = 256


class Repeats:
    """Remembers the last reason per subject; bounded, the oldest subject is forgotten first."""

    def __init__(self) -> None:
        self._said: dict[str, str] = {}

    def is_news(self, subject: str, reason: str) -> bool:
        """Return whether `reason` differs from the last one about `subject`, and note it."""
        if self._said.get(subject) == reason:
            return False
        self._said.pop(subject, None)
        self._said[subject] = reason
        if len(self._said) > SUBJECTS_MAX:
            del self._said[next(iter(self._said))]
        return True

    def forget(self, subject: str) -> bool:
        """Note that `subject` is well again; return whether there had been trouble."""
        return bool(self._said.pop(subject, ""))
