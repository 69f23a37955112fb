"""The command line. Each command is a thin call into the package; its docstring is its help."""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from ttsfast import streams
from ttsfast.cli import data, voice
from ttsfast.cli.bench import bench
from ttsfast.errors import (
    ExportError,
    InputError,
    Preempted,
    RankLost,
    SaidByAnotherRank,
    TrainingError,
    exit_code,
)
from ttsfast.files import naming

app = typer.Typer(
    help="A fast-converging trainer for text-to-speech acoustic models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.add_typer(bench, name="bench")

DEMO_RUN = Path("runs/demo")
FIND_LR_PICTURE = Path("learning-rate.png")
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
Overrides = Annotated[list[str] | None, typer.Argument(help="section.key=value ...", show_default=False)]
Preset = Annotated[str, typer.Option(help="Values to start from; see `ttsfast config --list`.")]


def main() -> None:
    """Run a command; what ends it becomes one line on stderr: bad input code 2, failure 1, SIGTERM 75."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        # Every rank would print torch's warning that looking for unused parameters costs time; it is meant.
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    streams.open_closed()
    try:
        _run()
    finally:
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            _leave_at_once(sys.exc_info()[1])
        streams.settle(sys.stdout)
        streams.settle(sys.stderr)


def _leave_at_once(end: BaseException | None) -> NoReturn:
    """End one of several ranks without the interpreter's shutdown, where gloo's threads abort a process now
    and then ("terminate called without an active exception") after all is done and closed.
    """
    code = 0
    if isinstance(end, SystemExit):
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    elif end is not None:
        traceback.print_exception(end, file=streams.Forgiving(sys.stderr))
        code = 1
    streams.settle(sys.stdout)
    streams.settle(sys.stderr)
    os._exit(code)


def _run() -> None:
    try:
        try:
            app()
        finally:
            with naming("stdout", "what was to be printed is lost"):
                sys.stdout.flush()
    except SaidByAnotherRank as error:
        sys.exit(error.code)
    except (InputError, Preempted, TrainingError, ExportError, OSError) as error:
        if isinstance(error, (Preempted, RankLost)):
            # Whoever sends it (again), torchrun or a scheduler, is obeyed already.
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print(f"ttsfast: {error}", file=streams.Forgiving(sys.stderr))
        sys.exit(exit_code(error))


def _refuse_several(command: str) -> None:
    """Raise InputError in each of several processes, which would all write the same files."""
    if (size := os.environ.get("WORLD_SIZE", "1")) != "1":
        raise InputError(
            f"ttsfast {command} is for one process, this is one of {size}: start it without torchrun"
        )


def _print_json(values: Any) -> None:
    print(json.dumps(values, indent=1, ensure_ascii=False))


@app.command()
def config(
    overrides: Overrides = None,
    preset: Preset = "fast_convergence",
    list_presets: Annotated[bool, typer.Option("--list", help="List the presets.")] = False,
    as_json: AsJson = False,
) -> None:
    """Print a commented configuration file.

    Example: ttsfast config --preset fast_convergence data.store=data/store > config.yaml
    """
    from ttsfast.config import load_config, preset_names, render

    if list_presets:
        _print_json(preset_names()) if as_json else print("\n".join(preset_names()))
        return
    chosen = load_config(overrides=overrides or [], preset=preset)
    if as_json:
        _print_json(chosen.to_dict())
    else:
        print(render(chosen, title=f"ttsfast configuration, from the preset {preset}"), end="")


@app.command()
def env(as_json: AsJson = False) -> None:
    """Show versions, devices, the C++ extension and the loss backends, with what is missing and its cost.

    Example: ttsfast env
    """
    from ttsfast.evaluation.environment import environment

    values = environment()
    if as_json:
        _print_json(values)
        return
    for name, value in values.items():
        if isinstance(value, dict):
            print(f"{name}:")
            for key, entry in value.items():
                print(f"  {key}: {entry}")
        else:
            print(f"{name}: {value}")


data.add_commands(app)
voice.add_commands(app)


@app.command()
def train(
    values: Annotated[
        list[str] | None,
        typer.Argument(help="A YAML file (optional), then section.key=value ...", show_default=False),
    ] = None,
    preset: Preset = "fast_convergence",
    resume: Annotated[bool, typer.Option(help="Continue from the run's last checkpoint.")] = False,
    find_lr: Annotated[
        bool, typer.Option("--find-lr", help="Draw a learning-rate range test instead; writes no run.")
    ] = False,
    find_lr_steps: Annotated[int, typer.Option(help="Steps of the range test.")] = 200,
    find_lr_picture: Annotated[Path, typer.Option(help="Where --find-lr draws.")] = FIND_LR_PICTURE,
    as_json: AsJson = False,
) -> None:
    """Train a voice. SIGTERM writes a checkpoint and exits with code 75; --resume goes on from it.

    Example: ttsfast train config.yaml training.learning_rate=1e-3 --resume

    On two GPUs: torchrun --nproc-per-node 2 -m ttsfast train config.yaml --resume
    """
    if find_lr:
        _refuse_several("train --find-lr")
    from ttsfast.config import load_config
    from ttsfast.training.distributed.process_group import join_ranks
    from ttsfast.training.find_lr import find_learning_rate
    from ttsfast.training.trainer import Trainer

    given = values or []
    path = Path(given[0]) if given and "=" not in given[0] else None
    chosen = load_config(path, given[1:] if path else given, preset)
    if find_lr:
        found = find_learning_rate(chosen, find_lr_picture, steps=find_lr_steps)
        if as_json:
            _print_json({"suggestion": found.suggestion, "rates": found.rates, "smoothed": found.smoothed})
        else:
            print(f"the loss falls fastest at {found.suggestion:.2g}; {found.picture} shows the curve")
            print(f"try training.learning_rate={found.suggestion:.1e}")
        return
    with join_ranks(chosen.training) as ranks, Trainer(chosen, resume=resume, ranks=ranks) as trainer:
        result = trainer.fit()
    if not ranks.is_first:
        return
    if as_json:
        _print_json(
            {**vars(result), "run_folder": str(result.run_folder), "checkpoint": str(result.checkpoint)}
        )
    else:
        print(f"voice: {result.checkpoint}")


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="A run folder, or one of its checkpoints.")],
    output: Annotated[Path | None, typer.Option(help="Where to write; the run folder.")] = None,
    store: Annotated[
        str | None, typer.Option(help="Feature store, a folder or an address; the run's own.")
    ] = None,
    corpus: Annotated[Path | None, typer.Option(help="Recordings, to play in the report.")] = None,
    split: Annotated[str, typer.Option(help="validation or train.")] = "validation",
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    as_json: AsJson = False,
) -> None:
    """Measure a voice on held-out data; writes metrics.json and report.html.

    Example: ttsfast evaluate runs/voice
    """
    _refuse_several("evaluate")
    from ttsfast.evaluation.run import evaluate_run
    from ttsfast.progress import console

    result = evaluate_run(run, output=output, store=store, corpus=corpus, split=split, device=device)
    if as_json:
        _print_json(result.to_dict())
    else:
        console.print(result.table())
        print((output or run) / "report.html")


@app.command()
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
        _print_json({**result.evaluation.to_dict(), "seconds": result.seconds})
        return
    console.print(result.evaluation.table())
    total = sum(result.seconds.values())
    parts = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in result.seconds.items())
    print(f"{total:.0f} s in all ({parts})\nopen {result.folder / 'report.html'}")
