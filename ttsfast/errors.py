"""The one exception that means "the input is wrong, not the program"."""

from __future__ import annotations

import traceback
from pathlib import Path


class InputError(ValueError):
    """Bad input from outside: a file, a key, an utterance.

    The message is one line that names the culprit and says what to do. The command line prints it
    and exits with code 2; nothing else is caught there.
    """


def in_their_code(error: BaseException) -> str:
    """One line on an error raised in code of the user's: what it says, and the place it was raised at."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    if isinstance(error, SyntaxError):
        return text[:240]
    frames = traceback.extract_tb(error.__traceback__)
    # The last place that is in no installed package and not in this one: where they can look.
    foreign = ("site-packages", "<frozen", str(Path(__file__).parent))
    own = [frame for frame in frames if not any(part in frame.filename for part in foreign)]
    place = (own or frames)[-1]
    return f"{text[:240]}, at {place.filename}:{place.lineno}"


class TrainingError(RuntimeError):
    """Training cannot go on: a loss or gradient stopped being finite.

    The message names the step, the term and the utterances, and the checkpoint to go back to.
    """


class ExportError(RuntimeError):
    """An exported file does not speak as the voice does; it was not written."""


class SpeechError(RuntimeError):
    """Something was not read whole, in two tries; it was not written."""


class Preempted(RuntimeError):
    """SIGTERM or Ctrl-C ended the run after a checkpoint was written.

    The command line exits with :data:`PREEMPTED_EXIT_CODE`, by which a scheduler knows to queue it again.
    """


class RankLost(TrainingError):
    """Another process of the run ended or fell silent; the message says what it said first, if anything."""


class SaidByAnotherRank(RuntimeError):
    """Another process of the run ends with the same message and prints it; this one ends with ``code``."""

    def __init__(self, code: int) -> None:
        super().__init__(f"said by another rank, exit code {code}")
        self.code = code


PREEMPTED_EXIT_CODE = 75
"""``EX_TEMPFAIL`` of sysexits.h: not a failure, try again later."""


def exit_code(error: BaseException) -> int:
    """The exit code that the command line gives an error: bad input 2, preempted 75, anything else 1."""
    if isinstance(error, Preempted):
        return PREEMPTED_EXIT_CODE
    return 2 if isinstance(error, InputError) else 1
