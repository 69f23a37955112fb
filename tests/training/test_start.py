"""A run that starts from a voice: what is taken and said, and what is refused before anything is written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from ttsfast.config import Config, load_config
from ttsfast.data.corpus.text import Symbols
from ttsfast.errors import InputError
from ttsfast.evaluation.run import evaluate_run
from ttsfast.models.checkpoint import checkpoint_folder, load_checkpoint
from ttsfast.models.voice_info import VoiceInfo
from ttsfast.training.checkpoint import save_checkpoint
from ttsfast.training.configure import configure, write_run_config
from ttsfast.training.trainer import Trainer

MakeConfig = Callable[..., Config]
MakeModel = Callable[[], nn.Module]


@pytest.fixture(scope="module")
def voice(
    make_config_of: Callable[..., Config], make_model: MakeModel, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A run of two steps."""
    folder = tmp_path_factory.mktemp("voice") / "run"
    config = make_config_of(folder, training__max_steps=2, training__val_step=2, model__dropout=0.25)
    with pytest.MonkeyPatch.context() as patch:
        # Drawing takes longer than training here.
        patch.setattr("ttsfast.training.validation._show", lambda *_: None)
        with Trainer(config, model=make_model()) as trainer:
            trainer.fit()
    return folder


def with_voice(voice: Path, folder: Path, **changes: object) -> Path:
    """A copy of the voice's checkpoint that says something else of itself."""
    found = load_checkpoint(checkpoint_folder(voice, 2))
    state = {key: value for key, value in found.state.items() if key not in ("files", "format", "step")}
    state["config"] = {**state["config"], **changes.pop("config", {})}  # type: ignore[dict-item]
    return save_checkpoint(
        checkpoint_folder(folder, 2),
        2,
        weights=changes.pop("weights", found.weights),  # type: ignore[arg-type]
        training={},
        voice={**found.voice, **changes},
        state=state,
    )


def test_a_new_run_begins_with_the_weights_and_says_so_and_a_resumed_one_with_its_own(
    make_config: MakeConfig, make_model: MakeModel, voice: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = load_checkpoint(checkpoint_folder(voice, 2)).weights
    config = make_config(training__start_from=str(voice), training__max_steps=1)
    with Trainer(config, model=make_model(), resume=True) as trainer:
        assert all(torch.equal(p, theirs[name]) for name, p in trainer.model.named_parameters())
        said = capsys.readouterr().err
        assert f"starting from {checkpoint_folder(voice, 2)} (step 2):" in said
        count = sum(value.numel() for value in theirs.values())
        assert f"{count:,} of {count:,} numbers taken" in said
        assert "begin anew" not in said
        trainer.fit()
        own = [p.detach().clone() for p in trainer.model.parameters()]
    with Trainer(config, model=make_model(), resume=True) as trainer:
        assert all(torch.equal(a, b) for a, b in zip(own, trainer.model.parameters(), strict=True))
        assert "starting from" not in capsys.readouterr().err


def test_other_symbols_and_statistics_are_said(
    make_config: MakeConfig,
    make_model: MakeModel,
    voice: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    there = load_checkpoint(checkpoint_folder(voice, 2)).voice
    info = VoiceInfo.from_dict(there, "voice")
    kept = [character for character in info.symbols.characters if character not in "ebc2"]
    other = Symbols.of(["éxyz", *kept])
    units = {"mel_mean": (info.mel_mean + info.mel_std).tolist()}
    changed = with_voice(voice, tmp_path / "other", symbols=other.to_list(), **units)
    with Trainer(make_config(training__start_from=str(changed)), model=make_model()):
        pass
    said = capsys.readouterr().err
    assert "new symbols begin as the mean of the nearest: " in said
    assert "'e' as 'é'" in said
    assert "symbols are not in this store: 'xyzé'" in said
    assert "statistics of its own, 1.0 deviations from that voice's" in said
    assert "prepare --like" in said
    # Another language's voice is better begun from in the corpus's own units.
    foreign = with_voice(voice, tmp_path / "fa", frontend={**there["frontend"], "language": "fa"}, **units)
    with Trainer(make_config(training__start_from=str(foreign)), model=make_model()):
        pass
    said = capsys.readouterr().err
    assert "statistics of its own, 1.0 deviations from that voice's" in said
    assert "prepare --like" not in said


@pytest.mark.parametrize("fault", ["contract", "none", "weights"])
def test_a_voice_that_does_not_fit_is_refused_before_anything_is_written(
    fault: str, make_config: MakeConfig, make_model: MakeModel, voice: Path, tmp_path: Path
) -> None:
    contract = load_checkpoint(checkpoint_folder(voice, 2)).voice["contract"]
    place, says = {
        "contract": (
            with_voice(voice, tmp_path / "a", contract={**contract, "fmax": 7000.0}),
            r"its mels are others than the store's: fmax 7000.0 there, 8000.0 here; .*--like",
        ),
        "none": (tmp_path, "no checkpoint there"),
        "weights": (
            with_voice(voice, tmp_path / "b", weights={"other": torch.zeros(3)}),
            "none of its weights fit this model",
        ),
    }[fault]
    config = make_config(training__start_from=str(place))
    with pytest.raises(InputError, match=says):
        Trainer(config, model=make_model())
    assert not (tmp_path / "run").exists()


def test_what_is_not_said_of_the_model_is_as_that_voice_has_it(
    voice: Path, store_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = configure([str(store_path)], start=str(voice)).config
    assert (found.model.dropout, found.training.start_from) == (0.25, str(voice))
    assert (
        configure([str(store_path), "model.dropout=0.1"], "demo", start=str(voice)).config.model.dropout
        == 0.1
    )
    fresh = configure([str(store_path)]).config
    assert fresh.model.dropout != 0.25
    # Its own rate, warm-up and length.
    assert found.training.learning_rate == fresh.training.learning_rate / 2
    assert found.training.max_steps == fresh.training.max_steps // 3
    assert found.training.warmup_steps < fresh.training.warmup_steps or found.training.max_steps > 1000
    assert found.training.warmup_steps + found.training.restart_period == found.training.max_steps
    # All of it is new in another language.
    language = {**load_checkpoint(checkpoint_folder(voice, 2)).voice["frontend"], "language": "fa"}
    persian = with_voice(voice, tmp_path / "persian", frontend=language)
    foreign = configure([str(store_path)], start=str(persian)).config.training
    assert foreign.learning_rate == fresh.training.learning_rate
    assert foreign.max_steps == found.training.max_steps
    # A model of somebody's is made only where that is trusted, or said by the user.
    foreign = {"config": {"model": {"architecture": "theirs:build"}}}
    other = str(with_voice(voice, tmp_path / "foreign", **foreign))
    with pytest.raises(InputError, match=r"would import the module theirs .*--trust-code"):
        configure([str(store_path)], start=other)
    trusted = configure([str(store_path)], start=other, trust_code=True).config.model.architecture
    mine = configure(
        [str(store_path), "model.architecture=mine:build"], start=other
    ).config.model.architecture
    assert (trusted, mine) == ("theirs:build", "mine:build")


def test_frozen_parts_stay_and_the_rest_learns_and_a_resumed_run_may_thaw_them(
    make_config: MakeConfig, make_model: MakeModel
) -> None:
    model = make_model()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    frozen = make_config(
        training__freeze="embed, read.weight", training__weight_decay=0.5, training__max_steps=2
    )
    with Trainer(frozen, model=model) as trainer:
        trainer.fit()
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert moved == before.keys() - {"embed.weight", "read.weight"}
    for parts in ("write", "none"):
        with Trainer(make_config(training__freeze=parts), model=make_model(), resume=True) as trainer:
            held = {n: p.detach().clone() for n, p in trainer.model.named_parameters()}
            trainer.train_step([next(iter(trainer.loader))])
            still = {n for n, p in trainer.model.named_parameters() if torch.equal(p, held[n])}
        assert still == ({"write.weight", "write.bias"} if parts == "write" else set())


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ("embd", r"no 'embd'; did you mean embed\?"),
        ("embed,", "no ''"),
        ("embed,read,write,stop,latent", "nothing is left to train"),
    ],
)
def test_a_part_that_is_not_there_is_named(
    parts: str, says: str, make_config: MakeConfig, make_model: MakeModel
) -> None:
    with pytest.raises(InputError, match=rf"training\.freeze.*{says}"):
        Trainer(make_config(training__freeze=parts), model=make_model())


def test_a_store_that_was_moved_is_named_with_the_option_for_it(
    voice: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    moved = with_voice(voice, tmp_path / "moved", config={"data": {"store": "gone"}}).parent.parent
    with pytest.raises(
        InputError, match=rf"moved: its data.store=gone, looked for from {tmp_path}, is not there; .*--store$"
    ):
        evaluate_run(moved)
    config = load_config(overrides=["data.store=/gone", f"training.run_folder={moved}"])
    write_run_config(config, moved)
    with pytest.raises(
        InputError, match=r"its data.store=/gone is not there; .*`ttsfast train STORE .*--resume`"
    ):
        configure([f"training.run_folder={moved}"], resume=True)
