"""Planted faults of models are found with their cause, clean models pass, bad input is one line."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from model_faults import CLEAN, FAULTS, VOICE, faulty, trial_of
from typer.testing import CliRunner

from ttsfast.cli import app
from ttsfast.data.checks.finding import ERROR
from ttsfast.doctor.model import ModelOptions, examine_model
from ttsfast.doctor.model_checks import SLOW
from ttsfast.errors import InputError
from ttsfast.models.checks.check import ModelCheck
from ttsfast.models.checks.contract import check_model
from ttsfast.models.checks.run import FAST, run_model_checks
from ttsfast.models.checks.trial import Trial

CHECKS = {check.name: check for check in (*FAST, *SLOW)}

IN_SHORT = (
    *("output_mask_inverted", "convolution_not_causal", "target_not_shifted", "bag_of_letters"),
    *("attention_of_zero_keys", "text_ignored_when_it_speaks", "reduction_factor_wrong"),
    *("rate_of_0_at_the_end", "warm_up_longer_than_the_run"),
)
"""Of the library; all of it takes minutes: ``bench/model_faults.py``."""


@pytest.mark.parametrize("name", IN_SHORT)
def test_fault_of_a_model_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fault = FAULTS[name]
    make, training = faulty(fault)
    fault.patch(monkeypatch)
    # A model that learns nothing has not learnt it in fewer steps either.
    monkeypatch.setattr(CHECKS["one batch"], "steps", 10)
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
    make, training = faulty(FAULTS["speaker_ignored"])
    trial = trial_of(make, training)
    assert CliRunner().invoke(app, ["doctor", "--model", "my:own"]).exit_code == 1
    assert any(finding.severity == ERROR for finding in run_model_checks(trial, chosen).findings)
