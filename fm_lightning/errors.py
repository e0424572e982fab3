"""The error that a user can mend: one line, exit status 2."""

from __future__ import annotations


class UserError(ValueError):
    """What was given, what was expected, and what to do instead; in one line.

    The command line prints the message alone and exits with status 2; in Python it is an ordinary ``ValueError``.

    Attributes:
        given: what is wrong, e.g. "k=5 given" or "the loss is not finite at step 3".
        expected: what would have been right; may be empty.
        remedy: what to do, e.g. "type k: 2".
    """

    def __init__(self, given: str, expected: str = "", remedy: str = "") -> None:
        super().__init__(given, expected, remedy)
        self.given, self.expected, self.remedy = given, expected, remedy

    def __str__(self) -> str:
        expected = f", expected {self.expected}" if self.expected else ""
        return f"{self.given}{expected}{f'; {self.remedy}' if self.remedy else ''}"


class NotFiniteError(UserError):
    """A loss or a trajectory became infinite or NaN; the message names step, time and schedule."""
