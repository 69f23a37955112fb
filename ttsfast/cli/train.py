"""The commands that train a voice: on one's own corpus, or on the demo's."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from ttsfast.cli.options import AsJson, Preset, Settings, TrustCode, print_json, refuse_several

DEMO_RUN = Path("runs/demo")
FIND_LR_PICTURE = Path("learning-rate.png")


def train(
    settings: Settings = None,
    preset: Preset = None,
    resume: Annotated[bool, typer.Option(help="Continue from the run's last checkpoint.")] = False,
    start: Annotated[
        str | None,
        typer.Option("--from", help="Begin with the weights of a voice: a run folder, or a checkpoint."),
    ] = None,
    trust_code: TrustCode = False,
    find_lr: Annotated[
        bool, typer.Option("--find-lr", help="Draw a learning-rate range test instead; writes no run.")
    ] = False,
    find_lr_steps: Annotated[int, typer.Option(help="Steps of the range test.")] = 200,
    find_lr_picture: Annotated[Path, typer.Option(help="Where --find-lr draws.")] = FIND_LR_PICTURE,
    as_json: AsJson = False,
) -> None:
    """Train a voice. SIGTERM and Ctrl-C write a checkpoint and exit with code 75; --resume goes on from it.

    Example: ttsfast train data/ljspeech training.max_steps=20000 --resume

    A voice to start from: ttsfast train data/mine --from runs/ljspeech

    On two GPUs: torchrun --nproc-per-node 2 -m ttsfast train data/ljspeech --resume
    """
    if find_lr:
        refuse_several("train --find-lr")
    from ttsfast.models.build import built_in
    from ttsfast.progress import console
    from ttsfast.training.configure import configure
    from ttsfast.training.distributed.process_group import join_ranks
    from ttsfast.training.find_lr import find_learning_rate
    from ttsfast.training.trainer import Trainer

    configured = configure(settings or [], preset, resume=resume, start=start, trust_code=trust_code)
    chosen = configured.config
    if find_lr:
        found = find_learning_rate(chosen, find_lr_picture, steps=find_lr_steps)
        if as_json:
            print_json({"suggestion": found.suggestion, "rates": found.rates, "smoothed": found.smoothed})
        else:
            print(f"the loss falls fastest at {found.suggestion:.2g}; {found.picture} shows the curve")
            print(f"try training.learning_rate={found.suggestion:.1e}")
        return
    with join_ranks(chosen.training) as ranks:
        for line in configured.said:
            console.print(line, markup=False, highlight=False, soft_wrap=True)
        with Trainer(chosen, resume=resume, ranks=ranks) as trainer:
            result = trainer.fit()
    if not ranks.is_first:
        return
    if as_json:
        print_json(
            {**vars(result), "run_folder": str(result.run_folder), "checkpoint": str(result.checkpoint)}
        )
        return
    print(f"voice: {result.checkpoint}")
    run = shlex.quote(str(result.run_folder)) + ("" if built_in(chosen.model) else " --trust-code")
    print(f'next: ttsfast evaluate {run}, then open its report.html; or ttsfast synth {run} "Hello there."')


def demo(
    language: Annotated[str, typer.Option(help="en or fa.")] = "en",
    engine: Annotated[str, typer.Option(help="espeak or flite.")] = "espeak",
    run: Annotated[Path, typer.Option(help="Where everything is written.")] = DEMO_RUN,
    as_json: AsJson = False,
) -> None:
    """Make a small corpus, train on it, evaluate, and write a report that plays the result.

    Example: ttsfast demo --language fa
    """
    from ttsfast.demo.run import run_demo
    from ttsfast.progress import console

    result = run_demo(run, language, engine)
    if as_json:
        print_json({**result.evaluation.to_dict(), "seconds": result.seconds})
        return
    console.print(result.evaluation.table())
    total = sum(result.seconds.values())
    parts = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in result.seconds.items())
    print(f"{total:.0f} s in all ({parts})\nopen {result.folder / 'report.html'}")
