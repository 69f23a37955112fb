"""One rank of a test: takes the runs of a JSON file in turn, within one process group.

Each run: a configuration, ``resume``, ``dropout``, and what is to ``happen`` on one rank at one step.
Leaves each run's weights beside the JSON file, one file per rank.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any, TypeAlias

import torch
from tiny_model import TinyModel, traced_only
from torch import Tensor, nn

from ttsfast.cli import commands
from ttsfast.config import config_from_dict
from ttsfast.data.store.store import Store
from ttsfast.errors import InputError
from ttsfast.models.interface import AcousticOutput
from ttsfast.models.paralleltts import ParallelTTS
from ttsfast.models.paralleltts_config import ParallelTTSConfig
from ttsfast.training import ratios, validation
from ttsfast.training.distributed.process_group import ProcessGroup, join_ranks
from ttsfast.training.trainer import Trainer


class MoreModel(TinyModel):
    """A tiny model whose loss has a part more."""

    def forward(
        self,
        text: Tensor,
        text_lengths: Tensor,
        mel: Tensor,
        mel_lengths: Tensor,
        speaker: Tensor | None = None,
    ) -> AcousticOutput:
        output = super().forward(text, text_lengths, mel, mel_lengths, speaker)
        output.auxiliary = self.more(text, text_lengths, mel_lengths)
        return output

    def more(self, text: Tensor, text_lengths: Tensor, mel_lengths: Tensor) -> Tensor | None:
        raise NotImplementedError


class MovingModel(MoreModel):
    """Leaves one part out always, another wherever no utterance is long; and counts what it has seen."""

    def __init__(self, symbols: int) -> None:
        super().__init__(symbols)
        self.never = nn.Linear(2, 2)
        self.at_times = nn.Linear(8, 1)
        self.register_buffer("seen", torch.zeros(()))
        self.seen_before: list[float] = []

    def more(self, text: Tensor, text_lengths: Tensor, mel_lengths: Tensor) -> Tensor | None:
        if self.training:
            self.seen_before.append(float(self.seen))
            self.seen += len(text)
        long = mel_lengths > 36
        if not long.any():
            return None
        return self.at_times(self.embed(text[long])).square().mean(dim=1).sum() * 100


class BlocksModel(MoreModel):
    """Has blocks that are called in turn, and a parameter that is one number."""

    def __init__(self, symbols: int) -> None:
        super().__init__(symbols)
        self.blocks = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))
        self.size = nn.Parameter(torch.tensor(3.0))

    def more(self, text: Tensor, text_lengths: Tensor, mel_lengths: Tensor) -> Tensor | None:
        h = self.embed(text)
        for block in self.blocks:
            h = h + torch.tanh(block(h))
        valid = torch.arange(text.shape[1]) < text_lengths[:, None]
        return torch.where(valid[..., None], self.size * h, 0.0).square().sum()


class SmallParallel(ParallelTTS):
    """One that trains in little time."""

    def __init__(self, symbols: int) -> None:
        config = ParallelTTSConfig(
            channels=8, text_dilations=(1,), decoder_dilations=(1, 2), aligner_channels=8, dropout=0.0
        )
        super().__init__(config, symbols, 80)


Kind: TypeAlias = "type[TinyModel] | type[SmallParallel]"
KINDS: dict[str, Kind] = {
    kind.__name__: kind for kind in (TinyModel, MovingModel, BlocksModel, SmallParallel)
}


def tiny_model(store: str, dropout: float, kind: Kind = TinyModel) -> nn.Module:
    torch.manual_seed(1)
    model = kind(len(Store.open(Path(store)).symbols))
    if isinstance(model, TinyModel):
        model.dropout.p = dropout
    return model


class Moment:
    """Does something to this process when a step begins."""

    def __init__(self, trainer: Trainer, what: str) -> None:
        self.trainer, self.what, self.step = trainer, what, trainer.train_step

    def __call__(self, *args: Any, **kwargs: Any) -> bool:
        if self.trainer.step == 2:
            if self.what == "kill" or (
                self.what == "kill once" and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
            ):
                os.kill(os.getpid(), signal.SIGKILL)
            if self.what == "term":
                os.kill(os.getpid(), signal.SIGTERM)
            if self.what == "bad input":
                raise InputError("utterance u07: damaged; prepare it again")
            if self.what == "hang":
                signal.pause()
            if self.what == "nan":
                # What is trained is a copy where it is sharded.
                for model in {self.trainer.model, self.trainer.parallel.objective.model}:
                    model.read.register_forward_hook(lambda *_: _[2] * torch.nan)
        return self.step(*args, **kwargs)


def run(job: dict[str, Any], ranks: ProcessGroup, out: Path) -> None:
    config = config_from_dict(job["config"])
    kind = KINDS[job.get("model", "TinyModel")]
    model = tiny_model(config.data.store, job.get("dropout", 0.0), kind)
    if ranks.rank and job.get("other_weights"):
        torch.nn.init.zeros_(model.read.weight)
    with Trainer(config, model=model, resume=job.get("resume", False), ranks=ranks) as trainer:
        rank, what = job.get("happens", (-1, ""))
        if ranks.rank == rank:
            trainer.train_step = Moment(trainer, what)  # type: ignore[method-assign]
        if "bucket_bytes" in job:
            # By which the compiler cuts a model in pieces, as it would cut a large one.
            torch.distributed._DEFAULT_FIRST_BUCKET_BYTES = job["bucket_bytes"]
            trainer.parallel.ddp.bucket_bytes_cap = job["bucket_bytes"]
        trainer.fit()
        if config.training.sharding == "full":
            shards = [p.to_local().numel() for p in trainer.optimizers.parameters if hasattr(p, "to_local")]
            assert sum(shards) <= 0.6 * sum(p.numel() for p in trainer.model.parameters()), shards
            assert len(shards) == len(trainer.optimizers.parameters) - 1
        if isinstance(model, MovingModel):
            torch.save(torch.tensor(model.seen_before), out.with_name(f"{job['name']}-{ranks.rank}-seen.pt"))
        weights = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
        torch.save(weights, out.with_name(f"{job['name']}-{ranks.rank}.pt"))


def main() -> None:
    torch.set_num_threads(1)
    torch.compile = traced_only(torch.compile)  # type: ignore[assignment]
    ratios.LEAST_STEPS = 1
    validation._show = lambda *_: None  # type: ignore[assignment]
    path = Path(sys.argv[1])
    jobs = json.loads(path.read_text(encoding="utf-8"))

    def app() -> None:
        with join_ranks(config_from_dict(jobs[0]["config"]).training) as ranks:
            for job in jobs:
                run(job, ranks, path)

    commands.app = app  # type: ignore[assignment]
    commands.main()


if __name__ == "__main__":
    main()
