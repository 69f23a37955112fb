"""Two ways to take steps: the trainer, and the loop that people write. Both go on where they were."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from ttsfast.benchmarks.convergence.recipes import Recipe
from ttsfast.benchmarks.npy_files import NpyFiles, usual_collate
from ttsfast.benchmarks.plain_loop import PlainLoop
from ttsfast.config import Config
from ttsfast.data.loading.batch import Batch
from ttsfast.data.loading.plan import BatchPlan, Cursor
from ttsfast.data.loading.plan_loader import select
from ttsfast.devices import choose_precision
from ttsfast.errors import InputError, TrainingError
from ttsfast.files import atomic_write
from ttsfast.models.build import build_model
from ttsfast.models.voice_info import VoiceInfo
from ttsfast.training.distributed.process_group import ProcessGroup
from ttsfast.training.randomness import RandomStreams, seed_everything
from ttsfast.training.schedule import scheduled_rate
from ttsfast.training.setup import build_loss, forever, open_store, padding_of
from ttsfast.training.trainer import Trainer

STATE = "state.pt"


class Loop(Protocol):
    """A run that takes steps."""

    device: torch.device

    @property
    def step(self) -> int:
        """How many are taken."""

    def take_step(self) -> None:
        """Raises TrainingError where the loss or the weights are no longer finite."""

    def weights(self) -> dict[str, Tensor]:
        """Copies of those to speak with."""

    def save(self) -> None:
        """Keep all that a run needs that goes on from here."""

    def close(self) -> None:
        """Stop what works ahead, and delete what is not kept."""


def open_loop(recipe: Recipe, config: Config) -> Loop:
    """Where the run folder of ``config`` has a saved one, it goes on from there."""
    return (
        TrainerLoop(config) if recipe.loop == "trainer" else ResumableLoop(config, bucketing=recipe.bucketing)
    )


class TrainerLoop:
    """The trainer, without its validations and its log."""

    def __init__(self, config: Config) -> None:
        self._trainer = Trainer(config, resume=True)
        self._batches = forever(self._trainer.loader)
        self._at_once = config.training.gradient_accumulation_steps
        self.device = self._trainer.device

    @property
    def step(self) -> int:
        return self._trainer.step

    def take_step(self) -> None:
        trainer = self._trainer
        batches = list(islice(self._batches, self._at_once))
        trainer.threads.begin()
        if trainer.train_step(batches):
            trainer.threads.end(sum(batch.frames for batch in batches))
        if trainer.step % trainer.config.training.log_step == 0:
            trainer.log()

    def weights(self) -> dict[str, Tensor]:
        with self._trainer.average.deployed():
            return _copies(self._trainer.model)

    def save(self) -> None:
        self._trainer.save()

    def close(self) -> None:
        self._trainer.close()


class ResumableLoop:
    """The plain loop: a ``.npy`` file an utterance, a loss of ``torch.nn.functional``, torch's optimiser.

    Files are read in this process, which is as fast as with workers here, and lets a run go on where it was.

    Args:
        config: its weights, optimiser, schedule and batch size are followed.
        bucketing: batches of like length; else random ones.

    Raises:
        InputError: the store has several speakers, of which these files know nothing.
    """

    def __init__(self, config: Config, *, bucketing: bool) -> None:
        training = config.training
        seed_everything(training.seed)
        self.config, self.step = config, 0
        self.device = choose_precision(config).device
        store = open_store(config)
        if len(store.speakers) > 1:
            raise InputError(
                f"{store.path}: has {len(store.speakers)} speakers, and the plain loop's files know of none: "
                "compare recipes on one speaker, or those of `loop: trainer`"
            )
        self.model = build_model(config.model, VoiceInfo.of_store(store)).to(self.device)
        r = int(getattr(self.model, "reduction_factor", 1))
        padding = padding_of(config, r)
        indices, _ = select(store, "train", config.data.max_mel_frames, config.data.max_text_length)
        # Where all are taken as equally long, the plan's order is a random one.
        lengths = store.frames if bucketing else np.ones_like(store.frames)
        plan = BatchPlan(lengths, indices, batch_size=config.data.batch_size, seed=training.seed)
        self._cursor = Cursor(plan)
        self._temporary = tempfile.TemporaryDirectory()
        self._files = NpyFiles(Path(self._temporary.name) / "npy", store, indices)
        self._places = {int(index): place for place, index in enumerate(indices)}
        self._collate = partial(
            usual_collate,
            pad_value=np.asarray(store.silence, dtype=np.float32),
            frame_multiple=padding["pad_to_multiple"],
            tail_frames=padding["tail_frames"],
        )
        kind = torch.optim.Adam if training.optimizer == "adam" else torch.optim.AdamW
        optimizer = kind(
            self.model.parameters(),
            lr=training.learning_rate,
            betas=(training.beta1, training.beta2),
            eps=training.eps,
            weight_decay=training.weight_decay,
        )
        loss, clip = build_loss(config, r), training.gradient_clip_norm
        self._loop = PlainLoop(self.model, loss, self._batches(), clip=clip, optimizer=optimizer)
        self._random = RandomStreams(training.seed, self.device, ProcessGroup())
        self._state = Path(training.run_folder) / STATE
        if self._state.is_file():
            self._restore()

    def take_step(self) -> None:
        self.model.train()
        for group in self._loop.optimizer.param_groups:
            group["lr"] = scheduled_rate(self.step, self.config.training)
        self._loop.step()
        self.step += 1

    def weights(self) -> dict[str, Tensor]:
        weights = _copies(self.model)
        if not all(value.isfinite().all() for value in weights.values()):
            raise TrainingError(f"the weights of step {self.step} are no longer finite")
        return weights

    def save(self) -> None:
        state = {
            "step": self.step,
            "model": self.model.state_dict(),
            "optimizer": self._loop.optimizer.state_dict(),
            "random": self._random.state_dict(),
            "batches": self._cursor.state_dict(),
        }
        with atomic_write(self._state) as handle:
            torch.save(state, handle)

    def close(self) -> None:
        self._temporary.cleanup()

    def _restore(self) -> None:
        state: dict[str, Any] = torch.load(self._state, map_location=self.device, weights_only=True)
        self.step = state["step"]
        self.model.load_state_dict(state["model"])
        self._loop.optimizer.load_state_dict(state["optimizer"])
        self._random.load_state_dict({name: value.cpu() for name, value in state["random"].items()})
        self._cursor.load_state_dict(state["batches"])

    def _batches(self) -> Iterator[Batch]:
        while True:
            epoch, position = self._cursor.place
            indices = self._cursor.batches(epoch)[position]
            self._cursor.place = self._cursor.after(self._cursor.place)
            batch = self._collate([self._files[self._places[int(index)]] for index in indices])
            yield batch.to(self.device)


def _copies(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
