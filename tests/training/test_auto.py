"""What ``auto`` chooses, by a table of machines and of hours of speech."""

from __future__ import annotations

from typing import Any

import pytest

from ttsfast.config import DEFAULTS, Config, config_of, load_config, preset_values
from ttsfast.data.loading.batch import padded_length
from ttsfast.devices import Machine
from ttsfast.options import Values, overlaid
from ttsfast.training.auto import Speech, choose, chosen_keys

TWO_CORES = Machine(cores=2, threads=2)
TILES = Machine(cores=2, threads=2, half="bf16")
SERVER = Machine(cores=64, threads=32)
GPU = Machine(cores=16, threads=16, gpu="H200", half="bf16")
OLD_GPU = Machine(cores=4, threads=4, gpu="T4", half="fp16")
EIGHT = Machine(cores=64, threads=1, gpu="H200", half="bf16", ranks=8)
LJ_SPEECH, KATHLEEN, MINUTES = 22.8, 1.24, 0.2

NANO = {
    "model.size": "nano",
    "data.frame_budget": 6000,
    "data.batch_size": 64,
    "training.learning_rate": 2e-3,
    "training.min_learning_rate": 4e-5,
    "training.warmup_steps": 30,
}
ON_A_CPU = {"data.mixed_precision": False, "data.num_workers": 2, "training.log_step": 10}
TABLE: list[tuple[Machine, float, dict[str, Any]]] = [
    (TWO_CORES, KATHLEEN, {**NANO, **ON_A_CPU, "training.max_steps": 1300, "training.val_step": 65}),
    (TILES, KATHLEEN, {**NANO, **ON_A_CPU, "data.mixed_precision": True}),
    (TWO_CORES, LJ_SPEECH, {**NANO, **ON_A_CPU, "training.max_steps": 5700}),
    (TWO_CORES, 0.01, {**NANO, **ON_A_CPU, "training.max_steps": 1000, "training.restart_period": 970}),
    (SERVER, LJ_SPEECH, {**NANO, **ON_A_CPU}),
    (Machine(cores=1, threads=1), KATHLEEN, {**NANO, "data.num_workers": 1}),
    (GPU, MINUTES, {**NANO, "data.mixed_precision": True, "training.amp_dtype": "bf16"}),
    (
        GPU,
        KATHLEEN,
        {"model.size": "small", "data.frame_budget": 12_000, "training.learning_rate": 1e-3},
    ),
    (
        GPU,
        LJ_SPEECH,
        {
            "model.size": "base",
            "data.frame_budget": 24_000,
            "data.batch_size": 256,
            "training.learning_rate": 5e-4,
            "training.warmup_steps": 120,
            "training.log_step": 50,
            "data.num_workers": 8,
        },
    ),
    (OLD_GPU, KATHLEEN, {"training.amp_dtype": "fp16", "data.num_workers": 4}),
    # A batch of all ranks is that of one.
    (EIGHT, LJ_SPEECH, {"data.frame_budget": 3000, "data.batch_size": 32, "training.learning_rate": 5e-4}),
]


def speech_of(hours: float, seconds: float = 3.02, tracks: tuple[str, ...] = ()) -> Speech:
    return Speech(hours, seconds, frames_per_second=22050 / 256, sample_rate=22050, n_mels=80, tracks=tracks)


def chosen(
    machine: Machine, hours: float, given: Values | None = None, seconds: float = 3.02
) -> dict[str, Any]:
    speech = speech_of(hours, seconds)
    return {
        key: value for choice in choose(machine, speech, given or {}) for key, value in choice.values.items()
    }


def test_a_cpu_with_tiles_trains_in_bf16_what_is_known_to_train_so() -> None:
    own = {"model": {"architecture": "my_model:make"}}
    assert not chosen(TILES, KATHLEEN, own)["data.mixed_precision"]
    assert not chosen(TILES, KATHLEEN, {"training": {"amp_dtype": "fp16"}})["data.mixed_precision"]
    assert chosen(TILES, KATHLEEN, {"training": {"amp_dtype": "bf16"}})["data.mixed_precision"]


def config_with(values: dict[str, Any], given: Values | None = None) -> Config:
    nested: Values = {}
    for name, value in values.items():
        section, _, key = name.partition(".")
        nested.setdefault(section, {})[key] = value
    return config_of(overlaid(nested, given or {}))


@pytest.mark.parametrize(("machine", "hours", "expected"), TABLE)
def test_the_table_of_machines(machine: Machine, hours: float, expected: dict[str, Any]) -> None:
    found = chosen(machine, hours)
    assert {key: found.get(key) for key in expected} == expected
    config = config_with(found)
    assert config.data.max_mel_frames >= 1722  # 20 s; all of LJ Speech has 10.1
    # The longest utterance there may be has room in a batch: else the plan refuses it.
    longest = padded_length(config.data.max_mel_frames, 12, config.data.pad_to_multiple)
    assert config.data.frame_budget >= longest
    assert set(found) <= chosen_keys()


def test_what_is_given_stays_and_the_rest_follows() -> None:
    given: Values = {
        "model": {"size": "small"},
        "training": {"max_steps": 500, "learning_rate": 1e-4},
        "data": {"batch_size": 8},
    }
    found = chosen(TWO_CORES, KATHLEEN, given)
    assert not {"model.size", "training.max_steps", "training.learning_rate", "data.batch_size"} & set(found)
    assert found["training.min_learning_rate"] == pytest.approx(2e-6)
    assert found["training.warmup_steps"] == 50
    assert found["training.restart_period"] == 450
    assert found["training.val_step"] == 50
    assert found["data.frame_budget"] == 0
    assert config_with(found, given).data.batch_size == 8
    assert chosen(TWO_CORES, KATHLEEN, {"model": {"size": "small"}})["training.learning_rate"] == 1e-3


def test_long_utterances_that_are_asked_for_have_room() -> None:
    given: Values = {"data": {"max_mel_frames": 20_000}}
    assert chosen(TWO_CORES, KATHLEEN, given)["data.frame_budget"] >= 20_000


def test_of_shorter_utterances_a_batch_has_as_many_and_the_run_as_much_speech() -> None:
    usual, short, long = (chosen(TWO_CORES, KATHLEEN, seconds=s) for s in (3.02, 1.9, 6.6))
    assert short["data.frame_budget"] == pytest.approx(16 * 1.9 * 22050 / 256 / 0.69, rel=0.01)
    heard = [c["data.frame_budget"] * c["training.max_steps"] for c in (usual, short)]
    assert heard[0] == pytest.approx(heard[1], rel=0.05)
    assert long["data.frame_budget"] == usual["data.frame_budget"] == 6000
    assert long["training.max_steps"] == usual["training.max_steps"]
    # Also where the size of a batch is given in frames; where it is given in utterances nobody can know.
    halved = chosen(TWO_CORES, KATHLEEN, {"data": {"frame_budget": 3000}})
    assert halved["training.max_steps"] == pytest.approx(2 * usual["training.max_steps"], rel=0.05)
    counted = chosen(TWO_CORES, KATHLEEN, {"data": {"batch_size": 8}}, seconds=1.9)
    assert counted["training.max_steps"] == usual["training.max_steps"]
    # The longest has room all the same.
    given: Values = {"data": {"max_mel_frames": 5000}}
    assert chosen(TWO_CORES, KATHLEEN, given, seconds=1.0)["data.frame_budget"] >= 5000


def test_a_model_of_ones_own_has_no_size() -> None:
    found = chosen(GPU, LJ_SPEECH, {"model": {"architecture": "mine:build"}})
    assert "model.size" not in found
    assert found["training.learning_rate"] == 1e-3


def test_it_takes_the_model_of_the_best_recipe_what_that_learns_by_and_what_the_store_has() -> None:
    found = chosen(TWO_CORES, KATHLEEN)
    preset = preset_values("ttsfast")
    weights = [key for key in preset["training"] if key.endswith("_loss_weight")]
    assert {key: found[f"training.{key}"] for key in weights} == {k: preset["training"][k] for k in weights}
    assert {f"model.{key}": value for key, value in preset["model"].items()}.items() <= found.items()
    assert found["training.stop_loss_weight"] == found["training.attention_loss_weight"] == 0
    assert not {"model.pitch", "model.energy"} & set(found)
    config_with(found)
    speech = speech_of(KATHLEEN, tracks=("energy",))
    values = {key: v for choice in choose(TWO_CORES, speech, {}) for key, v in choice.values.items()}
    assert values["model.energy"] is True
    assert "model.pitch" not in values
    assert set(values) <= chosen_keys()


def test_the_model_with_attention_is_given_guidance_and_time() -> None:
    given: Values = {"model": {"architecture": "convtts"}}
    found = chosen(TWO_CORES, KATHLEEN, given)
    assert found["training.attention_loss_weight"] == 5
    assert found["training.max_steps"] == 4000
    assert not {"training.alignment_loss_weight", "model.reduction_factor"} & set(found)
    config_with(found, given)
    assert set(found) <= chosen_keys()


def test_the_preset_of_the_best_recipe_is_what_it_chooses_for_that_corpus() -> None:
    found = chosen(TWO_CORES, KATHLEEN)
    preset = preset_values("ttsfast")
    said = {f"{section}.{key}": value for section, keys in preset.items() for key, value in keys.items()}
    del said["training.run_folder"]
    assert {key: found[key] for key in said} == said


def test_every_choice_is_one_line_with_its_reason() -> None:
    speech = speech_of(KATHLEEN, seconds=2.0)
    for machine in (TWO_CORES, GPU, EIGHT):
        for choice in choose(machine, speech, {}):
            line = str(choice)
            assert "\n" not in line
            assert all(f"{key}=" in line for key in choice.values)
            assert len(choice.why) > 10


def test_fast_convergence_chooses_nothing() -> None:
    assert load_config(preset=DEFAULTS) == Config()
