"""The preset ``auto``: what a run is set to for the machine it starts on and the speech it has.

A pure function of both. What it knows was measured with ``nano``, on two cores and 82 minutes of one speaker,
with 16 utterances a step at a rate of 2e-3: ParallelTTS spoke them as plainly as copies do after 1,300 steps,
ConvTTS less so after 4,000. The other sizes follow by rules, which the reasons name, and were not measured.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ttsfast.config import NONE, preset_values
from ttsfast.data.loading.batch import padded_length
from ttsfast.data.loading.plan_loader import select
from ttsfast.data.store.store import Store
from ttsfast.devices import Machine
from ttsfast.models.build import BUILT_IN, CONVTTS, PARALLELTTS
from ttsfast.models.convtts_config import SIZES
from ttsfast.options import Values, shown_value

STEPS_OF_AN_HOUR = 1200
"""1,300 for the 1.24 hours that were measured (words-missing.json)."""
ATTENTIVE_STEPS_OF_AN_HOUR = 3600
"""Of ConvTTS, and of a model of the user's own: 4,000 for those hours."""
BATCH_UTTERANCES, BATCH_FRAMES = 16, 6000
"""Of nano: what was measured, and the padded frames within which batches of that corpus hold so many. Of
longer utterances there are fewer."""
FILLED = 0.69
"""Of those frames: the part that is speech, on average."""
RATE, WARMUP = 2e-3, 30
"""Of nano; and of a model of the user's own half the rate."""
GUIDANCE = 5.0
"""Weight of guided attention, measured with ConvTTS (convergence-guidance.json)."""
TUNED_RATE, TUNED_STEPS = 1 / 2, 1 / 3
"""Of a run that starts from a voice, for which most is learnt already: by rule of thumb. The rate is whole
where that voice speaks another language."""
SMALL_FROM, BASE_FROM = 0.5, 5.0
"""Hours of speech."""
LONGEST_SECONDS, LONGEST_TEXT = 20, 600
BEST = "ttsfast"
"""The preset whose model this one takes; some of its values hold for every size."""
LEAST_STEPS, VALIDATIONS, LEAST_VAL_STEP = 1000, 20, 50


@dataclass(frozen=True)
class Speech:
    """What a store has to learn from: its training split."""

    hours: float
    utterance_seconds: float
    """Of the average one."""
    frames_per_second: float
    sample_rate: int
    n_mels: int
    tracks: tuple[str, ...] = ()
    """Of "pitch" and "energy", what the store holds."""

    @classmethod
    def of_store(cls, store: Store) -> Speech:
        """Raises InputError where nothing is in the training split."""
        indices, _ = select(store, "train")
        contract = store.contract
        pace = contract.sample_rate / contract.hop_length
        seconds = float(store.frames[indices].sum()) / pace
        return cls(
            seconds / 3600,
            seconds / len(indices),
            pace,
            contract.sample_rate,
            contract.n_mels,
            tuple(store.tracks),
        )

    def __str__(self) -> str:
        return (
            f"{self.hours:.1f} hours of speech"
            if self.hours >= 1
            else f"{60 * self.hours:.1f} minutes of speech"
        )


@dataclass(frozen=True)
class Choice:
    """Values that were chosen together, by ``section.key``, and why."""

    values: Mapping[str, Any]
    why: str

    def __str__(self) -> str:
        return f"{', '.join(f'{key}={shown_value(value)}' for key, value in self.values.items())}: {self.why}"


def chosen_keys() -> set[str]:
    """The keys that are chosen, by ``section.key``."""
    machines = Machine(cores=1, threads=1), Machine(cores=1, threads=1, gpu="any", half="bf16")
    tracks = ("pitch", "energy")
    speech = Speech(1.0, 3.0, frames_per_second=86.1, sample_rate=22050, n_mels=80, tracks=tracks)
    models: tuple[Values, ...] = ({}, {"model": {"architecture": CONVTTS}})
    made = [c for machine in machines for given in models for c in choose(machine, speech, given)]
    return {"training.run_folder", "data.store", *(key for choice in made for key in choice.values)}


class Choices:
    """What somebody set, and what is chosen beside it."""

    def __init__(self, given: Values) -> None:
        self.values = {f"{section}.{key}": v for section, keys in given.items() for key, v in keys.items()}
        """By ``section.key``."""
        self.made: list[Choice] = []

    def make(self, why: str, **wanted: Any) -> None:
        """Choose ``section__key=value``, where nobody set that key."""
        new = {key.replace("__", "."): value for key, value in wanted.items()}
        new = {key: value for key, value in new.items() if key not in self.values}
        self.values |= new
        if new:
            self.made.append(Choice(new, why))


def choose(machine: Machine, speech: Speech, given: Values, *, foreign: bool = False) -> list[Choice]:
    """Settings for a run. What is ``given`` stays as it is, and what is chosen fits it.

    ``foreign``: the voice that it starts from, if any, speaks another language.
    """
    chosen = Choices(given)
    chosen.make(
        "its words are right soonest, and it skips and repeats none; convtts is the other",
        model__architecture=PARALLELTTS,
    )
    architecture = chosen.values["model.architecture"]
    own = architecture not in BUILT_IN
    if not own:
        chosen.make(_why_size(machine, speech), model__size=_size(machine, speech))
    if architecture == PARALLELTTS:
        _parallel(speech, chosen)
    width = 1 if own else SIZES[chosen.values["model.size"]].channels // SIZES["nano"].channels
    _limits(speech, chosen)
    _batch(machine, speech, width, chosen)
    _rate(own, width, chosen, foreign)
    of_an_hour = STEPS_OF_AN_HOUR if architecture == PARALLELTTS else ATTENTIVE_STEPS_OF_AN_HOUR
    _steps(machine, speech, of_an_hour, width, chosen)
    chosen.make(
        "guided attention aligns within the first hundreds of steps", training__attention_loss_weight=GUIDANCE
    )
    _arithmetic(machine, chosen)
    chosen.make("as the store has them", data__sample_rate=speech.sample_rate, data__n_mels=speech.n_mels)
    return chosen.made


def _parallel(speech: Speech, chosen: Choices) -> None:
    preset = preset_values(BEST)
    chosen.make(
        f"as in the preset {BEST}: no symbol may last less than a step",
        model__reduction_factor=preset["model"]["reduction_factor"],
    )
    if speech.tracks:
        chosen.make("the store has them", **{f"model__{name}": True for name in speech.tracks})
    weights = {key: value for key, value in preset["training"].items() if key.endswith("_loss_weight")}
    chosen.make(
        f"as in the preset {BEST}: it learns durations, and has no stop token, attention or latent",
        **{f"training__{key}": value for key, value in weights.items()},
    )


def _size(machine: Machine, speech: Speech) -> str:
    if not machine.gpu or speech.hours < SMALL_FROM:
        return "nano"
    return "small" if speech.hours < BASE_FROM else "base"


def _why_size(machine: Machine, speech: Speech) -> str:
    if not machine.gpu:
        return "there is no GPU, and this is the size that a CPU trains in minutes to hours"
    return (
        f"for {speech} on a GPU; by rule of thumb small is for {SMALL_FROM:g} hours or more, base for "
        f"{BASE_FROM:g}"
    )


def _limits(speech: Speech, chosen: Choices) -> None:
    chosen.make(
        f"utterances of {LONGEST_SECONDS} s fit; longer ones are left out, and listed",
        data__max_mel_frames=math.ceil(LONGEST_SECONDS * speech.frames_per_second),
        data__max_text_length=LONGEST_TEXT,
    )


def _batch(machine: Machine, speech: Speech, width: int, chosen: Choices) -> None:
    # All ranks together have one batch, however many they are: so the rate may stay.
    among = f", shared by {machine.ranks} ranks" if machine.ranks > 1 else ""
    if "data.batch_size" in chosen.values:
        chosen.make("utterances are counted, as data.batch_size is given", data__frame_budget=0)
    tail = chosen.values.get("training.stop_tail_frames", 8) + chosen.values.get("model.reduction_factor", 4)
    longest = chosen.values["data.max_mel_frames"]
    least = padded_length(longest, tail, chosen.values.get("data.pad_to_multiple", 8))
    filled = BATCH_UTTERANCES * speech.utterance_seconds * speech.frames_per_second / FILLED
    frames = min(BATCH_FRAMES, int(round(filled, -1))) * width // machine.ranks
    chosen.make(
        f"for {BATCH_UTTERANCES * width} utterances like these, {BATCH_FRAMES * width:,} at most{among}",
        data__frame_budget=max(int(least), frames),
        data__batch_size=max(1, 4 * BATCH_UTTERANCES * width // machine.ranks),
        training__gradient_accumulation_steps=1,
    )


def _rate(own: bool, width: int, chosen: Choices, foreign: bool) -> None:
    rate = RATE / 2 if own else RATE / width
    why = f"nano's {RATE:g}, divided by {width} as the model is {width} times as wide"
    if own:
        why = "a usual rate for a small model; ttsfast train --find-lr finds that of yours"
    elif width == 1:
        why = "what nano was measured with"
    if _tunes(chosen) and foreign:
        why = f"{why}; and whole, as the voice that it starts from speaks another language"
    elif _tunes(chosen):
        rate, why = rate * TUNED_RATE, f"{why}; and halved, as it starts from a voice"
    chosen.make(why, training__learning_rate=rate)
    chosen.make(
        "a fiftieth of the rate", training__min_learning_rate=chosen.values["training.learning_rate"] / 50
    )


def _tunes(chosen: Choices) -> bool:
    return chosen.values.get("training.start_from", NONE) != NONE


def _steps(machine: Machine, speech: Speech, of_an_hour: int, width: int, chosen: Choices) -> None:
    steps = max(LEAST_STEPS, width * of_an_hour * math.sqrt(speech.hours))
    why = f"{of_an_hour * width:,} times the root of the hours, {LEAST_STEPS:,} at least"
    frames = chosen.values["data.frame_budget"] * machine.ranks
    # As much speech in all; 0: utterances are counted.
    more = round(BATCH_FRAMES * width / frames, 1) if frames else 1.0
    if more > 1:
        steps, why = more * steps, f"{why}; and {more:g} times that, as batches are small"
    steps = int(round(steps, -2))
    if _tunes(chosen):
        steps, why = int(steps * TUNED_STEPS), f"{why}; and a third, as it starts from a voice"
    chosen.make(why, training__max_steps=steps)
    steps = chosen.values["training.max_steps"]
    warmup = chosen.values.get("training.warmup_steps", min(WARMUP * width, max(1, steps // 10)))
    chosen.make(
        "one cosine takes the rate down over the whole run",
        training__warmup_steps=warmup,
        training__restart_period=max(1, steps - warmup),
    )
    every = max(LEAST_VAL_STEP, steps // VALIDATIONS)
    chosen.make(
        f"validated and kept {VALIDATIONS} times on the way, {LEAST_VAL_STEP} steps apart at least",
        training__val_step=every,
        training__save_step=every,
        training__log_step=50 if machine.gpu else 10,
    )


def _arithmetic(machine: Machine, chosen: Choices) -> None:
    if machine.gpu:
        why = "the GPU multiplies in it" if machine.half == "bf16" else "the GPU has no bf16"
        chosen.make(why, data__mixed_precision=True, training__amp_dtype=machine.half)
        chosen.make("threads that make batches", data__num_workers=min(machine.cores, 8))
        return
    asked = chosen.values.get("training.amp_dtype", "auto")
    wanted = "bf16" if asked == "auto" else asked
    if chosen.values["model.architecture"] not in BUILT_IN:
        chosen.make("float32, the sure choice for a model of your own on a CPU", data__mixed_precision=False)
    elif machine.half == wanted:
        chosen.make(f"the CPU has tiles for {wanted}, AMX", data__mixed_precision=True)
    else:
        chosen.make(f"float32, as the CPU has no tiles for {wanted}, AMX", data__mixed_precision=False)
    computing = f"{machine.threads} thread{'s' if machine.threads > 1 else ''} of torch"
    chosen.make(
        f"threads that make batches, beside {computing} (OMP_NUM_THREADS)",
        data__num_workers=min(machine.cores, 2),
    )
