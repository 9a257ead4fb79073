"""The exceptions that speak to the user."""

from __future__ import annotations


class UserError(Exception):
    """A mistake in what the user gave us: one sentence that says what is wrong and what to do.

    The command line prints the sentence and exits with code 2; library callers see an ordinary exception.
    """


class TrainingFailed(Exception):
    """Training cannot go on although the input was fine (a loss that is no number): one sentence, exit code 1."""


class CheckFailed(Exception):
    """What was to be checked is not in order: one sentence, exit code 1."""
