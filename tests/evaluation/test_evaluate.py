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
import torch
from parrot import voice_of
from rich.console import Console

from ttsfast.data.corpus.text import TextFrontend
from ttsfast.data.features.contract import MelContract
from ttsfast.data.loading.batch import collate
from ttsfast.errors import InputError
from ttsfast.evaluation import baselines, metrics
from ttsfast.evaluation.distortion import warped
from ttsfast.evaluation.evaluate import evaluate
from ttsfast.evaluation.figures import Figures
from ttsfast.evaluation.result import Evaluation
from ttsfast.evaluation.targets import DEFINITIONS
from ttsfast.evaluation.validate import calibrate_stop
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
    # Four utterances tell nothing.
    assert saved["passed"] is False
    assert saved["verdict"] == "too few to tell"
    assert set(saved["verdicts"].values()) <= {"too few to tell", "counts for nothing"}
    assert saved["intervals"]["mel_l1"] == pytest.approx([0.1, 0.1], rel=1e-4)
    assert saved["baselines"]["natural"]["heard"] == saved["heard"] == 1.0
    assert set(saved["baselines"]["untrained"]) == {n for n in DEFINITIONS if saved[n] is not None}
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
        warped(np.zeros_like(m), m, corpus.contract).mcd
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
    cut = replace(whole, id="cut", truncated=True)
    both = baselines.predict_mean([whole, cut], corpus.mel_std, corpus.contract, 5.0)
    alone = baselines.predict_mean([whole], corpus.mel_std, corpus.contract, 5.0)
    assert both == pytest.approx(alone)
    only_cut = baselines.predict_mean([cut], corpus.mel_std, corpus.contract, None)
    assert set(only_cut) == {"mel_l1", "mel_l1_log"}


def test_a_mean_is_not_heard(evaluation: Evaluation) -> None:
    assert evaluation.baselines["predict_mean"]["heard"] == 0.0
    assert evaluation.baselines["copy_synthesis"]["heard"] > 0.9


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


def test_original_recordings(
    evaluation: Evaluation, corpus: Any, voice: Voice, untrained: Any, tmp_path: Path
) -> None:
    for sample in evaluation.samples:
        wave = corpus.waves[[u.id for u in corpus.utterances].index(sample.id)]
        assert sample.original is not None
        assert np.allclose(sample.original, wave, atol=1e-4)
    with pytest.raises(InputError, match=r"utt\d+.wav: no such file"):
        evaluate(voice, corpus, untrained=untrained, samples=1, copy_synthesis_utterances=0, corpus=tmp_path)


def test_without_the_recordings(corpus: Any, voice: Voice, untrained: Any) -> None:
    found = evaluate(voice, corpus, untrained=untrained, samples=1, worst=0, copy_synthesis_utterances=0)
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
    change: dict[str, Any], message: str, corpus: Any, voice: Voice, untrained: Any
) -> None:
    with pytest.raises(InputError, match=message):
        evaluate(replace(voice, **change), corpus, untrained=untrained)


def test_reports_on_the_test_split_where_there_is_one(
    corpus: Any, voice: Voice, untrained: Any, evaluation: Evaluation
) -> None:
    assert evaluation.split == "validation"
    tested = replace(corpus, splits=["validation", "test"] + ["train"] * (len(corpus.splits) - 2))
    found = evaluate(voice, tested, untrained=untrained, samples=1, worst=0, copy_synthesis_utterances=0)
    assert (found.split, found.samples[0].id, found.utterances) == ("test", "utt001", 1)
    asked = evaluate(
        voice, tested, "validation", untrained=untrained, samples=1, worst=0, copy_synthesis_utterances=0
    )
    assert (asked.split, asked.samples[0].id) == ("validation", "utt000")


def test_refuses_an_empty_split(corpus: Any, voice: Voice, untrained: Any) -> None:
    only_train = replace(corpus, splits=["train"] * len(corpus.splits))
    with pytest.raises(InputError, match="'validation' holds no utterance"):
        evaluate(voice, only_train, untrained=untrained)


def test_table_shows_baselines_beside_the_figures(evaluation: Evaluation) -> None:
    output = io.StringIO()
    Console(file=output, width=80).print(evaluation.table())
    text = output.getvalue()
    assert "4 utterances of the split 'validation': too few to tell" in text
    rows = [line.split("│") for line in text.splitlines() if "│" in line]
    lines = {name: [r for r in rows if r[1].strip() == name] for name in DEFINITIONS}
    judged, beside = lines["mel_l1"]
    assert "< " in judged[4]
    assert judged[5].strip() == "too few to tell"
    assert f"{evaluation.baselines['predict_mean']['mel_l1']:.3f}" in "".join(beside)
    assert f"{evaluation.baselines['copy_synthesis']['mcd_dtw']:.3f}" in "".join(lines["mcd_dtw"][1])
    assert f"{evaluation.baselines['untrained']['mcd_dtw']:.3f}" in "".join(lines["mcd_dtw"][1])
    assert evaluation.to_dict()["targets"]["mel_l1"].endswith("(predict mean)")


def test_not_a_number_never_reaches_the_file(evaluation: Evaluation, tmp_path: Path) -> None:
    nan = Figures()
    nan.add("monotonicity", "utt000", math.nan)
    broken = replace(evaluation, teacher_forced=nan)
    with pytest.raises(ValueError, match="JSON compliant"):
        broken.save(tmp_path / "metrics.json")
    assert not (tmp_path / "metrics.json").exists()


def test_uniform_attention_is_what_the_metric_says() -> None:
    expected = (
        metrics.diagonal_mass(np.full((10, 5), 0.2)) * 10 + metrics.diagonal_mass(np.ones((2, 1))) * 2
    ) / 12
    uniform = baselines.uniform_attention({"a": (10, 5), "b": (2, 1)})
    assert uniform["diagonal_mass"] == pytest.approx(expected)
    assert uniform.of("a")["coverage"] == 0.0


def test_the_worst_of_the_others_are_shown(corpus: Any, voice: Voice, parrot: Any, untrained: Any) -> None:
    held_out = sorted(corpus.indices("validation"), key=lambda i: corpus.frames[i])
    shown, worst, bad = (corpus[int(held_out[place])] for place in (0, 2, 1))
    faults = {len(worst.mel): 3.0, len(bad.mel): 1.0}
    ripple = torch.cos(torch.arange(80) / 5)
    parrot.says = lambda mel: mel + faults.get(len(mel), 0.0) * ripple
    found = evaluate(
        voice, corpus, untrained=untrained, samples=1, worst=2, copy_synthesis_utterances=0, batch_size=2
    )
    assert [s.id for s in found.samples] == [shown.id]
    assert [s.id for s in found.worst] == [worst.id, bad.id]
    assert np.array_equal(found.worst[0].target, found.worst[0].teacher_forced)


def test_every_utterance_and_speaker_has_its_figures(corpus: Any, parrot: Any, untrained: Any) -> None:
    two = replace(corpus, speakers=("anna", "berta"))
    held_out = two.indices("validation").tolist()
    for place, index in enumerate(held_out):
        two.entries[index].speaker = place % 2
    parrot.says = lambda mel: mel[: len(mel) // 2]
    found = evaluate(
        voice_of(two, parrot), two, untrained=untrained, samples=0, worst=0, copy_synthesis_utterances=0
    )
    for row in found.measured:
        index = [u.id for u in two.utterances].index(row.id)
        frames = int(two.frames[index])
        assert (row.recorded_frames, row.spoken_frames, row.stopped) == (frames, frames // 2, True)
        assert row.text == two.texts[index]
        assert found.figures.of(row.id)["cut_short"] == 1.0
    assert {row.id for row in found.measured} == {two[i].id for i in held_out}
    saved = found.to_dict()
    assert set(saved["by_utterance"]) == {two[i].id for i in held_out}
    frames = {name: [two.frames[i] for i in held_out[start::2]] for start, name in enumerate(two.speakers)}
    for name, own in frames.items():
        expected = np.mean([(n - n // 2) / n for n in own])
        assert saved["by_speaker"][name]["duration_error"] == pytest.approx(expected)


def test_an_untrained_stop_is_calibrated_like_the_voices(corpus: Any, voice: Voice, untrained: Any) -> None:
    thresholds = []
    synthesize = untrained.synthesize

    def noted(*inputs: Any, stop_threshold: float, **limits: Any) -> Any:
        thresholds.append(stop_threshold)
        return synthesize(*inputs, **limits)

    untrained.synthesize = noted
    evaluate(voice, corpus, untrained=untrained, samples=0, worst=0, copy_synthesis_utterances=0)
    utterances = [corpus[int(i)] for i in corpus.indices("validation")]
    calibrated = calibrate_stop(untrained, [collate(utterances, pad_value=corpus.silence)], "cpu")
    assert thresholds == [calibrated] != [voice.stop_threshold]
