from __future__ import annotations

import contextlib
import dataclasses

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from ttsfast.config import AUTO, DEFAULTS, SECTIONS, Config, load_config, preset_names, render
from ttsfast.configs.explain import WHEN, explained
from ttsfast.errors import InputError

FAST_CONVERGENCE = {
    "training.mel_loss_weight": 22.0,
    "training.kl_loss_weight": 1.8,
    "training.stop_loss_weight": 1.5,
    "training.attention_loss_weight": 0.3,
    "training.learning_rate": 8e-5,
    "training.optimizer": "adamw",
    "training.beta1": 0.9,
    "training.beta2": 0.999,
    "training.eps": 1e-8,
    "training.weight_decay": 5e-7,
    "training.scheduler": "cosine_with_restarts",
    "training.warmup_steps": 1500,
    "training.min_learning_rate": 1e-7,
    "training.restart_period": 8000,
    "training.restart_mult": 0.8,
    "training.use_huber_loss": True,
    "training.huber_delta": 0.6,
    "training.use_label_smoothing": True,
    "training.mel_label_smoothing": 0.025,
    "training.stop_label_smoothing": 0.06,
    "training.stop_token_positive_weight": 4.0,
    "training.use_adaptive_loss_weights": True,
    "training.loss_smoothing_factor": 0.08,
    "training.max_loss_spike_threshold": 1.3,
    "training.early_stopping_patience": 40,
    "training.early_stopping_min_delta": 5e-5,
    "training.early_stopping_restore_best_weights": True,
    "training.auto_lr_reduction": True,
    "training.lr_reduction_factor": 0.7,
    "training.lr_reduction_patience": 15,
    "training.convergence_window": 200,
    "training.convergence_threshold": 0.95,
    "training.val_step": 1000,
    "training.save_step": 2000,
    "training.log_step": 50,
    "training.gradient_clip_norm": 0.8,
    "training.gradient_accumulation_steps": 2,
    "training.gradient_norm_threshold": 2.5,
    "data.batch_size": 48,
    "data.num_workers": 12,
    "data.preprocessing_mode": "precompute",
    "data.enable_memory_mapping": True,
    "data.pin_memory": True,
    "data.prefetch_to_gpu": True,
    "data.cache_verification": True,
    "data.mixed_precision": True,
    "data.max_mel_frames": 800,
    "data.max_text_length": 180,
    "data.pad_to_multiple": 8,
    "data.sample_rate": 22050,
    "data.n_mels": 80,
}
ALL_KEYS = [f"{name}.{f.name}" for name, section in SECTIONS.items() for f in dataclasses.fields(section)]


# Ten billion elements, where it is written out.
ALIAS_BOMB = "&a [x]"
for _name, _inner in zip("bcdefghijk", "abcdefghij", strict=True):
    ALIAS_BOMB = f"&{_name} [{ALIAS_BOMB}{f', *{_inner}' * 9}]"


def value_of(config: Config, key: str) -> object:
    section, name = key.split(".")
    return getattr(getattr(config, section), name)


@pytest.mark.parametrize("key", FAST_CONVERGENCE)
def test_the_preset_carries_the_value_of_the_table(key: str) -> None:
    assert value_of(load_config(preset="fast_convergence"), key) == FAST_CONVERGENCE[key]


FIXED = [name for name in preset_names() if name != AUTO]


@pytest.mark.parametrize("preset", FIXED)
def test_a_rendered_file_reads_back_as_it_was_and_comments_every_key(preset: str, tmp_path) -> None:
    config = load_config(preset=preset)
    path = tmp_path / "config.yaml"
    path.write_text(render(config, title="two\nlines"), encoding="utf-8")
    assert load_config(path) == config
    for line in path.read_text(encoding="utf-8").splitlines()[3:]:
        assert not line or "  # " in line


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("training:\n  learnin_rate: 1\n", ["training.learnin_rate", "learning_rate?"]),
        ("preset: " + ALIAS_BOMB + "\n", ["no preset a list", "there are auto"]),
        ("trainign:\n  seed: 1\n", ["trainign", "training?"]),
        ("training:\n  seed: 1\n  seed: 2\n", ["twice", "line 3"]),
        ("training:\n  learning_rate: -1\n", ["training.learning_rate", "above 0"]),
        ("training:\n  learning_rate: .nan\n", ["training.learning_rate", "finite"]),
        ("training:\n  learning_rate: true\n", ["training.learning_rate", "finite number"]),
        ("data:\n  batch_size: 1.5\n", ["data.batch_size", "whole number"]),
        ("data:\n  batch_size: 0\n", ["data.batch_size", "least value 1"]),
        ("data:\n  pin_memory: 1\n", ["data.pin_memory", "true or false"]),
        ("training:\n  optimizer: adamv\n", ["training.optimizer", "adamw"]),
        ("training: 3\n", ["training", "keys and values"]),
        ("[1, 2]\n", ["sections", "list"]),
        ("training: {seed: [}\n", ["not valid YAML"]),
        ("training: !!python/object:os.system {}\n", ["not valid YAML"]),
        ("? {a: 1}\n: 2\n", ["not valid YAML"]),
        ("training:\n  min_learning_rate: 0.1\n", ["min_learning_rate", "lower it"]),
        ("training:\n  seed: 1" + "0" * 400 + "\n", ["training.seed", "greatest value"]),
        ("training:\n  seed: -1" + "0" * 400 + "\n", ["training.seed", "least value"]),
        ("training:\n  learning_rate: 1" + "0" * 400 + "\n", ["training.learning_rate", "finite"]),
        ('training:\n  run_folder: "a\\0b"\n', ["training.run_folder", "expected text"]),
        ("data:\n  pad_to_multiple: 100000000000\n", ["data.pad_to_multiple", "greatest"]),
        ("data:\n  batch_size: 4294967296\n", ["data.batch_size", "greatest value 65536"]),
        ("training:\n  seed: 0x" + "f" * 5000 + "\n", ["training.seed", "more than 30 digits"]),
        ("training:\n  seed: " + "x" * 10_000 + "\n", ["training.seed", "xxx..."]),
        ("training:\n  seed: " + ALIAS_BOMB + "\n", ["training.seed", "found a list"]),
        ("training: {<<: {seed: 1}}\n", ["'<<' is not supported", "line 1"]),
        ('training: {"a\\nb\\e[31m": 1}\n', [r"training.'a\nb\x1b[31m'", "ttsfast config"]),
        ('training: {run_folder: "a\\nb"}\n', ["training.run_folder", "on one line"]),
    ],
)
def test_bad_files_are_one_line_that_names_file_and_key(text: str, words: list[str], tmp_path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        load_config(path, preset=DEFAULTS)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 300
    for word in words:
        assert word in message
    if "min_learning_rate" not in message:
        assert "bad.yaml" in message


def test_whole_numbers_stay_below_what_floats_and_memory_hold() -> None:
    whole = [
        f"{section}.{f.name}"
        for section, cls in SECTIONS.items()
        for f in dataclasses.fields(cls)
        if f.type in (int, "int")
    ]
    assert len(whole) > 20
    for key in whole:
        with pytest.raises(InputError, match=f"{key}.*greatest value"):
            load_config(overrides=[f"{key}={10**12}"])


def test_all_weights_zero_would_teach_nothing() -> None:
    terms = ("mel", "kl", "stop", "attention")
    with pytest.raises(InputError, match="nothing would be learnt"):
        load_config(overrides=[f"training.{term}_loss_weight=0" for term in terms])


def test_a_missing_file_is_named(tmp_path) -> None:
    with pytest.raises(InputError, match=r"none\.yaml"):
        load_config(tmp_path / "none.yaml")


@pytest.mark.parametrize("override", ["x", "training.seed", "seed=1", "training.=1", "training.seed="])
def test_bad_overrides_are_named(override: str) -> None:
    with pytest.raises(InputError, match=override.split("=")[0] or "x"):
        load_config(overrides=[override])


def test_precedence_is_defaults_preset_file_command_line(tmp_path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("training:\n  seed: 5\n  eps: 1e-6\n", encoding="utf-8")
    config = load_config(path, ["training.seed=7", "data.store=some folder"], preset="demo")
    assert config.training.seed == 7
    assert config.training.eps == 1e-6
    assert config.data.store == "some folder"
    assert config.model.size == load_config(preset="demo").model.size == "nano"


def test_a_file_names_its_preset(tmp_path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("preset: demo\ntraining:\n  seed: 5\n", encoding="utf-8")
    assert load_config(path) == load_config(overrides=["training.seed=5"], preset="demo")
    assert load_config(path, preset=DEFAULTS) == load_config(overrides=["training.seed=5"])
    path.write_text("preset: dmeo\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"config\.yaml: no preset 'dmeo': there are auto, convtts, demo, "):
        load_config(path)
    path.write_text("training:\n  seed: 5\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"config\.yaml: the preset auto chooses.*preset: fast_convergence"):
        load_config(path)


@pytest.mark.parametrize("preset", [name for name in FIXED if name != DEFAULTS])
def test_every_other_preset_keeps_all_of_lj_speech(preset: str) -> None:
    """Its longest clip has 10.1 s, 870 frames, and 188 characters; as phonemes they are more."""
    data = load_config(preset=preset).data
    assert data.max_mel_frames >= 870
    assert data.max_text_length >= 250


def test_a_key_is_explained() -> None:
    assert list(WHEN) == ALL_KEYS
    found = explained("training.learning_rate", {"training.learning_rate"})
    assert found["training.learning_rate"].startswith("peak rate")
    assert found["change it"] == WHEN["training.learning_rate"]
    assert found["demo"] == "0.002"
    assert found["fast_convergence"] == "8.0e-05"
    assert found["auto"].startswith("chosen")
    assert explained("training.eps", ())["auto"] == found_default("training.eps")
    assert list(explained("model", ())) == [key for key in ALL_KEYS if key.startswith("model.")]
    for wrong, right in (("learning_rate", "training.learning_rate"), ("training.sed", "training.seed")):
        with pytest.raises(InputError, match=f"{wrong}: there is no such key; did you mean {right}"):
            explained(wrong, ())


def found_default(key: str) -> str:
    return explained(key, ())[DEFAULTS]


@pytest.mark.parametrize("key", ALL_KEYS)
def test_every_key_is_documented(key: str) -> None:
    section, name = key.split(".")
    (found,) = [f for f in dataclasses.fields(SECTIONS[section]) if f.name == name]
    assert len(found.metadata["help"]) > 10


@settings(deadline=None)
@given(
    st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | st.text(), st.lists, max_leaves=3)
)
def test_no_value_escapes_as_another_error(value: object) -> None:
    text = yaml.safe_dump({"training": {"learning_rate": value, "seed": value, "optimizer": value}})
    with contextlib.suppress(InputError):
        load_config(overrides=[f"training.learning_rate={text}"])
