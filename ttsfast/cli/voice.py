"""The commands that measure and use a trained voice."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from ttsfast.cli.options import AsJson, Device, TrustCode, print_json, refuse_several
from ttsfast.errors import InputError

VocoderFile = Annotated[
    Path | None,
    typer.Option("--vocoder", help="ONNX or TorchScript (trusted!) file; without it, Griffin-Lim."),
]
Unknown = Annotated[
    str, typer.Option(help="A symbol that the voice has not learnt: error, or skip to leave it out.")
]
LexiconFile = Annotated[
    Path | None, typer.Option(help="Your own readings: WORD<tab>READING a line, a spelling or /phonemes/.")
]
AssumeContract = Annotated[
    bool,
    typer.Option(
        "--assume-contract", help="Use a vocoder that names no mel contract as if it had the voice's."
    ),
]
VoicePath = Annotated[Path, typer.Argument(help="A run folder, one of its checkpoints, or an exported file.")]
SPEECH, VOICE_FILE, COMPARISON = Path("speech"), Path("voice.onnx"), Path("comparison")
PIPE = Path("-")
BROKEN_PIPE = 141
"""128 + SIGPIPE: what a shell reports of any program whose reader has gone."""


def evaluate(
    run: Annotated[Path, typer.Argument(help="A run folder, or one of its checkpoints.")],
    output: Annotated[Path | None, typer.Option(help="Where to write; the run folder.")] = None,
    store: Annotated[
        str | None, typer.Option(help="Feature store, a folder or an address; the run's own.")
    ] = None,
    corpus: Annotated[
        Path | None, typer.Option(help="Recordings, to play in the report, and for --asr to hear.")
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="test, validation or train; test where the store has it.")
    ] = None,
    asr: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="Count words that Whisper hears wrong: a folder of a model for faster-whisper, or a name "
            "such as small, fetched from the network. Extra asr.",
        ),
    ] = None,
    vocoder: VocoderFile = None,
    assume_contract: AssumeContract = False,
    device: Device = "cpu",
    trust_code: TrustCode = False,
    as_json: AsJson = False,
) -> None:
    """Measure a voice on held-out data; writes metrics.json and report.html.

    Example: ttsfast evaluate runs/ljspeech
    """
    refuse_several("evaluate")
    from ttsfast.evaluation.run import evaluate_run
    from ttsfast.progress import console

    result = evaluate_run(
        run,
        output=output,
        store=store,
        corpus=corpus,
        split=split,
        asr=asr,
        vocoder=vocoder,
        assume_contract=assume_contract,
        device=device,
        trust_code=trust_code,
    )
    if as_json:
        print_json(result.to_dict())
    else:
        console.print(result.table())
        print((output or run) / "report.html")


def compare(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, or their checkpoints; two at least.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for the page with its pictures and sounds.")
    ] = COMPARISON,
    as_json: AsJson = False,
) -> None:
    """Put runs beside one another on one page: settings that differ, figures, samples and curves.

    Example: ttsfast compare runs/first runs/second
    """
    from ttsfast.evaluation.compare import compare as run

    comparison = run(runs, output)
    if as_json:
        print_json(comparison.to_dict())
    else:
        print(comparison.page)


def synth(
    voice: VoicePath,
    texts: Annotated[list[str] | None, typer.Argument(help="What to say.")] = None,
    input: Annotated[
        Path | None, typer.Option("--input", "-i", help="A file of lines, text or id|text; - is stdin.")
    ] = None,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="Folder for wav files, or one file *.wav; - streams to stdout."),
    ] = SPEECH,
    raw: Annotated[bool, typer.Option(help="Stream samples (s16le, mono) without a wav header.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that are there.")] = False,
    speaker: Annotated[str | None, typer.Option(help="Speaker by name; the first one.")] = None,
    speed: Annotated[
        float, typer.Option(help="Times as fast, 0.5 to 2; a ParallelTTS voice.", show_default=False)
    ] = 1.0,
    pitch: Annotated[
        float,
        typer.Option(help="Semitones higher; a ParallelTTS voice that learnt pitch.", show_default=False),
    ] = 0.0,
    no_split: Annotated[
        bool, typer.Option("--no-split", help="Speak a text in one go, not by sentence.")
    ] = False,
    unknown: Unknown = "error",
    lexicon: LexiconFile = None,
    vocoder: VocoderFile = None,
    assume_contract: AssumeContract = False,
    device: Device = "cpu",
    trust_code: TrustCode = False,
    as_json: AsJson = False,
) -> None:
    """Speak texts of any length into wav files, with the mel contract beside them, or as a stream.

    What is not read whole is spoken once more, then left out: exit code 1.

    Example: ttsfast synth runs/ljspeech "Hello there." "How are you?" --output speech
    """
    from ttsfast.data.corpus.spelling import read_spelling
    from ttsfast.devices import find_device
    from ttsfast.models.interface import Delivery
    from ttsfast.models.voice import Voice
    from ttsfast.synthesis import speech
    from ttsfast.synthesis.lines import given_lines, read_file, read_lines
    from ttsfast.synthesis.reader import Reader
    from ttsfast.synthesis.vocoder import load_vocoder

    streaming = output == PIPE
    _check_choices(texts, input, streaming, raw, as_json)
    spelling = read_spelling(unknown, lexicon)
    where = find_device(device)
    speaking = Voice.load(voice, where, trust_code=trust_code)
    made_by = load_vocoder(vocoder, speaking.contract, assume_contract=assume_contract, device=where)
    if speaker is not None:
        speaking.speaker_number(speaker)
    delivery = Delivery(speed=speed, pitch=pitch)
    speaking.check_delivery(delivery)
    reader = Reader(
        voice=speaking,
        vocoder=made_by,
        speaker=speaker,
        split=not no_split,
        spelling=spelling,
        delivery=delivery,
    )
    if input == PIPE:
        lines = read_lines(sys.stdin, "stdin")
    else:
        lines = iter(given_lines(texts or []) if input is None else read_file(input))
    if streaming:
        if input != PIPE:
            # Before the first sample; what comes from a pipe is checked line by line.
            lines = iter(given := list(lines))
            reader.check(given)
        _stream(lambda: speech.stream_speech(reader, lines, sys.stdout.buffer, raw=raw))
        return
    spoken = speech.write_speech(reader, list(lines), output, overwrite=overwrite)
    if as_json:
        print_json(spoken)
    else:
        for entry in spoken:
            read = "" if entry["read"] is None else f"  {entry['read']:.0%} read"
            print(f"{entry['file'] or 'not spoken'}  {entry['seconds']:.2f} s{read}  {entry['text']}")
    speech.require_whole([entry["id"] for entry in spoken if entry["fault"]])


def export(
    voice: Annotated[Path, typer.Argument(help="A run folder, or one of its checkpoints.")],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="The file to write: *.onnx, or *.safetensors for PyTorch."),
    ] = VOICE_FILE,
    trust_code: TrustCode = False,
    as_json: AsJson = False,
) -> None:
    """Write a voice as one file for `ttsfast synth`: ONNX for any runtime, checked against PyTorch, or
    safetensors for PyTorch.

    Example: ttsfast export runs/ljspeech --output voice.onnx
    """
    if output.suffix == ".safetensors":
        from ttsfast.export.single_file import export_single_file

        written = export_single_file(voice, output)
        if as_json:
            print_json(written.to_dict())
        else:
            said = f"{written.parameters:,} numbers in {written.bytes / 2**20:.1f} MiB, step {written.step}"
            print(f"{written.path}: {said}; licence of the corpus: {written.licence or 'not given'}")
        return
    from ttsfast.export.onnx import export_voice
    from ttsfast.models.voice import Voice

    report = export_voice(Voice.load(voice, trust_code=trust_code), output)
    if as_json:
        print_json(report.to_dict())
    else:
        print(
            f"{report.path}: {report.parameters:,} parameters in {report.bytes / 2**20:.1f} MiB; its mels "
            f"differ from PyTorch's by {report.max_difference:.1e} at most where both hear the same frames "
            f"({report.frames}), and free-running by {report.free_running_difference:.1e} "
            f"(the {report.free_running_frames} frames that float32 rounding leaves certain)"
        )


def _check_choices(
    texts: list[str] | None,
    input: Path | None,
    streaming: bool,
    raw: bool,
    as_json: bool,
) -> None:
    if bool(texts) == (input is not None):
        raise InputError("say what: give texts, or a file with --input, and not both")
    if raw and not streaming:
        raise InputError("--raw is for a stream: add --output -")
    if streaming and as_json:
        raise InputError("--json and --output - both want stdout: choose one")
    if streaming and sys.stdout is None:
        raise InputError("--output - writes to stdout, which is closed: pipe it into a player or a file")
    if streaming and sys.stdout.isatty():
        raise InputError("--output - would write samples to the terminal: pipe it into a player or a file")


def _stream(write: Any) -> None:
    try:
        write()
    except BrokenPipeError:
        # What is still buffered has nowhere to go; Python would complain of it on its way out.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(BROKEN_PIPE) from None
