"""The command that looks for what is wrong."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from ttsfast.cli.options import AsJson, print_json


def doctor(
    dataset: Annotated[Path, typer.Argument(help="A corpus folder with its listing, or a feature store.")],
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
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Also write a page with pictures and sounds.")
    ] = None,
    fix: Annotated[
        Path | None, typer.Option(help="Also write the corpus, mended as is safe, to this new folder.")
    ] = None,
    jobs: Annotated[int, typer.Option(help="Threads; -1 uses every core.")] = -1,
    as_json: AsJson = False,
) -> None:
    """Say what is wrong with a dataset, what it does to training, and what mends it.

    Exit code 0: nothing that ruins a voice; 1: something does; 2: it could not be looked at.

    Example: ttsfast doctor LJSpeech-1.1 --output doctor.html
    """
    from rich.console import Console

    from ttsfast.doctor.dataset import DatasetOptions, examine_dataset
    from ttsfast.doctor.fix import check_new_folder, write_fixed
    from ttsfast.files import check_output_file

    if output is not None:
        check_output_file(output)
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
    if as_json:
        print_json(examination.diagnosis.to_dict())
    else:
        print(f"{dataset}: {examination.diagnosis.verdict}")
        Console().print(examination.diagnosis.table())
    if output is not None:
        from ttsfast.doctor.page import write_page

        write_page(output, examination)
        print(output, file=sys.stderr if as_json else sys.stdout)
    if fix is not None:
        print(write_fixed(fix, examination), file=sys.stderr if as_json else sys.stdout)
    raise typer.Exit(examination.diagnosis.exit_code)
