"""``ttsfast demo``: the main job end to end on a corpus that it speaks itself."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from ttsfast.config import load_config
from ttsfast.data.corpus.text import TextFrontend
from ttsfast.data.prepare.prepare import PrepareOptions, prepare
from ttsfast.demo.corpus import write_demo_corpus
from ttsfast.evaluation.result import Evaluation
from ttsfast.evaluation.run import evaluate_run
from ttsfast.progress import console
from ttsfast.training.trainer import Trainer


@dataclass
class DemoResult:
    """What the demo made, and how long each stage took."""

    folder: Path
    evaluation: Evaluation
    seconds: dict[str, float]


def run_demo(folder: Path, language: str = "en", engine: str = "espeak") -> DemoResult:
    """Speak a small corpus, prepare it, train ``nano`` on it, evaluate, and write the report.

    ``folder`` receives ``metrics.json`` and ``report.html`` with its sounds and pictures; what they were made
    from lies below ``folder/<language>-<engine>``. Every stage starts from what is there already.

    Raises:
        InputError: the speech engine is missing, or a folder holds something else.
    """
    work = folder / f"{language}-{engine}"
    seconds: dict[str, float] = {}

    def stage(name: str) -> None:
        console.rule(f"[bold]{name}", align="left")
        now = time.perf_counter()
        seconds[name] = now
        for earlier, started in list(seconds.items())[-2:-1]:
            seconds[earlier] = now - started

    stage("corpus")
    corpus = write_demo_corpus(work / "corpus", language, engine=engine)
    console.print(
        f"{corpus.utterances} sentences to learn, {corpus.held_out} held out, {corpus.seconds:.0f} s"
    )
    stage("prepare")
    prepare(corpus.folder, work / "store", PrepareOptions(frontend=TextFrontend(language)))
    stage("train")
    overrides = [f"data.store={work / 'store'}", f"training.run_folder={work / 'run'}"]
    with Trainer(load_config(overrides=overrides, preset="demo"), resume=True) as trainer:
        trainer.fit()
    stage("evaluate")
    evaluation = evaluate_run(work / "run", output=folder, corpus=corpus.folder, title="ttsfast demo")
    stage("done")
    del seconds["done"]
    return DemoResult(folder, evaluation, seconds)
