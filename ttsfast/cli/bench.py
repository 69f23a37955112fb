"""``ttsfast bench``: measured speed, each figure after a check that the result is right."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from ttsfast.cli.convergence import convergence
from ttsfast.cli.options import AsJson, Device
from ttsfast.errors import InputError

bench = typer.Typer(help="Measure speed, after checking that the results are right.", no_args_is_help=True)

Output = Annotated[
    Path | None, typer.Option(help="Also write the JSON to this file.", callback=lambda path: _writable(path))
]
Threads = Annotated[int | None, typer.Option(min=1, help="Threads of torch and of the C++ backend.")]


def _writable(output: Path | None) -> Path | None:
    """Asked before anything is measured."""
    if output is not None and not output.parent.is_dir():
        raise InputError(f"{output}: there is no folder {output.parent}; make it, or name another file")
    return output


def _counts(text: str) -> list[int]:
    """Raise InputError where ``text`` is not numbers between commas."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise InputError(f"--neighbours {text}: whole numbers between commas, such as 0,1,2,4")
    return list(dict.fromkeys(int(part) for part in parts))


def _report(result: dict[str, Any], table: str, output: Path | None, as_json: bool) -> None:
    from ttsfast.benchmarks.records import write_record

    write_record(output, result)
    print(json.dumps(result, indent=1) if as_json else table)


bench.command()(convergence)


@bench.command()
def loss(
    device: Device = "cpu",
    threads: Threads = None,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each variant on each shape.")] = 20,
    all_shapes: Annotated[bool, typer.Option("--all", help="More shapes than the two with targets.")] = False,
    compiled: Annotated[
        str, typer.Option(help="Modes of torch.compile, comma-separated; empty: none.")
    ] = "default",
    output: Output = None,
    as_json: AsJson = False,
) -> None:
    """Time the composite loss: plain torch, torch.compile and each backend, interleaved.

    Example: ttsfast bench loss --threads 2
    """
    import torch._inductor

    from ttsfast.benchmarks import loss as measured
    from ttsfast.benchmarks.loss_cases import CASES, MORE_CASES
    from ttsfast.devices import find_device
    from ttsfast.progress import console

    modes = [mode for mode in compiled.split(",") if mode]
    known = list(torch._inductor.list_mode_options())
    for mode in modes:
        if mode not in known:
            raise InputError(f"--compiled {mode}: not a mode of torch.compile; use {', '.join(known)}")
    result = measured.run_loss_bench(
        CASES + MORE_CASES if all_shapes else CASES,
        device=find_device(device),
        threads=threads,
        rounds=rounds,
        compiled=modes,
        progress=lambda line: console.print(line, markup=False),
    )
    _report(result, measured.table(result), output, as_json)


@bench.command()
def alignment(
    device: Device = "cpu",
    threads: Threads = None,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each way on each size.")] = 10,
    sizes: Annotated[int, typer.Option(min=1, max=4, help="How many sizes, from the smallest.")] = 4,
    output: Output = None,
    as_json: AsJson = False,
) -> None:
    """Time the alignment search and the forward-sum loss beside those of other packages.

    The package monotonic-alignment-search and numba are compared with where they are installed.

    Example: ttsfast bench alignment --threads 2
    """
    from ttsfast.benchmarks import alignment as measured
    from ttsfast.benchmarks.alignment_cases import CASES
    from ttsfast.devices import find_device
    from ttsfast.progress import console

    result = measured.run(
        CASES[:sizes],
        device=find_device(device),
        threads=threads,
        rounds=rounds,
        progress=lambda line: console.print(line, markup=False),
    )
    _report(result, measured.table(result), output, as_json)


@bench.command()
def roofline(device: Device = "cpu", output: Output = None, as_json: AsJson = False) -> None:
    """List the bytes that every term must move, and what they cost at this machine's copy bandwidth.

    Example: ttsfast bench roofline
    """
    from ttsfast.benchmarks import roofline as measured
    from ttsfast.devices import find_device

    result = measured.run_roofline(device=find_device(device))
    _report(result, measured.show(result), output, as_json)


@bench.command()
def data(
    device: Device = "cpu",
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each variant.")] = 7,
    utterances: Annotated[int, typer.Option(min=64, help="Size of the store that is loaded.")] = 576,
    sections: Annotated[
        str, typer.Option(help="What to measure, comma-separated; all when empty.", show_default=False)
    ] = "",
    memory: Annotated[
        bool, typer.Option("--memory", help="Also prepare up to 20,000 utterances and watch memory: minutes.")
    ] = False,
    output: Output = None,
    as_json: AsJson = False,
) -> None:
    """Time the data path: features, assembly of batches, planning; the loader, its memory and its cost.

    Example: ttsfast bench data --output data.json
    """
    from ttsfast.benchmarks import data as measured
    from ttsfast.devices import find_device
    from ttsfast.progress import console

    result = measured.run_data_bench(
        sections.split(",") if sections else measured.SECTIONS,
        device=find_device(device),
        utterances=utterances,
        rounds=rounds,
        memory=memory,
        progress=lambda line: console.print(line, markup=False),
    )
    _report(result, measured.table(result), output, as_json)


@bench.command()
def synth(
    recordings: Annotated[
        Path | None, typer.Option(help="Folder of wav or flac files to copy; noise without it.")
    ] = None,
    utterances: Annotated[int, typer.Option(min=1, help="Of the folder.")] = 12,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each way.")] = 3,
    output: Output = None,
    as_json: AsJson = False,
) -> None:
    """Time Griffin-Lim beside librosa's, and the wait before a first word; compare what is heard.

    Example: ttsfast bench synth --recordings corpus/wavs
    """
    from ttsfast.benchmarks import synthesis as measured
    from ttsfast.progress import console

    result = measured.run(
        recordings,
        utterances=utterances,
        rounds=rounds,
        progress=lambda line: console.print(line, markup=False),
    )
    _report(result, measured.table(result), output, as_json)


@bench.command()
def train(
    threads: Threads = None,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each loop.")] = 8,
    features: Annotated[
        str,
        typer.Option(
            help="Instead, time the trainer with each of these on and off, comma-separated; or all.",
            show_default=False,
        ),
    ] = "",
    neighbours: Annotated[
        str,
        typer.Option(
            help="Instead, time it beside so many busy processes, comma-separated, as 0,1,2,4.",
            show_default=False,
        ),
    ] = "",
    device: Annotated[str, typer.Option(help="cpu or cuda, with --features.")] = "cpu",
    size: Annotated[str, typer.Option(help="Of ConvTTS, with --features.")] = "nano",
    batch_size: Annotated[int, typer.Option(min=1, help="Utterances, with --features.")] = 16,
    output: Output = None,
    as_json: AsJson = False,
) -> None:
    """Time the trainer beside a plain PyTorch loop with the same model, data and optimiser, on a CPU; or with
    each of its features on and off; or where others use the CPU too.

    Example: ttsfast bench train --threads 2
    Example: ttsfast bench train --neighbours 0,1,2,4 --rounds 5
    Example: ttsfast bench train --features loss,loader
    """
    from ttsfast.benchmarks import neighbours as shared
    from ttsfast.benchmarks import training as loops
    from ttsfast.benchmarks import training_features as switches
    from ttsfast.devices import find_device
    from ttsfast.progress import console

    def progress(line: str) -> None:
        console.print(line, markup=False)

    if neighbours:
        if features:
            raise InputError("--neighbours and --features are two measurements: ask for one of them")
        result = shared.run(_counts(neighbours), rounds=rounds, threads=threads, progress=progress)
        _report(result, shared.table(result), output, as_json)
        return
    if not features:
        result = loops.run(rounds=rounds, threads=threads, progress=progress)
        _report(result, loops.table(result), output, as_json)
        return
    result = switches.run(
        switches.NAMES if features == "all" else [name.strip() for name in features.split(",")],
        device=find_device(device),
        size=size,
        batch_size=batch_size,
        rounds=rounds,
        threads=threads,
        progress=progress,
    )
    _report(result, switches.table(result), output, as_json)
