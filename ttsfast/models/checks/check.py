"""What a check of a model is."""

from __future__ import annotations

from collections.abc import Iterable

from ttsfast.data.checks.finding import Finder, Finding
from ttsfast.models.checks.trial import Trial


class NotHere(Exception):
    """A check has nothing to look at in this model; it says why."""


class ModelCheck(Finder):
    """Something to look for in a model."""

    seconds = 30.0
    """That it may take."""

    def find(self, trial: Trial) -> Iterable[Finding]:
        """What is wrong with the model; nothing where it is right.

        The trial's model is to be copied, not changed.

        Raises:
            NotHere: there is nothing to look at.
        """
        raise NotImplementedError
