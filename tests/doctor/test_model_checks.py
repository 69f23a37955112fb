"""Planted faults of models are found with their cause, clean models pass, bad input is one line."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from further_model_faults import FURTHER
from model_faults import CLEAN, FAULTS, VOICE, around, faulty, trial_of
from torch import nn
from typer.testing import CliRunner

from ttsfast.cli import app
from ttsfast.data.checks.finding import ERROR
from ttsfast.doctor.model import ModelOptions, examine_model
from ttsfast.doctor.model_checks import SLOW
from ttsfast.errors import ExportError, InputError
from ttsfast.models.checks.check import ModelCheck
from ttsfast.models.checks.contract import check_model
from ttsfast.models.checks.run import FAST, run_model_checks
from ttsfast.models.checks.trial import Trial

CHECKS = {check.name: check for check in (*FAST, *SLOW)}

IN_SHORT = (
    *("reduction_factor_wrong", "output_mask_inverted", "attention_mask_inverted", "mean_over_padding"),
    *("statistics_move_in_evaluation", "chance_that_no_seed_reaches", "dropout_in_evaluation"),
    *("rectifier_dead", "weights_begin_large", "predicts_raw_decibels", "long_sums_in_half"),
    *("attention_of_zero_keys", "stop_not_connected", "latent_not_heard", "convolution_not_causal"),
    *("target_not_shifted", "speaker_ignored", "bag_of_letters", "text_ignored_when_it_speaks"),
    *("encoder_detached", "root_of_nothing", "neighbours_heard", "first_frame_of_zeros_when_it_speaks"),
    *("prenet_in_training_only", "buffer_lost_in_a_checkpoint", "output_squashed"),
    *("rate_of_0_at_the_end", "warm_up_longer_than_the_run"),
)
"""Of the library, one for each check at least; all of it takes minutes: ``bench/model_faults.py``."""
FURTHER_IN_SHORT = ("stop_is_a_probability", "mask_kept_by_shape", "durations_of_padding_learnt")
"""Likewise of the further ones: ``bench/model_faults.py --further``."""


def test_each_check_has_a_fault_that_it_finds() -> None:
    covered = {FAULTS[name].check for name in IN_SHORT}
    # A broken export is no fault of a model's.
    assert covered == {"contract", *CHECKS} - {"export"}


@pytest.mark.skipif(find_spec("onnxscript") is None, reason="exports need onnx, onnxruntime and onnxscript")
def test_an_export_that_speaks_otherwise_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def differs(*_: object) -> None:
        raise ExportError("its mels differ")

    monkeypatch.setattr("ttsfast.doctor.model_checks.export_voice", differs)
    make, training = CLEAN["convtts"]
    (finding,) = run_model_checks(trial_of(make, training), [CHECKS["export"]]).findings
    assert (finding.severity, finding.what) == (ERROR, "the exported voice is another: its mels differ")


@pytest.mark.parametrize("name", [*IN_SHORT, *FURTHER_IN_SHORT])
def test_fault_of_a_model_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fault = {**FAULTS, **FURTHER}[name]
    make, training = faulty(fault)
    fault.patch(monkeypatch)
    # A model that learns nothing has not learnt it in fewer steps either.
    monkeypatch.setattr(CHECKS["one batch"], "steps", 10)
    # However busy the machine is.
    monkeypatch.setattr(ModelCheck, "seconds", 600.0)
    trial = trial_of(make, training)
    if fault.check == "contract":
        with pytest.raises(InputError, match=fault.cause):
            check_model(trial.model, VOICE, trial.config)
        return
    check_model(trial.model, VOICE, trial.config)
    first = run_model_checks(trial, [CHECKS[fault.check]]).findings[0]
    assert (first.check, first.severity) == (fault.check, fault.severity)
    assert fault.cause in first.what


def test_clean_model_passes() -> None:
    make, training = CLEAN["fastspeech"]
    checked = run_model_checks(trial_of(make, training), (*FAST, CHECKS["schedule"], CHECKS["checkpoint"]))
    assert not checked.findings
    assert not checked.unfinished


def counts_its_batches(model: nn.Module) -> None:
    """As a term does that fades with the steps; the count is saved."""
    model.register_buffer("batches", torch.zeros(()))

    def counted(self, call, latent, speaker):  # type: ignore[no-untyped-def]
        condition = call(latent, speaker) + self.batches * torch.linspace(-0.1, 0.1, 32)
        self.batches += float(self.training)
        return condition

    around(model, counted, "condition")


def sets_itself_up(model: nn.Module) -> None:
    """By its first batch, as an ActNorm does (Kingma and Dhariwal, 2018)."""

    def scaled(self, call, x):  # type: ignore[no-untyped-def]
        heard = call(x)
        if not self.scale.any():
            self.scale += 1 / (heard.flatten(0, 1).std(0) + 0.1)
        return heard * self.scale

    model.prenet.register_buffer("scale", torch.zeros(32))
    around(model.prenet, scaled)


def hears_the_batch_before(model: nn.Module) -> None:
    """In training alone, and in no buffer."""
    model.prenet.before = torch.zeros(32)

    def mixed(self, call, x):  # type: ignore[no-untyped-def]
        heard = call(x)
        if self.training:
            heard, self.before = heard + self.before, heard.detach()[0].mean(0)
        return heard

    around(model.prenet, mixed)


@pytest.mark.parametrize(
    ("plant", "found"),
    [(counts_its_batches, False), (sets_itself_up, False), (hears_the_batch_before, True)],
)
def test_what_a_model_may_remember(plant: Callable[[nn.Module], None], found: bool) -> None:
    def make() -> nn.Module:
        model = CLEAN["convtts"][0]()
        plant(model)
        return model

    findings = run_model_checks(trial_of(make, {}), [CHECKS["state"]]).findings
    assert [finding.severity for finding in findings] == [ERROR] * found


def test_nothing_is_moved() -> None:
    make, training = CLEAN["convtts"]
    trial = trial_of(make, training)
    before = {name: value.clone() for name, value in trial.model.state_dict().items()}
    stream = torch.get_rng_state()
    run_model_checks(trial, [CHECKS[name] for name in ("gradients", "state", "randomness", "leak")])
    assert torch.equal(torch.get_rng_state(), stream)
    assert all(torch.equal(value, before[name]) for name, value in trial.model.state_dict().items())
    assert all(parameter.grad is None for parameter in trial.model.parameters())
    assert trial.model.training


class Endless(ModelCheck):
    """A check that does not come to an end, in code that swallows what it can."""

    name, seconds = "endless", 0.05

    def find(self, trial: Trial):  # type: ignore[no-untyped-def]
        while True:
            try:
                sum(range(1000))
            except Exception:
                continue


class Broken(Endless):
    """A check that fails."""

    name = "broken"

    def find(self, trial: Trial):  # type: ignore[no-untyped-def]
        raise ZeroDivisionError("no idea")


def test_a_check_that_fails_or_hangs_is_not_the_end() -> None:
    make, training = CLEAN["convtts"]
    checked = run_model_checks(trial_of(make, training), [Endless(), Broken(), CHECKS["schedule"]])
    assert checked.passed == ("schedule",)
    assert checked.unfinished[0].startswith("endless (not done within")
    assert "ZeroDivisionError: no idea" in checked.unfinished[1]


BAD = """
import time
def hangs(voice, options):
    while True:
        time.sleep(0.01)
def raises(voice, options):
    raise KeyError("width")
def other(voice, options):
    from torch import nn
    return nn.Linear(3, 3)
"""


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("bad_voice:hangs", "not made, and tried once, within 0.2 s; look for what it waits for"),
        ("bad_voice:raises", "it failed (KeyError: 'width', at "),
        ("bad_voice:other", "cannot be called as forward(text, text_lengths"),
        ("no_such_voice:build", "no module no_such_voice in "),
    ],
)
def test_a_model_that_cannot_be_made_is_one_line(
    factory: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bad_voice.py").write_text(BAD)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, "bad_voice", raising=False)
    with pytest.raises(InputError) as caught:
        examine_model(factory, ModelOptions(seconds_to_build=0.2))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_command_looks_at_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make, training = CLEAN["convtts"]
    trial = replace(trial_of(make, training), made_up=True)
    chosen = [CHECKS["speaker"], CHECKS["schedule"]]
    monkeypatch.setattr("ttsfast.doctor.model.model_trial", lambda *_: trial)
    monkeypatch.setattr("ttsfast.doctor.model.FAST", chosen)
    monkeypatch.setattr("ttsfast.doctor.model.SLOW", ())
    page = tmp_path / "model.html"
    result = CliRunner().invoke(app, ["doctor", "--model", "my:own", "--json", "--output", str(page)])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert (found["schema"], found["kind"], found["subject"]) == (1, "model", "my:own")
    assert found["passed"] == ["contract", "speaker", "schedule"]
    assert "my:own" in page.read_text()
    assert "What was looked for in this model" in page.read_text()
    make, training = faulty(FAULTS["speaker_ignored"])
    trial = trial_of(make, training)
    assert CliRunner().invoke(app, ["doctor", "--model", "my:own"]).exit_code == 1
    assert any(finding.severity == ERROR for finding in run_model_checks(trial, chosen).findings)
