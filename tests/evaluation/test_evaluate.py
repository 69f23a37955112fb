"""Evaluation of a voice: figures, baselines beside them, samples, and what it refuses."""

from __future__ import annotations

import io
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from ttsfast.data.corpus.text import TextFrontend
from ttsfast.data.features.contract import MelContract
from ttsfast.errors import InputError
from ttsfast.evaluation import baselines, metrics
from ttsfast.evaluation.evaluate import Evaluation, evaluate
from ttsfast.evaluation.targets import DEFINITIONS, TARGETS, judge
from ttsfast.models.voice import Voice


def test_metrics_json(evaluation: Evaluation, corpus: Any, tmp_path: Path) -> None:
    evaluation.save(tmp_path / "metrics.json")
    saved = json.loads((tmp_path / "metrics.json").read_text())
    held_out = [corpus[int(i)] for i in corpus.indices("validation")]
    assert saved["mel_l1"] == pytest.approx(0.1, rel=1e-4)
    assert saved["mel_l1_log"] == pytest.approx(0.1 * corpus.mel_std.mean(), rel=1e-4)
    for name in ("diagonal_mass", "coverage", "monotonicity", "stop_f1", "stop_rate"):
        assert saved[name] == pytest.approx(1.0), name
    assert saved["duration_error"] == 0.0
    assert saved["mcd_dtw"] > 0.0
    assert saved["utterances"] == len(held_out) == 4
    assert saved["frames"] == sum(len(u.mel) for u in held_out)
    assert saved["stop_threshold"] == 0.5
    assert saved["passed"] is True
    assert set(saved["definitions"]) == set(DEFINITIONS) <= set(saved)
    assert saved["baselines"]["predict_mean"]["mel_l1"] > saved["mel_l1"]
    assert MelContract.from_dict(saved["mel_contract"]) == corpus.contract


def test_baselines_by_hand(evaluation: Evaluation, corpus: Any) -> None:
    held_out = [corpus[int(i)] for i in corpus.indices("validation")]
    frames = np.concatenate([u.mel for u in held_out]).astype(np.float64)
    mean = evaluation.baselines["predict_mean"]
    assert mean["mel_l1"] == pytest.approx(np.abs(frames).mean())
    assert mean["mel_l1_log"] == pytest.approx((np.abs(frames) * corpus.mel_std).mean())
    distortions = [
        metrics.mcd_dtw(np.zeros_like(m), m, corpus.contract)
        for m in (u.mel.astype(np.float32) * corpus.mel_std for u in held_out)
    ]
    assert mean["mcd_dtw"] == pytest.approx(np.mean(distortions))
    train = corpus.indices("train")
    rate = corpus.frames[train].sum() / corpus.text_lengths[train].sum()
    errors = [abs(round(rate * len(u.text)) - len(u.mel)) / len(u.mel) for u in held_out]
    assert mean["duration_error"] == pytest.approx(np.mean(errors))
    assert 0.2 < evaluation.baselines["uniform_attention"]["diagonal_mass"] < 0.4
    copied = evaluation.baselines["copy_synthesis"]
    assert 0.0 < copied["mel_l1"] < mean["mel_l1"]
    assert copied["mel_l1_log"] < mean["mel_l1_log"]
    assert copied["mcd_dtw"] < mean["mcd_dtw"]


def test_predict_mean_leaves_out_what_has_no_end(corpus: Any) -> None:
    whole = replace(corpus[0], truncated=False)
    cut = replace(whole, truncated=True)
    both = baselines.predict_mean([whole, cut], corpus.mel_std, corpus.contract, 5.0)
    alone = baselines.predict_mean([whole], corpus.mel_std, corpus.contract, 5.0)
    assert both == pytest.approx(alone)
    only_cut = baselines.predict_mean([cut], corpus.mel_std, corpus.contract, None)
    assert set(only_cut) == {"mel_l1", "mel_l1_log"}


def test_samples(evaluation: Evaluation, corpus: Any) -> None:
    held_out = corpus.indices("validation")
    by_length = sorted(held_out, key=lambda i: corpus.frames[i])
    assert [s.id for s in evaluation.samples] == [corpus[int(i)].id for i in (by_length[0], by_length[-1])]
    for sample in evaluation.samples:
        index = [u.id for u in corpus.utterances].index(sample.id)
        log_mel = corpus[index].mel.astype(np.float32) * corpus.mel_std + corpus.mel_mean
        assert np.allclose(sample.target, log_mel, atol=1e-4)
        assert np.allclose(sample.free_running, log_mel + 0.1 * corpus.mel_std, atol=1e-3)
        assert "".join(sample.symbols) == sample.text == corpus.texts[index]
        assert sample.stopped
        assert set(sample.figures) <= set(DEFINITIONS)
        hop = corpus.contract.hop_length
        for wave in (sample.synthesised, sample.copy_synthesis):
            assert abs(len(wave) / hop - len(log_mel)) <= 1
            assert np.abs(wave).max() > 0.01


def test_original_recordings(evaluation: Evaluation, corpus: Any, voice: Voice, tmp_path: Path) -> None:
    for sample in evaluation.samples:
        wave = corpus.waves[[u.id for u in corpus.utterances].index(sample.id)]
        assert sample.original is not None
        assert np.allclose(sample.original, wave, atol=1e-4)
    with pytest.raises(InputError, match=r"utt\d+.wav: no such file"):
        evaluate(voice, corpus, samples=1, copy_synthesis_utterances=0, corpus=tmp_path)


def test_without_the_recordings(corpus: Any, voice: Voice) -> None:
    found = evaluate(voice, corpus, samples=1, copy_synthesis_utterances=0)
    assert found.samples[0].original is None
    assert "copy_synthesis" not in found.baselines


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"contract": MelContract.preset("hifigan-22k")}, "prepared with magnitude_epsilon 0.0"),
        ({"speakers": ("berta",)}, "speakers differ"),
        ({"frontend": TextFrontend("fa")}, "text front end differ"),
        ({"mel_std": np.ones(80, np.float32)}, "standard deviation"),
        ({"mel_mean": np.zeros(80, np.float32)}, r"statistics \(mean\)"),
    ],
)
def test_refuses_a_store_of_other_features(
    change: dict[str, Any], message: str, corpus: Any, voice: Voice
) -> None:
    with pytest.raises(InputError, match=message):
        evaluate(replace(voice, **change), corpus)


def test_reports_on_the_test_split_where_there_is_one(
    corpus: Any, voice: Voice, evaluation: Evaluation
) -> None:
    assert evaluation.split == "validation"
    tested = replace(corpus, splits=["validation", "test"] + ["train"] * (len(corpus.splits) - 2))
    found = evaluate(voice, tested, samples=1, copy_synthesis_utterances=0)
    assert (found.split, found.samples[0].id, found.utterances) == ("test", "utt001", 1)
    asked = evaluate(voice, tested, "validation", samples=1, copy_synthesis_utterances=0)
    assert (asked.split, asked.samples[0].id) == ("validation", "utt000")


def test_refuses_an_empty_split(corpus: Any, voice: Voice) -> None:
    only_train = replace(corpus, splits=["train"] * len(corpus.splits))
    with pytest.raises(InputError, match="'validation' holds no utterance"):
        evaluate(voice, only_train)


class TestVerdict:
    perfect = {  # noqa: RUF012
        "mel_l1": 0.3,
        "diagonal_mass": 0.9,
        "coverage": 0.98,
        "duration_error": 0.1,
        "stop_rate": 0.95,
    }
    beside = {"predict_mean": {"mel_l1": 0.8}}  # noqa: RUF012

    def passed(self, **changes: float | None) -> dict[str, bool | None]:
        figures = {k: v for k, v in (self.perfect | changes).items() if v is not None}
        return {v.name: v.passed for v in judge(figures, self.beside)}

    def test_bounds_are_met_when_reached(self) -> None:
        verdicts = self.passed()
        assert {name for name, passed in verdicts.items() if passed} == set(TARGETS)
        assert {name for name, passed in verdicts.items() if passed is None} == set(DEFINITIONS) - set(
            TARGETS
        )

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("mel_l1", 0.8),
            ("diagonal_mass", 0.899),
            ("coverage", 0.979),
            ("duration_error", 0.101),
            ("stop_rate", 0.949),
            ("mel_l1", None),
            ("coverage", None),
        ],
    )
    def test_each_target_can_be_missed(self, name: str, value: float | None) -> None:
        verdicts = self.passed(**{name: value})
        assert [n for n, passed in verdicts.items() if passed is False] == [name]

    def test_a_missed_target_fails_the_whole(self, evaluation: Evaluation) -> None:
        assert evaluation.passed
        assert not replace(evaluation, figures=evaluation.figures | {"coverage": 0.5}).passed
        unmeasured = {k: v for k, v in evaluation.figures.items() if k != "stop_rate"}
        missing = replace(evaluation, figures=unmeasured)
        assert not missing.passed
        assert missing.to_dict()["stop_rate"] is None

    def test_table_shows_baselines_beside_the_figures(self, evaluation: Evaluation) -> None:
        output = io.StringIO()
        Console(file=output, width=80).print(evaluation.table())
        lines = {line.split()[1]: line for line in output.getvalue().splitlines() if "│" in line}
        assert f"{evaluation.baselines['predict_mean']['mel_l1']:.3f}" in lines["mel_l1"]
        assert f"{evaluation.baselines['copy_synthesis']['mcd_dtw']:.3f}" in lines["mcd_dtw"]
        assert "pass" in lines["coverage"]
        assert "< " in lines["mel_l1"]
        assert evaluation.to_dict()["targets"]["mel_l1"].endswith("(predict mean)")


def test_not_a_number_never_reaches_the_file(evaluation: Evaluation, tmp_path: Path) -> None:
    broken = replace(evaluation, figures=evaluation.figures | {"mel_l1": math.nan})
    with pytest.raises(ValueError, match="JSON compliant"):
        broken.save(tmp_path / "metrics.json")
    assert not (tmp_path / "metrics.json").exists()


def test_uniform_attention_is_what_the_metric_says() -> None:
    expected = (
        metrics.diagonal_mass(np.full((10, 5), 0.2)) * 10 + metrics.diagonal_mass(np.ones((2, 1))) * 2
    ) / 12
    assert baselines.uniform_attention([(10, 5), (2, 1)])["diagonal_mass"] == pytest.approx(expected)
