"""``ttsfast serve``: a voice for other programs."""

from __future__ import annotations

from typing import Annotated

import typer

from ttsfast.cli.options import Device, TrustCode
from ttsfast.cli.voice import AssumeContract, LexiconFile, Unknown, VocoderFile, VoicePath
from ttsfast.errors import InputError


def serve(
    voice: VoicePath,
    host: Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 lets others in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any that is free.")] = 8000,
    max_characters: Annotated[int, typer.Option(min=1, help="Of a text.")] = 4096,
    max_requests: Annotated[
        int, typer.Option(min=1, help="Spoken or waiting at once; more are told to come back.")
    ] = 32,
    unknown: Unknown = "error",
    lexicon: LexiconFile = None,
    vocoder: VocoderFile = None,
    assume_contract: AssumeContract = False,
    device: Device = "cpu",
    trust_code: TrustCode = False,
) -> None:
    """Serve a voice over HTTP, as OpenAI's POST /v1/audio/speech, with a page to try it. Extra serve.

    Example: ttsfast serve runs/ljspeech --port 8000
    """
    try:
        from ttsfast.serving.server import bind
        from ttsfast.serving.server import serve as run
    except ModuleNotFoundError as error:
        raise InputError(f"serve needs the package {error.name}: pip install 'ttsfast[serve]'") from error
    from ttsfast.data.corpus.spelling import read_spelling
    from ttsfast.devices import find_device
    from ttsfast.models.voice import Voice
    from ttsfast.progress import console
    from ttsfast.serving.request import Limits
    from ttsfast.serving.service import Service
    from ttsfast.synthesis.reader import Reader
    from ttsfast.synthesis.vocoder import load_vocoder

    spelling = read_spelling(unknown, lexicon)
    limits = Limits(characters=max_characters, requests=max_requests)
    with bind(host, port, limits.seconds) as bound:
        where = find_device(device)
        speaking = Voice.load(voice, where, trust_code=trust_code)
        made_by = load_vocoder(vocoder, speaking.contract, assume_contract=assume_contract, device=where)
        address, number = bound.getsockname()[:2]
        shown = f"[{address}]" if ":" in address else address
        console.print(f"{voice}: http://{shown}:{number} (Ctrl-C ends it)", markup=False, soft_wrap=True)
        reader = Reader(voice=speaking, vocoder=made_by, spelling=spelling)
        run(Service(reader, limits), voice.resolve().stem, bound)
