"""The two validation passes and the stop calibration, on a model whose every fault is known."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from ttsfast.data.loading.batch import Batch
from ttsfast.errors import InputError
from ttsfast.evaluation import metrics
from ttsfast.evaluation.distortion import warped
from ttsfast.evaluation.figures import Figures
from ttsfast.evaluation.samples import ValidationSample
from ttsfast.evaluation.validate import calibrate_stop, free_running, teacher_forced
from ttsfast.models.interface import AcousticOutput

ONE_BY_ONE = [[0], [1], [2], [3], [4], [5], [6], [7], [8], [9]]
TOGETHER = [list(range(10))]
UNEVEN = [[6, 5, 0], [1, 2, 3, 4], [7, 9, 8]]


def same(first: Mapping[str, float], second: Mapping[str, float]) -> None:
    assert first.keys() == second.keys()
    assert first
    for name, value in first.items():
        assert math.isfinite(value), name
        assert second[name] == pytest.approx(value, rel=1e-12), name


class TestTeacherForced:
    def test_a_perfect_model(self, parrot: Any, batches: Any, corpus: Any) -> None:
        result = teacher_forced(parrot, batches(UNEVEN), "cpu", mel_std=corpus.mel_std)
        assert result == {
            "mel_l1": 0.0,
            "mel_l1_log": 0.0,
            "diagonal_mass": pytest.approx(1.0),
            "coverage": 1.0,
            "monotonicity": 1.0,
            "stop_f1": 1.0,
        }

    def test_a_known_error(self, parrot: Any, batches: Any, corpus: Any) -> None:
        parrot.offset = 0.25
        result = teacher_forced(parrot, batches(UNEVEN), "cpu", mel_std=corpus.mel_std)
        assert result["mel_l1"] == pytest.approx(0.25, rel=1e-5)
        assert result["mel_l1_log"] == pytest.approx(0.25 * corpus.mel_std.mean(), rel=1e-5)

    def test_frames_weigh_and_batching_does_not(self, parrot: Any, batches: Any, corpus: Any) -> None:
        # The longer the utterance the larger its error, so a mean over utterances or batches would differ.
        forward = parrot.forward

        def worse_when_long(text: Any, lengths: Any, mel: Any, mel_lengths: Any, speaker: Any) -> Any:
            output = forward(text, lengths, mel, mel_lengths, speaker)
            output.mel = output.mel + mel_lengths[:, None, None] / 100
            return output

        parrot.forward = worse_when_long
        results = [teacher_forced(parrot, batches(rows), "cpu") for rows in (UNEVEN, ONE_BY_ONE, TOGETHER)]
        expected = (corpus.frames / 100 * corpus.frames).sum() / corpus.frames.sum()
        assert results[0]["mel_l1"] == pytest.approx(expected, rel=1e-5)
        same(results[0], results[1])
        same(results[0], results[2])

    @pytest.mark.parametrize(("shift", "expected"), [(0, 1.0), (2, 1.0), (-2, 1.0), (3, 0.0), (-3, 0.0)])
    def test_stop_within_eight_frames(self, parrot: Any, batches: Any, shift: int, expected: float) -> None:
        parrot.stop_shift = shift
        # Alone, the shortest utterances have no more padding than the tail; together, plenty.
        for rows in (ONE_BY_ONE, TOGETHER):
            assert teacher_forced(parrot, batches(rows), "cpu")["stop_f1"] == expected

    def test_threshold_decides_where_the_stop_fires(self, parrot: Any, batches: Any) -> None:
        assert teacher_forced(parrot, batches(UNEVEN), "cpu", stop_threshold=0.999)["stop_f1"] == 0.0

    def test_heads_are_averaged(self, parrot: Any, batches: Any) -> None:
        expected = teacher_forced(parrot, batches(UNEVEN), "cpu")
        parrot.heads = 3
        same(teacher_forced(parrot, batches(UNEVEN), "cpu"), expected)

    def test_a_mapping_with_the_least_a_model_gives(self, batches: Any) -> None:
        class Least(torch.nn.Module):
            def forward(self, text: Any, lengths: Any, mel: Any, mel_lengths: Any, speaker: Any) -> Any:
                return {"mel": (mel + 9.0, mel + 1.0)}

        assert teacher_forced(Least(), batches(UNEVEN), "cpu") == {"mel_l1": pytest.approx(1.0)}

    def test_truncated_clips_count_for_the_mel_alone(self, parrot: Any, batches: Any) -> None:
        parrot.stop_shift, parrot.offset = 5, 0.5
        (batch,) = batches(TOGETHER)
        only = replace(batch, truncated=torch.ones(10, dtype=torch.bool))
        assert teacher_forced(parrot, [only], "cpu") == {"mel_l1": pytest.approx(0.5, rel=1e-5)}

    def test_samples_are_cut_and_complete(self, parrot: Any, batches: Any, corpus: Any) -> None:
        seen: list[ValidationSample] = []
        figures = teacher_forced(parrot, batches(UNEVEN), "cpu", on_sample=seen.append)
        assert [s.id for s in seen] == [corpus[i].id for row in UNEVEN for i in row]
        for sample, i in zip(seen, [i for row in UNEVEN for i in row], strict=True):
            utterance = corpus[i]
            assert np.array_equal(sample.target, utterance.mel.astype(np.float32))
            assert np.array_equal(sample.text, utterance.text)
            assert sample.predicted.shape == utterance.mel.shape
            assert sample.attention is not None
            assert sample.attention.shape == (-(-len(utterance.mel) // 4), len(utterance.text))
            assert sample.figures["mel_l1"] == 0.0
            assert figures.of(sample.id) == sample.figures


class TestFreeRunning:
    def run(self, model: Any, batches: list[Batch], **options: Any) -> Figures:
        return free_running(model, batches, "cpu", stop_threshold=0.5, max_frames=400, **options)

    def test_a_perfect_model(self, parrot: Any, batches: Any, corpus: Any) -> None:
        result = self.run(parrot, batches(UNEVEN), mel_std=corpus.mel_std, contract=corpus.contract)
        assert result == {
            "stop_rate": 1.0,
            "duration_error": 0.0,
            "right_length": 1.0,
            "ran_on": 0.0,
            "cut_short": 0.0,
            "mcd_dtw": pytest.approx(0.0, abs=1e-6),
            "mcd_dtw_sl": pytest.approx(0.0, abs=1e-6),
            "heard": 1.0,
            "diagonal_mass": pytest.approx(1.0),
            "coverage": 1.0,
            "monotonicity": 1.0,
        }

    def test_duration_by_hand(self, parrot: Any, batches: Any, corpus: Any) -> None:
        parrot.late_frames = 6
        result = self.run(parrot, batches(UNEVEN))
        assert result["duration_error"] == pytest.approx((6 / corpus.frames).mean())
        same(result, self.run(parrot, batches(ONE_BY_ONE)))

    def test_never_stopping(self, parrot: Any, batches: Any, corpus: Any) -> None:
        parrot.stops = False
        result = self.run(parrot, batches(UNEVEN))
        assert result["stop_rate"] == result["right_length"] == 0.0
        assert result["ran_on"] == pytest.approx((1.5 * corpus.frames < 400).mean())
        assert result["duration_error"] == pytest.approx(((400 - corpus.frames) / corpus.frames).mean())

    def test_distortion_is_that_of_the_log_mel(self, parrot: Any, batches: Any, corpus: Any) -> None:
        parrot.offset = 0.3
        seen: list[ValidationSample] = []
        result = self.run(
            parrot, batches([[6]]), mel_std=corpus.mel_std, contract=corpus.contract, on_sample=seen.append
        )
        in_log_units = [m * corpus.mel_std + corpus.mel_mean for m in (seen[0].predicted, seen[0].target)]
        expected = warped(*in_log_units, corpus.contract).mcd
        assert result["mcd_dtw"] == pytest.approx(expected, rel=1e-4)
        assert result["mcd_dtw"] > 0.1

    def test_truncated_clips_have_no_true_end(self, parrot: Any, batches: Any, corpus: Any) -> None:
        parrot.late_frames = 20
        (batch,) = batches(TOGETHER)
        only = replace(batch, truncated=torch.ones(10, dtype=torch.bool))
        result = self.run(parrot, [only], mel_std=corpus.mel_std, contract=corpus.contract)
        assert set(result) == {"stop_rate", "diagonal_mass", "coverage", "monotonicity"}

    def test_statistics_and_contract_belong_together(self, parrot: Any, batches: Any, corpus: Any) -> None:
        with pytest.raises(ValueError, match="or neither"):
            self.run(parrot, batches(UNEVEN), mel_std=corpus.mel_std)


@pytest.mark.parametrize(
    "run", [teacher_forced, lambda *a: free_running(*a, stop_threshold=0.5, max_frames=99)]
)
class TestBothPasses:
    def test_leave_no_trace(self, run: Any, parrot: Any, batches: Any) -> None:
        parrot.train()
        parrot.frozen.eval()
        before = [m.training for m in parrot.modules()]
        torch.manual_seed(3)
        state = torch.get_rng_state()
        run(parrot, batches(UNEVEN), "cpu")
        assert [m.training for m in parrot.modules()] == before
        assert True in before
        assert False in before
        assert torch.equal(torch.get_rng_state(), state)
        assert not torch.is_inference_mode_enabled()
        for seen in parrot.seen:
            assert not any(seen["training"])
            assert seen["inference"]
            assert seen["speaker"] is not None

    def test_restores_the_model_when_it_fails(self, run: Any, parrot: Any, batches: Any) -> None:
        parrot.known.clear()
        parrot.train()
        parrot.forward = lambda *a, **k: 1 / 0
        with pytest.raises((ZeroDivisionError, KeyError)):
            run(parrot, batches(UNEVEN), "cpu")
        assert parrot.training

    def test_random_models_give_the_same_figures_again(self, run: Any, parrot: Any, batches: Any) -> None:
        for seed in (1, 2):
            torch.manual_seed(seed)
            run(parrot, batches([[0, 1]]), "cpu")
        assert parrot.seen[0]["noise"] == parrot.seen[1]["noise"]

    @pytest.mark.parametrize("output", ["mel", "attention"])
    def test_nan_is_an_error_with_the_utterance(
        self, run: Any, parrot: Any, batches: Any, output: str
    ) -> None:
        parrot.poison = output
        with pytest.raises(InputError, match=rf"'utt006'.*{output}.*diverged"):
            run(parrot, batches(UNEVEN), "cpu")

    def test_no_utterance_is_an_error(self, run: Any, parrot: Any) -> None:
        with pytest.raises(InputError, match="no utterance to validate"):
            run(parrot, [], "cpu")


class TestCalibration:
    def test_middle_of_the_plateau(self, parrot: Any, batches: Any) -> None:
        # The stop is at -5 before the end and 5 after: any threshold between is as good.
        assert calibrate_stop(parrot, batches(UNEVEN), "cpu") == pytest.approx(0.5, abs=0.01)

    def test_false_alarms_push_the_threshold_up(self, parrot: Any, batches: Any) -> None:
        threshold = self.with_logits(parrot, batches, early=2.0, end=4.0)
        assert metrics.logit(threshold) == pytest.approx(3.0, abs=0.05)

    def test_a_shy_stop_pulls_it_down(self, parrot: Any, batches: Any) -> None:
        threshold = self.with_logits(parrot, batches, early=-5.0, end=-3.0)
        assert metrics.logit(threshold) == pytest.approx(-4.0, abs=0.05)

    def test_one_odd_utterance_does_not_decide(self, parrot: Any, batches: Any) -> None:
        forward = parrot.forward

        def one_odd(text: Any, *rest: Any, speaker: Any) -> AcousticOutput:
            output = forward(text, *rest, speaker=speaker)
            for row in range(len(text)):
                # Utterance 6 alone fires one step early unless the threshold is above 4.5.
                if rest[0][row] == 42:
                    output.stop_logits[row, int(output.step_lengths[row]) - 2] = 4.5
            return output

        parrot.forward = one_odd
        threshold = calibrate_stop(parrot, batches(UNEVEN), "cpu")
        assert metrics.logit(threshold) == pytest.approx(0.0, abs=0.1)

    def test_not_stopping_is_worse_than_stopping_a_step_early(self, parrot: Any, batches: Any) -> None:
        forward = parrot.forward

        def shy_or_hasty(*args: Any, speaker: Any) -> AcousticOutput:
            output = forward(*args, speaker=speaker)
            for row, symbols in enumerate(args[1].tolist()):
                last = int(output.step_lengths[row]) - 1
                if symbols > 12:
                    output.stop_logits[row, last:] = -2.0
                else:
                    output.stop_logits[row, last - 1] = -1.0
            return output

        parrot.forward = shy_or_hasty
        threshold = calibrate_stop(parrot, batches(UNEVEN), "cpu")
        assert metrics.logit(threshold) == pytest.approx(-3.5, abs=0.05)

    def test_batching_does_not_matter(self, parrot: Any, batches: Any) -> None:
        values = [calibrate_stop(parrot, batches(rows), "cpu") for rows in (UNEVEN, ONE_BY_ONE, TOGETHER)]
        assert values[0] == values[1] == values[2]

    def test_an_untrained_stop_still_gives_a_threshold(self, parrot: Any, batches: Any) -> None:
        assert 0.0 < self.with_logits(parrot, batches, early=0.0, end=0.0) < 1.0

    def test_truncated_clips_teach_nothing(self, parrot: Any, batches: Any) -> None:
        (batch,) = batches(TOGETHER)
        with pytest.raises(InputError, match="no held-out utterance with a true end"):
            calibrate_stop(parrot, [replace(batch, truncated=torch.ones(10, dtype=torch.bool))], "cpu")

    def test_nan_is_an_error(self, parrot: Any, batches: Any) -> None:
        parrot.poison = "stop"
        with pytest.raises(InputError, match=r"'utt006'.*stop"):
            calibrate_stop(parrot, batches(UNEVEN), "cpu")

    def test_a_model_without_stop(self, parrot: Any, batches: Any) -> None:
        parrot.forward = lambda *a, **k: AcousticOutput(a[2])
        with pytest.raises(ValueError, match="no stop logits"):
            calibrate_stop(parrot, batches(UNEVEN), "cpu")

    def with_logits(self, parrot: Any, batches: Any, early: float, end: float) -> float:
        forward = parrot.forward

        def replaced(*args: Any, speaker: Any) -> AcousticOutput:
            output = forward(*args, speaker=speaker)
            output.stop_logits = torch.where(output.stop_logits > 0, end, early)
            return output

        parrot.forward = replaced
        return calibrate_stop(parrot, batches(UNEVEN), "cpu")
