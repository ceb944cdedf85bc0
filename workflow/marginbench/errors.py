"""The one kind of error that a user is meant to read: a single line that says what is wrong and how to mend it."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake in a study, a data file or the set-up. Shown without a traceback; exit code 2 on the command line."""


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint that names the closest of the known names, or all of them when none is close."""
    names = sorted(str(name) for name in known)
    close = difflib.get_close_matches(str(word), names, n=1, cutoff=0.5)
    if close:
        return f"did you mean `{close[0]}`?"
    return "known: " + ", ".join(names) if names else "none are known"
