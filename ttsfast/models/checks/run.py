"""Checks of a model, one after the other, each by itself and with an end."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from ttsfast.data.checks.finding import Finding, in_order
from ttsfast.errors import in_their_code
from ttsfast.models.checks import gradients, heard, modes, numbers, outputs, padding
from ttsfast.models.checks.check import ModelCheck, NotHere
from ttsfast.models.checks.limit import TimeUp, time_limit
from ttsfast.models.checks.trial import Trial, random_streams_kept
from ttsfast.progress import track

FAST: tuple[ModelCheck, ...] = (
    *padding.FIRST,
    *modes.FIRST,
    *numbers.FIRST,
    *outputs.FIRST,
    *padding.CHECKS,
    *heard.CHECKS,
    *gradients.CHECKS,
    *outputs.CHECKS,
    *modes.CHECKS,
    *numbers.CHECKS,
)
"""In the order of cause and effect: all take a few seconds together, on a small model."""

BEFORE_TRAINING = tuple(
    check
    for check in FAST
    if check.name not in ("nondeterminism", "randomness", "modes", "accumulation", "posterior", "precision")
)
"""Those whose fault ruins a voice, or would be seen late."""


@dataclass(frozen=True)
class ModelChecked:
    """What came of running checks."""

    findings: tuple[Finding, ...]
    """The worst first."""
    passed: tuple[str, ...]
    """Names of checks that found nothing."""
    not_run: tuple[str, ...]
    """Names of checks that have nothing to look at, with the reason."""
    unfinished: tuple[str, ...]
    """Names of checks that did not come to an end, with the reason."""
    seconds: dict[str, float]
    """By check."""


def run_model_checks(
    trial: Trial, checks: Sequence[ModelCheck] = FAST, seconds: float | None = None
) -> ModelChecked:
    """Run every check. The model and the random streams are left as they were.

    Args:
        trial: the model, and what it is tried on.
        checks: in the order of cause and effect.
        seconds: for all together; each has a limit of its own besides.
    """
    end = None if seconds is None else time.monotonic() + seconds
    findings: list[Finding] = []
    passed, not_run, unfinished, took = [], [], [], {}
    for check in track(checks, "looking at the model", len(checks)):
        began = time.monotonic()
        limit = check.seconds if end is None else min(check.seconds, end - began)
        if limit <= 0:
            unfinished.append(f"{check.name} (no time left)")
            continue
        found: list[Finding] = []
        try:
            with random_streams_kept(trial.device), time_limit(limit):
                found = list(check.find(trial))
        except TimeUp:
            unfinished.append(f"{check.name} (not done within {limit:.0f} s)")
        except NotHere as reason:
            not_run.append(f"{check.name} ({reason})")
        except Exception as error:
            # Whatever it is, it comes from code of the user's, or from what that does to torch.
            unfinished.append(f"{check.name} ({in_their_code(error)})")
        else:
            passed += [] if found else [check.name]
        findings += found
        took[check.name] = time.monotonic() - began
    return ModelChecked(tuple(in_order(findings)), tuple(passed), tuple(not_run), tuple(unfinished), took)
