"""The command that looks for what is wrong."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ttsfast.cli.options import AsJson, print_json
from ttsfast.errors import InputError

if TYPE_CHECKING:
    from ttsfast.doctor.diagnosis import Diagnosis

_OPTIONS = {
    "dataset": (
        "language",
        "phonemes",
        "layout",
        "contract",
        "trim",
        "reduction",
        "corpus",
        "listen",
        "fix",
        "jobs",
    ),
    "model": ("store", "setting"),
    "run": ("store", "name"),
}
"""By what is looked at, the options that are about it alone."""
_SHOWN_AS = {"dataset": "a corpus or a store", "model": "--model", "run": "--run"}


def doctor(
    context: typer.Context,
    dataset: Annotated[
        Path | None,
        typer.Argument(help="A corpus folder with its listing, or a feature store.", show_default=False),
    ] = None,
    language: Annotated[str, typer.Option(help="Language of a corpus, such as en or fa.")] = "en",
    phonemes: Annotated[bool, typer.Option(help="It is to be prepared with --phonemes.")] = False,
    layout: Annotated[str, typer.Option(help="Of a corpus: auto, ljspeech, multispeaker or jsonl.")] = "auto",
    contract: Annotated[str, typer.Option(help="Mel contract of a corpus.")] = "hifigan-22k",
    trim: Annotated[bool, typer.Option(help="It is to be prepared with --trim.")] = False,
    reduction: Annotated[
        int, typer.Option(min=1, max=16, help="Mel frames of a decoder step: model.reduction_factor.")
    ] = 4,
    corpus: Annotated[Path | None, typer.Option(help="Of a store: its corpus, where that has moved.")] = None,
    listen: Annotated[
        bool,
        typer.Option(help="Learn for a minute or two what letters sound like, to find texts nobody says."),
    ] = True,
    fix: Annotated[
        Path | None, typer.Option(help="Also write the corpus, mended as is safe, to this new folder.")
    ] = None,
    jobs: Annotated[int, typer.Option(help="Threads; -1 uses every core.")] = -1,
    model: Annotated[
        str | None, typer.Option(help="Look at a model: convtts, or package.module:factory.")
    ] = None,
    store: Annotated[
        Path | None,
        typer.Option(
            help="Of --model: try it on utterances of this store, not on made-up ones. Of --run: what it was "
            "trained on, where that has moved."
        ),
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option(
            "--setting",
            "-s",
            help="Of --model: a YAML file or section.key=value, as for train; may be given again.",
            show_default=False,
        ),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(
            help="Look at a run: its folder, or TensorBoard's events or a csv log of another trainer."
        ),
    ] = None,
    name: Annotated[
        list[str] | None,
        typer.Option(
            "--map",
            help="Of --run: TAG=FIGURE, what a tag of another trainer's log is, such as my/l1=mel or "
            "val/l1=validation/mel; may be given again.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Also write a page with pictures and sounds.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say what is wrong with a dataset, a model or a run, what it does to training, and what mends it.

    Exit code 0: nothing that ruins a voice; 1: something does; 2: it could not be looked at.

    Example: ttsfast doctor LJSpeech-1.1 --output doctor.html

    A model of your own: ttsfast doctor --model my_voice:build --store data/ljspeech

    A run: ttsfast doctor --run runs/voice --output run.html
    """
    from ttsfast.files import check_output_file

    _check_one_subject(context)
    if output is not None:
        check_output_file(output)
    if dataset is not None:
        from ttsfast.doctor.dataset import DatasetOptions, examine_dataset
        from ttsfast.doctor.fix import check_new_folder, write_fixed
        from ttsfast.doctor.pictures import Illustrations

        if fix is not None:
            check_new_folder(fix)
        options = DatasetOptions(
            language=language,
            phonemes=phonemes,
            layout=layout,
            contract=contract,
            trim=trim,
            reduction=reduction,
            corpus=corpus,
            listen=listen,
            jobs=jobs,
        )
        examination = examine_dataset(dataset, options)
        diagnosis = examination.diagnosis
        _tell(diagnosis, as_json)
        if output is not None:
            from ttsfast.doctor.page import write_page

            write_page(output, diagnosis, Illustrations(examination.subject))
            print(output, file=sys.stderr if as_json else sys.stdout)
        if fix is not None:
            print(write_fixed(fix, examination), file=sys.stderr if as_json else sys.stdout)
    elif run is not None:
        from ttsfast.doctor.run.examine import examine_run
        from ttsfast.doctor.run.page import RunCurves

        found = examine_run(run, store=store, names=_names(name or ()))
        diagnosis = found.diagnosis
        _tell(diagnosis, as_json)
        if output is not None:
            from ttsfast.doctor.page import write_page

            write_page(output, diagnosis, RunCurves(found))
            print(output, file=sys.stderr if as_json else sys.stdout)
    else:
        from ttsfast.doctor.model import ModelOptions, examine_model

        assert model is not None
        diagnosis = examine_model(model, ModelOptions(store=store, settings=setting or ()))
        _tell(diagnosis, as_json)
        if output is not None:
            from ttsfast.doctor.page import write_page

            write_page(output, diagnosis)
            print(output, file=sys.stderr if as_json else sys.stdout)
    raise typer.Exit(diagnosis.exit_code)


def _tell(diagnosis: Diagnosis, as_json: bool) -> None:
    """Print it, for a program or for a person."""
    from rich.console import Console

    if as_json:
        print_json(diagnosis.to_dict())
        return
    print(f"{diagnosis.subject}: {diagnosis.verdict}")
    Console().print(diagnosis.table())


def _check_one_subject(context: typer.Context) -> None:
    """Raise InputError unless there is one thing to look at, and no option that is about another."""
    given = {name for name in context.params if _is_given(context, name)}
    subjects = [name for name in _OPTIONS if name in given]
    if len(subjects) != 1:
        said = " and ".join(_SHOWN_AS[name] for name in subjects) or "nothing"
        raise InputError(
            f"ttsfast doctor looks at one thing at a time, {' or '.join(_SHOWN_AS.values())}, and {said} is "
            "given; name one"
        )
    (subject,) = subjects
    for option in sorted(given):
        owners = [other for other, options in _OPTIONS.items() if option in options]
        if owners and subject not in owners:
            shown = "map" if option == "name" else option
            raise InputError(
                f"--{shown} goes with {' or '.join(_SHOWN_AS[other] for other in owners)}, not with "
                f"{_SHOWN_AS[subject]}; leave it out"
            )


def _names(given: Iterable[str]) -> dict[str, str]:
    """Our names by the tags of a log."""
    names = {}
    for pair in given:
        tag, equals, ours = pair.rpartition("=")
        if not (equals and tag and ours):
            raise InputError(f"--map {pair}: write TAG=FIGURE, such as my/l1=mel")
        names[tag] = ours
    return names


def _is_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"
