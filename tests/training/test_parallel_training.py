"""The parallel model in the trainer: its alignment, durations and energy are learnt, exactly resumed, and
accumulated as one batch."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from ttsfast.config import Config
from ttsfast.data.loading.batch import collate
from ttsfast.data.prepare.prepare import PrepareOptions, prepare
from ttsfast.data.store.store import Store
from ttsfast.errors import InputError
from ttsfast.evaluation.log import read_log
from ttsfast.models.checkpoint import checkpoints
from ttsfast.models.paralleltts import ParallelTTS
from ttsfast.models.paralleltts_config import ParallelTTSConfig
from ttsfast.models.voice_info import VoiceInfo
from ttsfast.training.setup import forever
from ttsfast.training.trainer import Trainer

SPEECH = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "ljspeech-mini"
WEIGHTS = {
    "training__kl_loss_weight": 0.0,
    "training__stop_loss_weight": 0.0,
    "training__attention_loss_weight": 0.0,
    "training__alignment_loss_weight": 1.0,
    "training__binarization_loss_weight": 0.1,
}


@pytest.fixture(scope="module")
def energetic(store_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny store, with energy."""
    store = tmp_path_factory.mktemp("energetic") / "store"
    corpus = store_path.parent / "corpus"
    prepare(corpus, store, PrepareOptions(validation_fraction=0.2, jobs=1, energy=True))
    return store


@pytest.fixture
def configured(make_config: Callable[..., Config], energetic: Path) -> Callable[..., Config]:
    return partial(make_config, data__store=str(energetic), **WEIGHTS)


def tiny(store: Path, **changes: Any) -> ParallelTTS:
    torch.manual_seed(1)
    voice = VoiceInfo.of_store(Store.open(store))
    shape = {"channels": 8, "text_dilations": (1,), "decoder_dilations": (1, 2), "aligner_channels": 8}
    config = ParallelTTSConfig(**{**shape, "energy": True, **changes})
    tracks, silence = voice.tracks, torch.from_numpy(voice.silence)
    return ParallelTTS(config, len(voice.symbols), 80, 1, silence=silence, statistics=tracks)


def weights_of(trainer: Trainer) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in trainer.model.parameters()])


def test_a_resumed_run_takes_the_same_steps(
    configured: Callable[..., Config], energetic: Path, tmp_path: Path
) -> None:
    last = {"training__early_stopping_restore_best_weights": False}
    with Trainer(configured(**last), model=tiny(energetic)) as whole:
        whole.fit()
    rows = read_log(whole.run_folder)
    steps = [row for row in rows if row["kind"] == "train"]
    assert all(row["alignment"] > 0 and row["binarization"] > 0 for row in steps)
    figures = [row for row in rows if row["kind"] == "validation"][-1]
    assert figures["coverage"] == figures["monotonicity"] == 1.0
    assert {"diagonal_mass", "duration_error", "mcd_dtw_sl"} <= set(figures)
    assert "stop_f1" not in figures
    part = configured(training__run_folder=str(tmp_path / "part"), **last)
    with Trainer(part, model=tiny(energetic)) as first:
        first.fit()
    # As if killed after the checkpoint of step 4.
    for path in checkpoints(tmp_path / "part"):
        if int(path.name.split("-")[1]) > 4:
            shutil.rmtree(path)
    torch.manual_seed(99)
    with Trainer(part, model=tiny(energetic), resume=True) as second:
        assert second.step == 4
        second.fit()
    assert torch.equal(weights_of(second), weights_of(whole))


def test_accumulated_micro_batches_equal_one_large_batch(
    configured: Callable[..., Config], energetic: Path, tmp_path: Path
) -> None:
    weights = []
    for parts in (1, 2, 4):
        config = configured(
            training__run_folder=str(tmp_path / str(parts)),
            training__optimizer="adam",
            training__eps=1e-2,
            training__use_adaptive_loss_weights=False,
        )
        with Trainer(config, model=tiny(energetic, dropout=0.0)) as trainer:
            utterances = [trainer.store[int(i)] for i in trainer.store.indices("train")[:8]]
            size = -(-len(utterances) // parts)
            before = weights_of(trainer)
            for _ in range(2):
                trainer.train_step(
                    [
                        collate(utterances[s : s + size], pad_value=trainer.store.silence)
                        for s in range(0, len(utterances), size)
                    ]
                )
            weights.append(weights_of(trainer))
            assert (weights[-1] - before).abs().max() > 1e-3
    for others in weights[1:]:
        assert torch.allclose(others, weights[0], rtol=0, atol=1e-5)


def test_a_store_without_the_track_is_refused_in_one_line(
    make_config: Callable[..., Config], energetic: Path
) -> None:
    named = {"model__architecture": "paralleltts", "model__reduction_factor": 2, **WEIGHTS}
    with pytest.raises(InputError, match="the model learns pitch, and the store has no track of it"):
        Trainer(make_config(data__store=str(energetic), model__pitch=True, **named))
    with pytest.raises(InputError, match="the model learns energy, and the store has no track of it"):
        Trainer(make_config(**WEIGHTS), model=tiny(energetic))


@pytest.mark.skipif(
    not SPEECH.is_dir(), reason="no real speech beside the repository (shared/data/ljspeech-mini)"
)
def test_pitch_and_energy_of_real_speech_reach_the_model(
    make_config: Callable[..., Config], tmp_path: Path
) -> None:
    """Of its three shortest clips: they are learnt, and pitch is raised where that is asked for."""
    pytest.importorskip("librosa", reason="librosa is not installed (extra 'pitch')")
    clips = sorted((SPEECH / "wavs").iterdir(), key=lambda clip: clip.stat().st_size)[:3]
    (tmp_path / "wavs").mkdir()
    for clip in clips:
        shutil.copy(clip, tmp_path / "wavs")
    lines = (SPEECH / "metadata.csv").read_text(encoding="utf-8").splitlines()
    chosen = [line for line in lines if line.split("|")[0] in {clip.stem for clip in clips}]
    (tmp_path / "metadata.csv").write_text("\n".join(chosen) + "\n", encoding="utf-8")
    store = tmp_path / "store"
    prepare(tmp_path, store, PrepareOptions(validation_fraction=0.34, jobs=1, pitch=True, energy=True))
    mean, _ = Store.open(store).tracks["pitch"]
    # Of a woman.
    assert 150 < mean < 280
    config = make_config(data__store=str(store), data__batch_size=2, **WEIGHTS)
    with Trainer(config, model=tiny(store, pitch=True)) as trainer:
        untrained = [p.clone() for p in trainer.model.variances.parameters()]
        batches = forever(trainer.loader)
        for _ in range(2):
            trainer.train_step([next(batches)])
        for before, after in zip(untrained, trainer.model.variances.parameters(), strict=True):
            assert not torch.equal(before, after)
        text = torch.tensor([[3, 4, 5, 6]])
        usual, higher = (
            trainer.model.synthesize(text, torch.tensor([4]), max_frames=100, pitch=semitones).mel
            for semitones in (0.0, 6.0)
        )
    assert usual.shape == higher.shape
    assert (usual - higher).abs().max() > 1e-2


def test_a_key_that_it_does_not_read_is_refused(make_config: Callable[..., Config]) -> None:
    config = make_config(model__architecture="paralleltts", model__prenet_dropout=0.5, **WEIGHTS)
    with pytest.raises(InputError, match=r"model.prenet_dropout=0.5 is set, and the model does not read it"):
        Trainer(config)


def test_a_weight_of_what_it_does_not_give_is_named(make_config: Callable[..., Config]) -> None:
    stop = {**WEIGHTS, "training__stop_loss_weight": 1.0}
    with pytest.raises(InputError, match=r"gives no stop_logits, .*set training.stop_loss_weight=0"):
        Trainer(make_config(model__architecture="paralleltts", model__reduction_factor=2, **stop))
