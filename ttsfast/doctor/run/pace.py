"""What a run waits for, and how much of the corpus a step sees."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ttsfast.data.checks.finding import WARNING, Finding
from ttsfast.doctor.run.subject import Run, RunCheck, at, each


class LoaderBound(RunCheck):
    """Steps that wait for their batch."""

    name = "loader"
    training = ("percent_data",)
    shows = ("percent_data", "frames_per_second")
    effect = "the device is idle meanwhile: the run takes so much longer"
    remedy = (
        "raise data.num_workers, let features be stored (data.preprocessing_mode=precompute), or keep the "
        "corpus on "
        "the device (data.corpus_on_device)"
    )
    most = 20.0
    """Per cent of the time. Clean runs waited for 0.3; a plain loader waits for up to 10."""

    def find(self, run: Run) -> Iterator[Finding]:
        curve = run.training["percent_data"].finite
        share = float(np.median(curve.values))
        if share > self.most:
            slow = curve.where(curve.values > self.most)
            what = f"{share:.0f}% of the time went on waiting for data"
            yield self.finding(WARNING, what, each(slow, "per cent"), percent=share, most=self.most)


class BatchSize(RunCheck):
    """Steps that see too little of the corpus, or nearly all of it."""

    name = "batch"
    of_ours = with_corpus = True
    shows = ("mel", "gradient_norm", "attention")
    few = 8.0
    """Utterances of a step. Below 32 Tacotron 2 at r = 1 was reported not to align (Rayhane-mamah/Tacotron-2
    175); clean runs of the convolutional model had 15 and 16."""
    least = 4.0
    """Steps of an epoch."""

    def find(self, run: Run) -> Iterator[Finding]:
        config, corpus = run.config, run.corpus
        assert config is not None
        assert corpus is not None
        k, utterances = config.training.gradient_accumulation_steps, run.utterances_per_step
        steps = corpus.utterances / utterances
        seen = [at(run.last_step, f"{run.last_step * utterances / corpus.utterances:.1f} epochs")]
        if steps < self.least:
            yield self.finding(
                WARNING,
                f"a step takes {min(utterances, corpus.utterances):.0f} of the corpus's {corpus.utterances} "
                f"utterances: {steps:.1f} steps an epoch",
                seen,
                effect="every step has nearly the same gradient, and takes as long as many: few steps are "
                "taken",
                remedy=f"set data.batch_size to {max(1, corpus.utterances // 16)} or less"
                + (", and training.gradient_accumulation_steps to 1" if k > 1 else ""),
                utterances=utterances,
                steps=steps,
            )
        elif utterances < self.few:
            yield self.finding(
                WARNING,
                f"a step takes {utterances:.0f} utterances",
                seen,
                effect="gradients are mostly noise: attention forms late or not at all, and the rate must "
                "be low",
                remedy="raise data.batch_size, or training.gradient_accumulation_steps where memory is short",
                utterances=utterances,
                least=self.few,
            )


CHECKS = (BatchSize(), LoaderBound())
