"""The error that a user can fix: one line, exit status 2."""

from __future__ import annotations


class UserError(ValueError):
    """What is wrong, then how to fix it: two short sentences in one line.

    The command line prints the message alone and exits with status 2; in Python it is an ordinary ``ValueError``.

    Attributes:
        problem: a sentence, for example "Cannot pair 5 samples with 4."
        fix: a sentence, for example "Pass equally many of both."
    """

    def __init__(self, problem: str, fix: str) -> None:
        super().__init__(problem, fix)
        self.problem, self.fix = problem, fix

    def __str__(self) -> str:
        return f"{self.problem} {self.fix}"


class NotFiniteError(UserError):
    """A loss or a trajectory became infinite or NaN; the message names step, time and schedule."""
