"""What each figure means, and what it should reach."""

from __future__ import annotations

DEFINITIONS: dict[str, str] = {
    "mel_l1": "teacher-forced: mean absolute error of the log-mel, in standard deviations of each bin",
    "mel_l1_log": "teacher-forced: mean absolute error of the log-mel, in the features' own log units",
    "diagonal_mass": "teacher-forced: share of attention within |n/N - s/S| <= 0.15, mean over decoder steps",
    "monotonicity": (
        "teacher-forced: share of decoder steps after which the most attended symbol stays or moves 1 to 4 "
        "symbols forward"
    ),
    "stop_f1": (
        "teacher-forced: F1 of the first stop falling within 8 frames of the true end, one event per "
        "utterance; an early stop is a false positive and a miss, a late or absent one is a miss"
    ),
    "coverage": (
        "free-running: share of symbols read, that is, attended to most by a step that keeps half of its "
        "attention within one symbol of them, or passed over among at most 3 (1 at either end of the text)"
    ),
    "heard": (
        "free-running: share of the recording's frames that the speech, warped onto it in time, comes closer "
        "to than three quarters of the corpus mean's distortion; how much of the text is in the sound, "
        "whatever attention says"
    ),
    "duration_error": "free-running: |predicted - true| / true duration, mean over utterances",
    "right_length": (
        "free-running: share of utterances that end, after two thirds to 1.5 times their recording's length"
    ),
    "ran_on": "free-running: share of utterances longer than 1.5 times their recording",
    "cut_short": "free-running: share of utterances shorter than two thirds of their recording",
    "stop_rate": (
        "free-running: share of utterances that the model itself ended before the frame limit, however "
        "early; a model without a stop decides its length beforehand and has none"
    ),
    "mcd_dtw": (
        "free-running: mel-cepstral distortion in dB, 10/ln10 * sqrt(2 * sum of squared differences) of "
        "coefficients 1 to 13 of the log-mel's cosine transform, mean along the best time warping; "
        "comparable only with figures of this program"
    ),
    "mcd_dtw_sl": (
        "free-running: mcd_dtw of each utterance times the longer length over the shorter one, of speech and "
        "recording (MCD-DTW-SL); what a run is watched by"
    ),
    "f0_rmse": (
        "free-running: root mean square error of the pitch in cents, over frames voiced in the speech and "
        "in the recording, paired along the warping of mcd_dtw; mean over utterances"
    ),
    "gross_pitch_error": "free-running: share of those frames whose pitch is off by more than 20%",
    "voicing_error": "free-running: share of paired frames voiced on one side only",
    "word_error": (
        "free-running: words that a speech recogniser hears wrong, not at all or besides, for each word of "
        "the text; it makes errors of its own, so read it beside natural"
    ),
    "character_error": "free-running: the same in characters",
}
"""Every figure of ``metrics.json``, in the order of reports."""

FROM_FREE_RUNNING = (
    "coverage",
    "heard",
    "duration_error",
    "right_length",
    "ran_on",
    "cut_short",
    "stop_rate",
    "mcd_dtw",
    "mcd_dtw_sl",
    "f0_rmse",
    "gross_pitch_error",
    "voicing_error",
    "word_error",
    "character_error",
)
"""The figures of the free-running pass; the others are teacher-forced."""

LABELS = {
    "mel_l1": "mel L1",
    "mel_l1_log": "mel L1, log units",
    "stop_f1": "stop F1",
    "coverage": "text read",
    "heard": "text heard",
    "mcd_dtw": "cepstral distortion, dB",
    "mcd_dtw_sl": "distortion by length, dB",
    "f0_rmse": "pitch error, cents",
    "boundary_error": "boundary error, ms",
}
"""Names for people, where taking the underscores out is not enough."""

HIGHER_IS_BETTER = frozenset(
    {"diagonal_mass", "coverage", "heard", "monotonicity", "stop_f1", "right_length", "stop_rate"}
)

SHARES_OF_UTTERANCES = frozenset({"right_length", "ran_on", "cut_short", "stop_rate"})
"""Figures that are yes or no for an utterance."""

TARGETS: dict[str, float | str] = {
    "mel_l1": "predict_mean",
    "diagonal_mass": 0.90,
    "coverage": 0.98,
    "heard": 0.65,
    "duration_error": 0.10,
    "right_length": 0.90,
}
"""What a voice that works reaches on held-out text, with its whole interval: a bound, or the baseline that
it must beat on the same utterances.

The stop rate, running on and being cut short have none: a model that stops at once, or never, does well by
two of the three. Nor has distortion, in which noise warped onto speech does better than the mean. Of shares
of utterances, 35 without a failure are evidence for 0.90; for 0.95 it would take 73
(:func:`ttsfast.evaluation.bootstrap.share_interval`).
"""


def label(name: str) -> str:
    """A figure's name for people."""
    return LABELS.get(name, name.replace("_", " "))


def number(value: float | None) -> str:
    """Three decimals for a person; a dash for what was not measured."""
    return "–" if value is None else f"{value:.3f}"
