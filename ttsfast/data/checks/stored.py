"""What is wrong with stored features: not those of the recordings, not in the units of the statistics."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import numpy as np

from ttsfast.data.checks.check import Check, Subject, some, worst
from ttsfast.data.checks.finding import ERROR, NOTE, WARNING, Evidence, Finding
from ttsfast.data.features.mel import log_mel
from ttsfast.data.features.statistics import STD_FLOOR
from ttsfast.errors import InputError

COMPARED = 24
"""Utterances whose features are computed again: a fault of the making is in all of them, and one that is in
every eighth is met with 96%."""
LOOKED_AT = 1000
"""Utterances whose stored features are read."""


def spread(count: int, most: int) -> list[int]:
    """At most so many of ``count`` indices, evenly spread."""
    return sorted({int(i) for i in np.linspace(0, count - 1, min(count, most))}) if count else []


class Features(Check):
    """Stored features against those of the recordings."""

    name = "features"
    needs = "store"
    effect = (
        "the model learns to predict something that is not the log-mel its vocoder and its metrics expect"
    )
    tolerance = 0.1
    """Log units on average. Half floats, and another library, make less than 0.01."""
    sure = 0.95
    """Correlation with what a cause would give; of log-mels of two sentences it is 0.6 or so."""

    def find(self, subject: Subject) -> Iterator[Finding]:
        store, recordings = subject.store, subject.recordings
        if store is None or recordings is None:
            return
        causes: dict[str, list[tuple[float, Evidence]]] = defaultdict(list)
        looked = spread(len(store), COMPARED)
        for index in looked:
            name = store.entries.id[index]
            try:
                made = log_mel(recordings.samples(index), store.contract)
            except InputError as error:
                causes["the recording cannot be read any more"].append((1.0, Evidence(name, str(error))))
                continue
            kept = store[index].mel.astype(np.float32)
            found = self._cause(kept, kept * store.mel_std + store.mel_mean, made)
            if found is not None:
                cause, weight, seen = found
                causes[cause].append((weight, Evidence(name, seen)))
        for cause, evidence in sorted(causes.items(), key=lambda item: -len(item[1])):
            n = len(evidence)
            yield self.finding(
                ERROR,
                f"{some(n, len(looked), 'utterance', 'has', 'have')} not the features of the recording: "
                f"{cause}",
                worst(evidence),
                remedy="prepare the store again (`ttsfast prepare --force`)",
                tolerance=self.tolerance,
            )

    def _cause(self, kept: np.ndarray, raw: np.ndarray, made: np.ndarray) -> tuple[str, float, str] | None:
        """What was done to the features: cause, weight, what was seen; None where nothing was.

        ``kept`` is what is stored, ``raw`` the same in log units, ``made`` what the recording gives.
        """
        if abs(len(raw) - len(made)) > 1:
            ratio = len(made) / len(raw)
            seen = f"{len(raw)} frames are stored, the recording gives {len(made)}"
            whole = min((2.0, 0.5, 4.0, 0.25, 1.25, 0.8), key=lambda r: abs(np.log(ratio / r)))
            if abs(np.log(ratio / whole)) < 0.02:
                return f"the hop is {whole:g} times the contract's", abs(float(np.log(ratio))), seen
            return "the recording has another length now", abs(float(np.log(ratio))), seen
        frames = min(len(raw), len(made))
        kept, raw, made = kept[:frames], raw[:frames], made[:frames]
        off = float(np.abs(raw - made).mean())
        if off < self.tolerance:
            return None
        seen = f"{off:.2f} log units apart on average"
        own = float(np.abs(kept.mean(axis=0)).max()), float(kept.std(axis=0).mean())
        if frames > 20 and own[0] < 0.05 and abs(own[1] - 1) < 0.05:
            return "each utterance was normalised by its own mean and deviation", off, seen
        for cause, shape in (
            ("bins and frames were swapped in memory", made.T.reshape(made.shape)),
            ("bins and frames were swapped in memory", np.ascontiguousarray(made).reshape(made.T.shape).T),
            ("the bins are upside down", made[:, ::-1]),
            ("the frames run backwards", made[::-1]),
        ):
            if _correlation(raw, shape) > self.sure:
                return cause, off, seen
        if _correlation(raw, made) > self.sure:
            # What lies at the floor, on either side, knows nothing of a scale.
            heard = made > np.median(made)
            scale, shift = np.polyfit(made[heard], raw[heard], 1)
            for cause, factor in (
                ("the logarithm has base 10", 1 / np.log(10)),
                ("the logarithm has base e", np.log(10)),
                ("power in place of magnitude", 2.0),
                ("magnitude in place of power", 0.5),
            ):
                if abs(scale / factor - 1) < 0.07:
                    return cause, off, f"{scale:.2f} times what the recording gives, and {shift:+.2f}"
            if abs(scale - 1) < 0.05:
                return "the recording has another level now", off, f"{shift:+.2f} log units apart throughout"
            return "another scale", off, f"{scale:.2f} times what the recording gives, and {shift:+.2f}"
        return "they are of another recording, or of another contract", off, seen


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    if first.std() == 0 or second.std() == 0:
        return 0.0
    return float(np.corrcoef(first.ravel(), second.ravel())[0, 1])


class Values(Check):
    """Stored values that no recording gives."""

    name = "stored values"
    needs = "store"
    effect = "they are learned as speech"
    remedy = "prepare the store again (`ttsfast prepare --force`)"
    run = 8
    """Frames in a row that are the same to the last bit; sound never is, and silence has its own value."""

    def find(self, subject: Subject) -> Iterator[Finding]:
        store = subject.store
        if store is None:
            return
        broken, padded = [], []
        looked = spread(len(store), LOOKED_AT)
        for index in looked:
            name, mel = store.entries.id[index], store[index].mel.astype(np.float32)
            bad = int((~np.isfinite(mel)).sum())
            if bad:
                broken.append((float(bad), Evidence(name, f"{bad} values are NaN or Inf")))
                continue
            same = int((~(mel == mel[-1]).all(axis=1)[::-1]).argmax()) or len(mel)
            silent = np.allclose(mel[-1], store.silence, atol=0.05)
            if same >= self.run and not silent:
                seen = f"its last {same} frames are alike, {float(mel[-1].mean()):+.2f} on average"
                padded.append((float(same), Evidence(name, seen)))
        for chosen, said in ((broken, "values that are no numbers"), (padded, "padding that is not silence")):
            if chosen:
                n = len(chosen)
                yield self.finding(
                    ERROR, f"{some(n, len(looked), 'utterance', 'holds', 'hold')} {said}", worst(chosen)
                )


class Statistics(Check):
    """Statistics that are not those of the features."""

    name = "statistics"
    needs = "store"
    remedy = "prepare the store again (`ttsfast prepare --force`)"
    mean = 0.3
    """Deviations from 0 of the mean of normalised features, on average over bins. Of the sample that is read,
    clean stores have 0.05 at most."""
    deviation = 1.5
    """How many times 1 their deviation may be, or its inverse."""
    still = 0.25
    """Share of bins that may never move."""

    def find(self, subject: Subject) -> Iterator[Finding]:
        store = subject.store
        if store is None:
            return
        std = store.mel_std
        if len(std) > 1 and float(np.ptp(std)) == 0 and float(np.ptp(store.mel_mean)) == 0:
            yield self.finding(
                ERROR,
                "all bins have one mean and one deviation",
                effect="features are not normalised: quiet bins teach nothing",
                deviation=float(std[0]),
            )
        if (floored := int((std <= np.float32(STD_FLOOR)).sum())) > self.still * len(std):
            yield self.finding(
                WARNING,
                f"{floored} of {len(std)} bins never move",
                effect="they teach nothing, and take their share of the loss",
                remedy="look at the check 'band': the recordings have nothing there",
                bins=floored,
            )
        chosen = store.indices("train")
        frames = [store[int(chosen[i])].mel.astype(np.float64) for i in spread(len(chosen), 200)]
        if not frames:
            return
        values = np.concatenate(frames)
        values = values[np.isfinite(values).all(axis=1)]
        if len(values) < 100:
            return
        moving = std > np.float32(STD_FLOOR)
        mean = float(np.abs(values.mean(axis=0)[moving]).mean()) if moving.any() else 0.0
        spreads = float(values.std(axis=0)[moving].mean()) if moving.any() else 1.0
        if mean > self.mean or not 1 / self.deviation < spreads < self.deviation:
            yield self.finding(
                ERROR,
                f"the statistics are not those of the features: mean {mean:.2f} for 0, deviation "
                f"{spreads:.2f} for 1",
                effect="losses and rates are off by that scale, and what pads a batch is not silence",
                mean=mean,
                deviation=spreads,
            )


class Truncated(Check):
    """Clips that were cut before the speaker finished."""

    name = "truncated"
    needs = "store"
    effect = "they teach no stop, as it should be; a store of nothing else would never teach one"
    remedy = "nothing needs to be done, unless they are most of the corpus"
    most = 0.5

    def find(self, subject: Subject) -> Iterator[Finding]:
        cut = [row for row in subject.rows if row.truncated]
        if cut:
            n = len(cut)
            yield self.finding(
                WARNING if n > self.most * len(subject.rows) else NOTE,
                f"{some(n, len(subject.rows), 'utterance', 'is', 'are')} marked truncated",
                [Evidence(row.id, "marked truncated") for row in cut],
            )


CHECKS = (Values(), Features(), Statistics(), Truncated())
