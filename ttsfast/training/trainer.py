"""The trainer: the story of a run, from an open store to a saved voice."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import NoReturn

from torch import Tensor, nn

from ttsfast.config import Config
from ttsfast.data.loading.batch import Batch
from ttsfast.data.loading.device_loader import DeviceLoader
from ttsfast.data.loading.loader import MelLoader
from ttsfast.devices import choose_precision
from ttsfast.errors import InputError, Preempted
from ttsfast.files import output_folder
from ttsfast.models.build import build_model
from ttsfast.models.check import check_model
from ttsfast.models.checkpoint import best_checkpoint, checkpoint_folder, checkpoints, load_checkpoint
from ttsfast.models.voice_info import VoiceInfo
from ttsfast.terms.counts import Counts
from ttsfast.training.checkpoint import record_best
from ttsfast.training.compilation import compile_model
from ttsfast.training.cuda_graphs import CudaRecorder, refuse_cuda_graphs, replay_steps
from ttsfast.training.distributed.consistency import check_consistency, check_run_folder
from ttsfast.training.distributed.process_group import ProcessGroup, require_single_process
from ttsfast.training.distributed.sharding import distribute_objective
from ttsfast.training.monitor import EarlyStopping
from ttsfast.training.objective import Objective
from ttsfast.training.optimizers import Optimizers
from ttsfast.training.passes import Passes
from ttsfast.training.precision import LossScaler, set_up_arithmetic
from ttsfast.training.preemption import Preemption
from ttsfast.training.randomness import seed_everything, seed_rank
from ttsfast.training.reports import farewell, greet, report
from ttsfast.training.resume import restore_run, save_run
from ttsfast.training.schedule import PlateauReduction, learning_rate
from ttsfast.training.setup import build_loss, count_over_ranks, open_loaders, open_store
from ttsfast.training.telemetry.log import NoTelemetry, Telemetry
from ttsfast.training.telemetry.ratios import ModuleRatios
from ttsfast.training.telemetry.timing import StepClock
from ttsfast.training.update import Update
from ttsfast.training.validation import ValidationInterrupted, validate_run
from ttsfast.training.watch import Watch
from ttsfast.training.weight_average import WeightAverage, deployed_weights


@dataclass
class TrainingResult:
    """How a run ended."""

    run_folder: Path
    step: int
    reason: str
    """``max_steps`` or ``early_stopping``"""
    checkpoint: Path
    """The weights to use: the best where they are asked for, else the last."""
    best_step: int
    best_metric: float
    """The watched metric's least value on held-out data."""


class Trainer:
    """Trains one acoustic model, on one device or on one per rank.

    Args:
        config: see :mod:`ttsfast.config`.
        model: any module with the signature of :mod:`ttsfast.models.interface`; ConvTTS when None.
        resume: continue from the run folder's last checkpoint, where there is one.
        ranks: of :func:`ttsfast.training.distributed.process_group.join_ranks`, where ``torchrun`` started
            several processes.

    Raises:
        InputError: the store, the run folder or a value does not fit; nothing has been written then.
    """

    def __init__(
        self,
        config: Config,
        *,
        model: nn.Module | None = None,
        resume: bool = False,
        ranks: ProcessGroup | None = None,
    ) -> None:
        self.config = config
        self.ranks = ranks or require_single_process()
        training = config.training
        self.run_folder = Path(training.run_folder)
        self.resume = resume
        if not resume and self.ranks.broadcast_object(bool(checkpoints(self.run_folder))):
            raise InputError(
                f"{self.run_folder}: holds a run already; add --resume to continue it, "
                "or set another training.run_folder"
            )
        seed_everything(training.seed)
        self.precision = choose_precision(config, self.ranks.local_rank if self.ranks.size > 1 else None)
        self.device = self.precision.device
        refuse_cuda_graphs(config, self.device, self.ranks)
        set_up_arithmetic(training, self.device)
        self.store = open_store(config)
        self.voice = VoiceInfo.of_store(self.store)
        self.model = (model or build_model(config.model, self.voice)).to(self.device)
        check_model(self.model, self.voice, config)
        check_consistency(self.ranks, config, self.store.fingerprint, self.model.state_dict())
        seed_rank(training.seed, self.ranks.rank, step=0)
        self.reduction_factor = int(getattr(self.model, "reduction_factor", 1))
        self.loss = build_loss(config, self.reduction_factor, self.ranks.rank).to(self.device)
        self.clock = StepClock(self.device)
        self.objective = Objective(self.model, self.loss, self.precision, self.reduction_factor, self.clock)
        self.parallel = distribute_objective(training, self.objective, self.ranks)
        trained = self.parallel.trained_model
        self.parameters = [p for p in trained.parameters() if p.requires_grad]
        self.optimizers = Optimizers(training, trained, self.voice.contract.n_mels)
        self.average = WeightAverage(trained, training.ema_decay)
        self.scaler = LossScaler(self.device, enabled=self.precision.scales_loss)
        self.loader, self.validation_loader = open_loaders(
            config, self.store, self.device, self.reduction_factor, self.ranks
        )
        self.global_counts = count_over_ranks(
            config, self.store, self.loader.plan, self.reduction_factor, self.ranks, self.device
        )
        self.watch = Watch(training, self.device)
        self.early = EarlyStopping(training.early_stopping_patience, training.early_stopping_min_delta)
        self.plateau = PlateauReduction(
            training.lr_reduction_factor, training.lr_reduction_patience, training.early_stopping_min_delta
        )
        self.ratios = ModuleRatios(trained, training.log_step)
        self.ratio_figures: dict[str, Tensor] = {}
        self.passes = Passes(self.objective, self.parallel, self.scaler, self.ranks)
        self.update = Update(self)
        self.step = 0
        self.rate = 0.0
        self.preemption = Preemption()
        check_run_folder(self.run_folder, self.ranks)
        self.resumed = restore_run(self) if resume else False
        if training.compile:
            compile_model(self.objective)
        if training.cuda_graphs:
            replay_steps(self, CudaRecorder(self.device))

    def fit(self) -> TrainingResult:
        """Train to the end and leave a checkpoint there.

        Raises:
            TrainingError: a loss or gradient stopped being finite.
            Preempted: SIGTERM came; a checkpoint of that moment was written.
        """
        training = self.config.training
        batches = forever(self.loader)
        # SIGTERM may come more than once: until the last line is written, too.
        with self.preemption, self._open_telemetry() as self.telemetry:
            greet(self)
            if self.step and self._validation_due:
                self.validate()  # SIGTERM came before it, or in its midst
            self.clock.start()
            while self.step < training.max_steps and not self._out_of_patience:
                self.clock.lap("trainer")
                place = self.loader.state_dict()
                micro_batches = list(islice(batches, training.gradient_accumulation_steps))
                self.clock.lap("data")
                counts = self.global_counts
                normalizer = None if counts is None else counts.of(place, len(micro_batches))
                if not self.train_step(micro_batches, normalizer=normalizer):
                    continue
                self.telemetry.advance(self.step)
                if self.step % training.log_step == 0 or self.step >= training.max_steps:
                    self.log()
                if self.ranks.any_rank(self.preemption.requested):
                    self._leave()
                if self._validation_due:
                    self.validate()
                if self.step % training.save_step == 0:
                    self.save()
            return self._finish()

    def train_step(
        self, batches: list[Batch], rate: float | None = None, normalizer: Counts | None = None
    ) -> bool:
        """One optimiser step on one or more micro-batches, which together count as one batch, those of the
        other ranks included.

        Args:
            batches: the micro-batches.
            rate: the learning rate; the schedule's when None.
            normalizer: what the losses are divided by, the counts over all ranks; ``batches``' own when None.

        Returns:
            False when fp16 overflowed: the loss scale has fallen, and nothing else has moved.
        """
        training = self.config.training
        scheduled = learning_rate(self.step, training, self.plateau.multiplier)
        self.rate = scheduled if rate is None else rate
        self.optimizers.set_rate(self.rate)
        if training.attention_fade_steps:
            faded = max(0.0, 1.0 - self.step / training.attention_fade_steps)
            self.loss.schedule_weight("attention", faded)
        self.objective.train()
        self.watch.remember(self.step + 1, batches)
        batches = [batch.to(self.device) for batch in batches]
        frames = sum(batch.frames for batch in batches) if normalizer is None else int(normalizer.frames)
        if normalizer is None:
            normalizer = self.objective.counts(batches)
        self.clock.lap("trainer")

        figures, last = self.passes(batches, normalizer)
        judged = self.update.judge(figures)
        if self.scaler.enabled and judged.bad:
            self.watch.overflowed(self, judged.total)
            self.optimizers.zero_grad()
            return False
        look_closely = self.ratios.due(self.step + 1)
        self.update(judged, look_closely=look_closely)
        self.scaler.grow()
        self.average.update()
        if look_closely:
            self.ratio_figures = self.ratios.after_update()
        self.step += 1
        self.watch.record(judged, last)
        self.clock.frames += frames
        self.clock.lap("trainer")
        return True

    def log(self) -> None:
        """Report the steps since the last log point."""
        self.watch.read(self)
        rows = self.watch.records.take()
        if not self.ranks.is_first:
            self.clock.start()
        elif rows:
            report(self, rows)

    def validate(self) -> None:
        """Measure on held-out data, both ways; reduce the rate, keep the best, count patience."""
        self.watch.read(self)
        training = self.config.training
        try:
            deployed = deployed_weights(self.parallel.trained_model, self.optimizers, self.average)
            with deployed, self.parallel.full_weights():
                measured = validate_run(self) if self.ranks.is_first else None
        except ValidationInterrupted:
            measured = None
        measured = self.ranks.broadcast_object(measured)
        if measured is None:
            self._leave()
        metrics, threshold = measured
        self.voice = replace(self.voice, stop_threshold=threshold)
        watched = metrics[training.monitor]
        if training.auto_lr_reduction and self.plateau.update(watched):
            self.telemetry.say(
                f"step {self.step}: {training.monitor} stalled for {training.lr_reduction_patience} "
                f"validations, learning rate times {self.plateau.multiplier:.3g} from here"
            )
        if self.early.update(watched, self.step):
            self.save()
            if self.ranks.is_first:
                record_best(self.run_folder, self.step, training.monitor, watched)
        self.clock.start()

    def save(self) -> None:
        """Write a checkpoint of this step, once everything up to it is known to be finite."""
        folder = checkpoint_folder(self.run_folder, self.step, unvalidated=self._validation_due)
        if self.ranks.broadcast_object(folder.is_dir()):
            return  # as the best of a validation at this very step
        self.watch.read(self)
        save_run(self, folder)
        self.clock.start()

    def _open_telemetry(self) -> Telemetry:
        if not self.ranks.is_first:
            return NoTelemetry()
        return Telemetry(
            output_folder(self.run_folder),
            self.step,
            self.config.training.max_steps,
            validated=not self._validation_due,
            wandb=self.config.training.wandb,
        )

    def _leave(self) -> NoReturn:
        self.save()
        raise Preempted(
            f"{self.run_folder}: stopped by SIGTERM at step {self.step}, whose checkpoint is written; "
            "continue with --resume"
        )

    @property
    def _validation_due(self) -> bool:
        training = self.config.training
        a_time_for_it = self.step % training.val_step == 0 or self.step >= training.max_steps
        return a_time_for_it and self.early.last_step != self.step

    @property
    def _out_of_patience(self) -> bool:
        return self.config.training.early_stopping and self.early.exhausted

    def _finish(self) -> TrainingResult:
        self.save()
        last = checkpoint_folder(self.run_folder, self.step)
        best = self.ranks.broadcast_object(best_checkpoint(self.run_folder))
        chosen = last
        if best is not None and self.config.training.early_stopping_restore_best_weights:
            chosen = best
        self.model.load_state_dict(load_checkpoint(chosen).weights)
        reason = "early_stopping" if self._out_of_patience else "max_steps"
        farewell(self, reason)
        return TrainingResult(
            run_folder=self.run_folder,
            step=self.step,
            reason=reason,
            checkpoint=chosen,
            best_step=self.early.best_step,
            best_metric=self.early.best,
        )

    def close(self) -> None:
        """Stop the batcher threads."""
        self.loader.close()
        self.validation_loader.close()

    def __enter__(self) -> Trainer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def forever(loader: MelLoader | DeviceLoader) -> Iterator[Batch]:
    """Epoch after epoch."""
    while True:
        yield from loader
