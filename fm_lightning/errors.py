"""The error that a user can mend: one line, exit status 2."""

from __future__ import annotations


class UserError(Exception):
    """What was given, what was expected, what to type instead, in one line.

    The command line prints the message alone and exits with status 2; in Python it is an ordinary exception.
    """


class NotFiniteError(UserError):
    """A loss or a trajectory became infinite or NaN; the message names step, time and schedule."""
