"""``ttsfast vocoder``: what makes sound of mels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ttsfast.cli.options import AsJson, print_json

vocoder = typer.Typer(help="Make a vocoder's file for `ttsfast synth --vocoder`.", no_args_is_help=True)
VOCODER_FILE = Path("vocoder.onnx")


@vocoder.callback()
def _alone() -> None:
    """Without it, typer would take the only command for the whole."""


@vocoder.command()
def convert(
    checkpoint: Annotated[Path, typer.Argument(help="Weights of HiFi-GAN V1, V2 or V3; no code in it runs.")],
    config: Annotated[Path, typer.Argument(help="The config.json that they were trained with.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write, *.onnx.")] = VOCODER_FILE,
    as_json: AsJson = False,
) -> None:
    """Write published HiFi-GAN weights as one ONNX file, its mel contract inside.

    Example: ttsfast vocoder convert generator_v1 config.json --output hifigan.onnx
    """
    from ttsfast.export.vocoder import convert_vocoder

    report = convert_vocoder(checkpoint, config, output)
    if as_json:
        print_json(report.to_dict())
    else:
        print(f"{report.path}: {report.parameters:,} parameters in {report.bytes / 2**20:.1f} MiB")
