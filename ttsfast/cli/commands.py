"""All commands in one, and how they end. Each is a thin call into the package; its docstring is its help."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from ttsfast import __version__, streams
from ttsfast.cli import config, corpus, doctor, serve, train, voice
from ttsfast.cli.bench import bench
from ttsfast.cli.vocoder import vocoder
from ttsfast.devices import heed_quota
from ttsfast.errors import (
    ExportError,
    InputError,
    Preempted,
    RankLost,
    SaidByAnotherRank,
    SpeechError,
    TrainingError,
    exit_code,
)
from ttsfast.files import from_home, naming

app = typer.Typer(
    help="A fast-converging trainer for text-to-speech acoustic models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

# In the order of work, which is that of the help.
for command in (
    *(train.demo, doctor.doctor),
    *(corpus.prepare, corpus.append, corpus.finalize, corpus.verify, corpus.inspect),
    *(config.config, train.train, voice.evaluate, voice.compare, voice.synth, voice.export),
    *(serve.serve, config.env),
):
    app.command()(command)
app.add_typer(vocoder, name="vocoder")
app.add_typer(bench, name="bench")


def _paths_from_home(command: Callable[..., Any]) -> Callable[..., Any]:
    """A command whose paths may begin with ``~``, as a shell hands on ``--output=~/x``."""

    def expanded(value: Any) -> Any:
        if isinstance(value, list):
            return [expanded(one) for one in value]
        return Path(from_home(str(value))) if isinstance(value, Path) else value

    @wraps(command)
    def run(**arguments: Any) -> Any:
        return command(**{name: expanded(value) for name, value in arguments.items()})

    return run


for group in (app, vocoder, bench):
    for registered in group.registered_commands:
        assert registered.callback is not None
        registered.callback = _paths_from_home(registered.callback)


def _print_version(asked: bool) -> None:
    if asked:
        print(f"ttsfast {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run a command; what ends it becomes one line on stderr: bad input code 2, failure 1, preempted 75."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        # Every rank would print torch's warning that looking for unused parameters costs time; it is meant.
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    streams.open_closed()
    streams.print_anything()
    heed_quota()
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
    except UnicodeEncodeError as error:
        print(f"ttsfast: {_unsayable(error)}", file=streams.Forgiving(sys.stderr))
        sys.exit(2)
    except (InputError, Preempted, TrainingError, ExportError, SpeechError, OSError) as error:
        if isinstance(error, (Preempted, RankLost)):
            # Whoever sends it (again), torchrun or a scheduler, is obeyed already.
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_IGN)
        print(f"ttsfast: {error}", file=streams.Forgiving(sys.stderr))
        sys.exit(exit_code(error))


def _unsayable(error: UnicodeEncodeError) -> str:
    """One line on a name or text that an encoding lacks."""
    what = f"{error.object[:80]!r} holds {error.object[error.start]!r}, which"
    if "surrogates" in error.reason:
        return f"{what} is no character: it was read from bytes that are not UTF-8; convert them"
    return (
        f"{what} cannot be written in {error.encoding}, the encoding of this locale; start ttsfast with "
        "PYTHONUTF8=1, or in a locale such as C.UTF-8"
    )
