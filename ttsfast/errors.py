"""The one exception that means "the input is wrong, not the program"."""

from __future__ import annotations


class InputError(ValueError):
    """Bad input from outside: a file, a key, an utterance.

    The message is one line that names the culprit and says what to do. The command line prints it
    and exits with code 2; nothing else is caught there.
    """


class TrainingError(RuntimeError):
    """Training cannot go on: a loss or gradient stopped being finite.

    The message names the step, the term and the utterances, and the checkpoint to go back to.
    """


class ExportError(RuntimeError):
    """An exported file does not speak as the voice does; it was not written."""


class Preempted(RuntimeError):
    """SIGTERM ended the run after a checkpoint was written.

    The command line exits with :data:`PREEMPTED_EXIT_CODE`, by which a scheduler knows to queue it again.
    """


PREEMPTED_EXIT_CODE = 75
"""``EX_TEMPFAIL`` of sysexits.h: not a failure, try again later."""
