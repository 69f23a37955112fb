"""The commands that make, check and show feature stores."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ttsfast.cli.options import AsJson, print_json, show
from ttsfast.errors import InputError

if TYPE_CHECKING:
    from ttsfast.data.features.contract import MelContract
    from ttsfast.data.store.manifest import Manifest

CorpusFolder = Annotated[Path, typer.Argument(help="Folder of recordings and what lists them.")]
AllowRoot = Annotated[
    list[Path] | None,
    typer.Option(
        help="A folder beside the corpus's that recordings may be in; several times.", show_default=False
    ),
]
ExcludeBad = Annotated[
    bool, typer.Option(help="Go on without what is faulty, and list it; without it, nothing is written.")
]
Jobs = Annotated[int, typer.Option(help="Processes; -1 uses every core.")]
Engine = Annotated[str, typer.Option(help="What runs them: serial, joblib (this machine), ray or dask.")]
_SHOWN_FAULTS = 20
"""Of one kind: further ones tell nothing new."""
Device = Annotated[str, typer.Option(help="cpu; or cuda: processes decode, the GPU computes features.")]


def prepare(
    corpus: CorpusFolder,
    store: Annotated[Path, typer.Argument(help="Folder to write the feature store to.")],
    language: Annotated[
        str | None,
        typer.Option(help="Language of the text, such as en or fa.", show_default="en, or that of --like"),
    ] = None,
    phonemes: Annotated[
        bool | None, typer.Option(help="Turn text into phonemes with espeak-ng.", show_default="no")
    ] = None,
    keep_diacritics: Annotated[
        bool | None, typer.Option(help="Keep Persian harakat as symbols.", show_default="no")
    ] = None,
    like: Annotated[
        Path | None,
        typer.Option(
            help="A store whose mel contract and statistics this one keeps, so that a voice trained on that "
            "can go on with this (train --from); and its language, phonemes, diacritics and symbols."
        ),
    ] = None,
    layout: Annotated[
        str, typer.Option(help="How recordings are listed; auto finds out. All of them: docs/corpora.md.")
    ] = "auto",
    allow_root: AllowRoot = None,
    contract: Annotated[
        str | None,
        typer.Option(
            help="Mel contract: hifigan-22k or librosa-22k.", show_default="hifigan-22k, or that of --like"
        ),
    ] = None,
    validation_fraction: Annotated[
        float, typer.Option(help="Share of the texts that checkpoints are chosen by.")
    ] = 0.05,
    test_fraction: Annotated[
        float | None,
        typer.Option(
            help="Share of the texts that nothing sees before `ttsfast evaluate`; 0.1 of corpora over 200 "
            "utterances, else 0.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the split.")] = 0,
    resample: Annotated[bool, typer.Option(help="Resample recordings of another rate.")] = False,
    mixdown: Annotated[bool, typer.Option(help="Average the channels of stereo recordings.")] = False,
    trim: Annotated[bool, typer.Option(help="Trim leading and trailing silence.")] = False,
    loudness: Annotated[
        float | None,
        typer.Option(help="LUFS to bring every recording to, -23 by EBU R128.", show_default=False),
    ] = None,
    max_duration: Annotated[
        float | None, typer.Option(help="Seconds; longer recordings are left out, and listed.")
    ] = None,
    pitch: Annotated[bool, typer.Option("--pitch", help="Also each frame's F0 in Hz; slow.")] = False,
    energy: Annotated[bool, typer.Option("--energy", help="Also each frame's energy.")] = False,
    licence: Annotated[
        str, typer.Option(help="Of the corpus, such as CC0-1.0; every voice trained on it carries it.")
    ] = "",
    exclude_bad: ExcludeBad = False,
    jobs: Jobs = -1,
    engine: Engine = "joblib",
    device: Device = "cpu",
    force: Annotated[bool, typer.Option(help="Replace a store made with other options.")] = False,
    shard: Annotated[
        str | None,
        typer.Option(help="i/n: only do part i of n, as one of n workers; `ttsfast finalize` ends it."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compute the features of a corpus once, with statistics, checksums and fixed splits.

    Example: ttsfast prepare LJSpeech-1.1 data/ljspeech --language en
    """
    from ttsfast.data.corpus.text import TextFrontend
    from ttsfast.data.prepare.like import Like
    from ttsfast.data.prepare.partitions import Partition
    from ttsfast.data.prepare.prepare import PrepareOptions, prepare_partition
    from ttsfast.data.prepare.prepare import prepare as run
    from ttsfast.data.store.manifest_reader import read_manifest

    known = None if like is None else read_manifest(like)
    before = TextFrontend("en") if known is None else known.frontend
    frontend = TextFrontend(
        before.language if language is None else language,
        phonemes=before.phonemes if phonemes is None else phonemes,
        keep_diacritics=before.keep_diacritics if keep_diacritics is None else keep_diacritics,
    )
    options = PrepareOptions(
        contract=_contract(contract, known),
        frontend=frontend,
        like=None if known is None else Like.of(known, frontend),
        layout=layout,
        validation_fraction=validation_fraction,
        test_fraction=test_fraction,
        seed=seed,
        resample=resample,
        mixdown=mixdown,
        trim=trim,
        loudness=loudness,
        max_duration=max_duration,
        pitch=pitch,
        energy=energy,
        licence=licence,
        exclude_bad=exclude_bad,
        jobs=jobs,
        engine=engine,
        device=device,
        force=force,
        allow_roots=tuple(allow_root or ()),
    )
    with _faults_listed():
        if shard is None:
            show(run(corpus, store, options), as_json)
        else:
            show(prepare_partition(corpus, store, options, Partition.parse(shard)), as_json)


def finalize(
    store: Annotated[Path, typer.Argument(help="Folder that all parts were prepared into.")],
    rebuild: Annotated[
        bool, typer.Option(help="Make a lost or damaged manifest anew from the shards themselves.")
    ] = False,
    force: Annotated[bool, typer.Option(help="Replace the store that is there.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make a store of the parts that `prepare --shard i/n` has left: statistics, shards, manifest.

    Example: ttsfast finalize data/ljspeech
    """
    from ttsfast.data.prepare.prepare import finalize as run
    from ttsfast.data.prepare.rebuild import rebuild as run_rebuild

    show(run_rebuild(store) if rebuild else run(store, force=force), as_json)


def append(
    corpus: CorpusFolder,
    store: Annotated[Path, typer.Argument(help="The store that was prepared from it.")],
    exclude_bad: ExcludeBad = False,
    jobs: Jobs = -1,
    engine: Engine = "joblib",
    device: Device = "cpu",
    allow_root: AllowRoot = None,
    as_json: AsJson = False,
) -> None:
    """Add the utterances that a corpus has gained to its store, which keeps its statistics and its split.

    Example: ttsfast append LJSpeech-1.1 data/ljspeech
    """
    from ttsfast.data.prepare.append import append as run

    with _faults_listed():
        report = run(
            corpus,
            store,
            exclude_bad=exclude_bad,
            jobs=jobs,
            engine=engine,
            device=device,
            allow_roots=allow_root or (),
        )
        show(report, as_json)


def verify(
    store: Annotated[str, typer.Argument(help="A feature store: a folder, or an address.")],
    quick: Annotated[bool, typer.Option(help="Sizes, headers and manifest only.")] = False,
    as_json: AsJson = False,
) -> None:
    """Check every byte of a store against its manifest.

    Example: ttsfast verify data/ljspeech
    """
    from ttsfast.data.store.verify import verify as run

    report = run(store, quick=quick)
    if as_json:
        print_json(report.to_dict())
    elif report.ok:
        print(report)
    else:
        for problem in report.problems:
            print(f"  {problem}", file=sys.stderr)
    if not report.ok:
        count = len(report.problems)
        raise InputError(
            f"{report.store}: {count} problem{'s' if count > 1 else ''}, listed above with what to do about "
            f"{'them' if count > 1 else 'it'}"
        )


def inspect(
    store: Annotated[str, typer.Argument(help="A feature store: a folder, or an address.")],
    output: Annotated[
        Path | None, typer.Option(help="Also write a page with plots and sample mels to this file.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what is inside a store: lengths, speakers, statistics, and what was left out and why.

    Example: ttsfast inspect data/ljspeech --output store.html
    """
    from rich.console import Console

    from ttsfast.data.inspection.summary import inspect as run
    from ttsfast.data.store.store import Store
    from ttsfast.files import check_output_file

    if output is not None:
        check_output_file(output)
    opened = Store.open(store)
    inspection = run(opened)
    if output is not None:
        from ttsfast.data.inspection.page import write_page

        write_page(output, opened, inspection)
    if as_json:
        print_json(inspection.to_dict())
    else:
        Console().print(inspection.table())
        if output is not None:
            print(output)


def _contract(name: str | None, like: Manifest | None) -> MelContract:
    """The mel contract of a name, or of the store to be like, which must not be two."""
    from ttsfast.data.features.contract import DEFAULT_PRESET, MelContract

    if like is None:
        return MelContract.preset(name or DEFAULT_PRESET)
    if name is not None and MelContract.preset(name) != like.contract:
        raise InputError(
            f"--contract {name}: the store of --like has another mel contract; leave one of them out"
        )
    return like.contract


@contextmanager
def _faults_listed() -> Iterator[None]:
    from ttsfast.data.prepare.survey import CorpusFaults

    try:
        yield
    except CorpusFaults as error:
        shown: Counter[str] = Counter()
        for fault in error.faults:
            shown[fault.reason] += 1
            if shown[fault.reason] <= _SHOWN_FAULTS:
                print(f"  {fault.id}: {fault.reason}: {fault.detail}", file=sys.stderr)
        for reason, count in shown.items():
            if count > _SHOWN_FAULTS:
                print(f"  and {count - _SHOWN_FAULTS} more: {reason}", file=sys.stderr)
        raise
