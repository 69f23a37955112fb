"""The examples and the code in docs/own-model.md do what they say, on a tiny corpus."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ttsfast.config import load_config
from ttsfast.data.corpus.audio import write_wav
from ttsfast.data.prepare.prepare import PrepareOptions, prepare
from ttsfast.models.voice import Voice
from ttsfast.training.trainer import Trainer

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ["tacotron2_style", "fastspeech_style"]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen clips of noise whose loudness spells their letters."""
    folder = tmp_path_factory.mktemp("examples")
    (folder / "corpus" / "wavs").mkdir(parents=True)
    generator = np.random.default_rng(0)
    lines = []
    for number in range(16):
        letters = "".join(generator.choice(list("abcd"), size=6 + number % 4))
        wave = np.concatenate(
            [0.02 * 3.0 ** "abcd".index(x) * generator.normal(size=1200) for x in letters]
        ).clip(-1, 1)
        write_wav(folder / "corpus" / "wavs" / f"u{number}.wav", wave.astype(np.float32), 22050)
        lines.append(f"u{number}|{letters}|{letters}\n")
    (folder / "corpus" / "metadata.csv").write_text("".join(lines), encoding="utf-8")
    prepare(folder / "corpus", folder / "store", PrepareOptions(validation_fraction=0.2, jobs=1))
    return folder / "store"


@pytest.fixture(autouse=True)
def _in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr("ttsfast.training.validation._show", lambda *_: None)


def few_steps(store: Path, run: Path, steps: int) -> list[str]:
    return [
        f"data.store={store}",
        f"training.run_folder={run}",
        f"training.max_steps={steps}",
        f"training.val_step={steps}",
        "training.warmup_steps=2",
        "training.val_utterances=2",
        "data.batch_size=6",
        "data.num_workers=1",
    ]


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_learns_resumes_and_speaks(name: str, store: Path, tmp_path: Path) -> None:
    path, run = Path("examples") / f"{name}.yaml", tmp_path / "run"
    with Trainer(load_config(path, few_steps(store, run, 1))) as trainer:
        before = held_out_error(trainer)
        trainer.fit()
    with Trainer(load_config(path, few_steps(store, run, 16)), resume=True) as trainer:
        assert trainer.step == 1
        result = trainer.fit()
        assert held_out_error(trainer) < 0.95 * before
    assert result.step == 16
    voice = Voice.load(run, trust_code=True)
    # Any vocoder will do where it is the mels that are compared.
    first, again = (voice.speak(["abcdab"], vocoder=lambda mel: mel[:, 0])[0] for _ in range(2))
    assert np.isfinite(first.log_mel).all()
    assert first.log_mel.shape[1] == 80
    assert np.array_equal(first.log_mel, again.log_mel)


def held_out_error(trainer: Trainer) -> float:
    from ttsfast.evaluation.validate import teacher_forced

    return teacher_forced(trainer.model, list(trainer.validation_loader), "cpu")["mel_l1"]


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_short(name: str) -> None:
    assert len((ROOT / "examples" / f"{name}.py").read_text(encoding="utf-8").splitlines()) < 250


@pytest.mark.parametrize("name", EXAMPLES)
@torch.no_grad()
def test_padding_and_neighbours_change_nothing(name: str, store: Path) -> None:
    with Trainer(
        load_config(Path("examples") / f"{name}.yaml", few_steps(store, store / "no", 1))
    ) as trainer:
        model, r = trainer.model.eval(), trainer.reduction_factor
    torch.manual_seed(0)
    for parameter in model.parameters():
        parameter += 0.1 * torch.randn_like(parameter)
    text, text_lengths = torch.tensor([[1, 2, 3, 4, 1], [2, 1, 3, 99, 99]]), torch.tensor([5, 3])
    mel, mel_lengths = torch.randn(2, 24, 80), torch.tensor([24, 16])
    mel[1, 16:] = torch.nan
    both = model(text, text_lengths, mel, mel_lengths)
    alone = model(text[1:, :3], text_lengths[1:], mel[1:, :16], mel_lengths[1:])
    close(both.final_mel[1:, :16], alone.final_mel)
    close(both.attention[1:, : 16 // r, :3], alone.attention)
    spoken = model.synthesize(text, text_lengths, max_frames=12, stop_threshold=1.0)
    single = model.synthesize(text[1:, :3], text_lengths[1:], max_frames=12, stop_threshold=1.0)
    frames = int(single.mel_lengths)
    assert int(spoken.mel_lengths[1]) == frames
    close(spoken.mel[1:, :frames], single.mel)


def close(actual: Tensor, expected: Tensor) -> None:
    assert actual.shape == expected.shape
    assert expected.abs().max() > 0
    assert torch.isfinite(actual).all()
    assert (actual - expected).abs().max() < 1e-4


def test_the_likeliest_path_is_found() -> None:
    """Against every monotonic path there is."""
    from itertools import combinations

    from examples.fastspeech_style import best_path, forward_sum

    torch.manual_seed(0)
    alignment = torch.randn(1, 7, 4).log_softmax(-1)
    paths = [np.diff([0, *cuts, 7]) for cuts in combinations(range(1, 7), 3)]
    scores = [
        float(alignment[0, torch.arange(7), torch.repeat_interleave(torch.arange(4), torch.tensor(p))].sum())
        for p in paths
    ]
    lengths = torch.tensor([4]), torch.tensor([7])
    assert best_path(alignment, *lengths)[0].tolist() == paths[int(np.argmax(scores))].tolist()
    likelihood = torch.logsumexp(torch.tensor(scores), 0)
    assert float(forward_sum(alignment, *lengths)) == pytest.approx(-float(likelihood), abs=1e-4)


def test_the_python_of_the_documentation_runs(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (ROOT / "docs" / "own-model.md").read_text(encoding="utf-8")
    model, training = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)[:2]
    assert len([line for line in training.splitlines() if line.strip()]) <= 10
    (tmp_path / "my_voice.py").write_text(model, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "my_voice", raising=False)
    for shown, small in (
        ("data/store", str(store)),
        ("max_steps=2000", "max_steps=3"),
        ("Hello there.", "abcd"),
    ):
        assert shown in training
        training = training.replace(shown, small)
    names: dict[str, Any] = {}
    exec(compile(training, "own-model.md", "exec"), names)
    assert names["result"].step == 3
    assert len(names["speech"].wave) > 0
    assert names["speech"].attention is None
