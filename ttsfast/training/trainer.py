"""The trainer: the story of a run, from an open store to a saved voice.

In one piece, though it is long: whoever asks what happens at a step, and in what order, reads it here. What a
part does by itself lies with that part.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NoReturn

import torch
from torch import nn

from ttsfast.config import Config
from ttsfast.data.loading.batch import Batch
from ttsfast.devices import choose_precision, torch_threads
from ttsfast.errors import Preempted, TrainingError
from ttsfast.files import require_room
from ttsfast.models.build import build_model
from ttsfast.models.checkpoint import checkpoint_folder
from ttsfast.models.checks.contract import check_model
from ttsfast.models.voice_info import VoiceInfo
from ttsfast.terms.counts import Counts
from ttsfast.training.checkpoint import bytes_on_disk, record_best
from ttsfast.training.configure import write_run_config
from ttsfast.training.cuda_graphs import build_step, refuse_cuda_graphs
from ttsfast.training.distributed.consistency import check_consistency, check_run_folder
from ttsfast.training.distributed.process_group import ProcessGroup, require_single_process
from ttsfast.training.distributed.sharding import data_parallel
from ttsfast.training.freeze import freeze
from ttsfast.training.monitor import Content, Monitor
from ttsfast.training.non_finite import Fault, StepInputs, training_error
from ttsfast.training.objective import Objective
from ttsfast.training.optimizers import Optimizers
from ttsfast.training.own_texts import OwnTexts
from ttsfast.training.plateau import EarlyStopping, PlateauReduction
from ttsfast.training.precision import LossScaler, set_up_arithmetic
from ttsfast.training.preemption import Preemption
from ttsfast.training.preflight import preflight
from ttsfast.training.randomness import RandomStreams, seed_everything, seed_rank
from ttsfast.training.result import TrainingResult
from ttsfast.training.resume import (
    Checkpointer,
    LossState,
    Stateful,
    checkpoint_to_use,
    point_at_best,
    refuse_overtaken,
    refuse_used_run_folder,
)
from ttsfast.training.run_lock import RunLock
from ttsfast.training.schedule import learning_rate
from ttsfast.training.setup import build_loss, count_over_ranks, forever, open_loaders, open_store
from ttsfast.training.start import start_from
from ttsfast.training.telemetry import messages
from ttsfast.training.telemetry.log import RunTelemetry, Telemetry
from ttsfast.training.telemetry.pace import Pace
from ttsfast.training.telemetry.timing import StepClock, device_load
from ttsfast.training.threads import Threads
from ttsfast.training.validation import report_validation, validate_model
from ttsfast.training.weight_average import WeightAverage


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
        self.config, self.ranks = config, ranks or require_single_process()
        training = config.training
        self.run_folder = Path(training.run_folder)
        self.lock = RunLock(self.run_folder, self.ranks)
        if not resume:
            refuse_used_run_folder(self.run_folder, self.ranks)
        seed_everything(training.seed)
        self.precision = choose_precision(config, self.ranks.local_rank if self.ranks.size > 1 else None)
        refuse_cuda_graphs(config, self.device, self.ranks)
        set_up_arithmetic(training, self.device)
        # Bits depend on the number of threads, and what is compiled is made for one.
        adapt = self.device.type == "cpu" and not (training.deterministic or training.compile)
        self.threads = Threads(adapt=adapt)

        # What is trained, and on what.
        self.store = open_store(config)
        self.voice = VoiceInfo.of_store(self.store)
        self.model = (model or build_model(config.model, self.voice)).to(self.device)
        check_model(self.model, self.voice, config)
        start_from(training, self.model, self.voice, resume=resume, ranks=self.ranks)
        freeze(self.model, training.freeze)
        preflight(config, self.model, self.voice, self.store, self.precision, self.ranks, resume=resume)
        check_consistency(self.ranks, config, self.store.fingerprint, self.model.state_dict())
        seed_rank(training.seed, self.ranks.rank)
        r = int(getattr(self.model, "reduction_factor", 1))
        self.loss = build_loss(config, r, self.ranks.rank).to(self.device)
        self.loader, self.validation_loader = open_loaders(config, self.store, self.device, r, self.ranks)
        self._global_counts = count_over_ranks(
            config, self.store, self.loader.plan, r, self.ranks, self.device
        )

        # How a step is taken.
        self.clock = StepClock(self.device)
        objective_of = partial(
            Objective, loss=self.loss, precision=self.precision, reduction_factor=r, clock=self.clock
        )
        self.parallel = data_parallel(training, self.model, objective_of, self.ranks)
        trained, bins = self.parallel.objective.model, self.voice.contract.n_mels
        self.optimizers = Optimizers(training, trained, bins, recorded=training.cuda_graphs)
        self.average = WeightAverage(trained, self.optimizers, training.ema_decay)
        self.scaler = LossScaler(self.device, enabled=self.precision.scales_loss)
        passes = (self.parallel, self.scaler, self.ranks)
        update = (training, self.loss, self.optimizers, self.average, self.scaler, self.clock)
        self.forward_backward, self.optimizer_step = build_step(
            config, self.store, self.loader.plan, passes, update
        )

        # What follows from steps and validations.
        self.monitor = Monitor(training)
        self.early_stopping, self.plateau = EarlyStopping.of(training), PlateauReduction.of(training)
        self.telemetry, self.preemption = Telemetry(), Preemption(alone=self.ranks.size == 1)
        self.own_texts = OwnTexts(training.val_texts, self.model, self.device, self.voice)

        # Where it goes on from.
        components: dict[str, Stateful] = {
            "optimizers": self.optimizers,
            "average": self.average,
            "scaler": self.scaler,
            "loss": LossState(self.loss),
            "spike_guard": self.optimizer_step.guard,
            "monitor": self.monitor,
            "early_stopping": self.early_stopping,
            "plateau": self.plateau,
            "loader": self.loader,
            "random": RandomStreams(training.seed, self.device, self.ranks),
        }
        self.checkpointer = Checkpointer(components, trained, self.average, self.store, config, self.ranks)
        check_run_folder(self.run_folder, self.ranks)
        if not resume:
            require_room(
                self.run_folder, bytes_on_disk(self.model, training), "keeping the run's checkpoints"
            )
        self.step = 0
        self.resumed = self._resume() if resume else None

    def fit(self) -> TrainingResult:
        """Train to the end and leave a checkpoint there.

        Raises:
            TrainingError: a loss or gradient stopped being finite, or a GPU clamped lengths.
            Preempted: SIGTERM or Ctrl-C came; a checkpoint of that moment was written.
            InputError: another trainer is at work in the run folder, or was since this one looked.
        """
        with self.lock:
            refuse_overtaken(self.run_folder, self.step, self.ranks)
            opened = Telemetry()
            if self.ranks.is_first:
                validated, training = not self._validation_due, self.config.training
                opened = RunTelemetry(self.run_folder, self.step, training, validated=validated)
            # SIGTERM may come more than once: until the last line is written, too.
            with torch_threads(None), self.preemption, opened as self.telemetry:
                try:
                    return self._train()
                finally:
                    self.telemetry = Telemetry()

    def _train(self) -> TrainingResult:
        training, batches = self.config.training, forever(self.loader)
        if self.ranks.is_first:
            write_run_config(self.config, self.run_folder)
        for line in messages.opening(
            self.model, training, self.precision, self.step, self.resumed, self.telemetry.lost_steps
        ):
            self.telemetry.say(line)
        if self.step and self._validation_due:
            self.validate()  # SIGTERM came before it, or in its midst
        self.telemetry.await_step(self.step + 1)
        pace = Pace(self.device)
        self.clock.start()
        while self.step < training.max_steps and not self.early_stopping.exhausted:
            self.clock.lap("trainer")
            pace.step_begins()
            position = self.loader.state_dict()
            micro_batches = list(islice(batches, training.gradient_accumulation_steps))
            self.clock.lap("data")
            counts = self._global_counts
            normalizer = None if counts is None else counts.of(position, len(micro_batches))
            self.threads.begin()
            if not self.train_step(micro_batches, normalizer=normalizer):
                continue
            change = self.threads.end(sum(batch.frames for batch in micro_batches))
            self.telemetry.advance(self.step)
            if change is not None:
                self.telemetry.say(messages.threads(self.step, change))
            seconds = pace.step_taken()
            if seconds is not None and self.step < training.max_steps:
                self.telemetry.say(messages.pace(self.step, seconds, self.config, self.device))
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

        Raises:
            TrainingError: in fp16, a loss that is not finite, or an overflow at the least scale. What else
                ends a run is found when recorded steps are read: by ``log``, ``validate``, ``save``.
        """
        training, objective = self.config.training, self.parallel.objective
        scheduled = learning_rate(self.step, training, self.plateau.multiplier)
        rate = scheduled if rate is None else rate
        self.optimizers.set_rate(rate)
        if training.attention_fade_steps:
            faded = max(0.0, 1.0 - self.step / training.attention_fade_steps)
            self.loss.schedule_weight("attention", faded)
        objective.train()
        inputs = StepInputs.of(self.step + 1, batches, self.device)
        batches = [batch.to(self.device) for batch in batches]
        if normalizer is None:
            content = Content(sum(b.frames for b in batches), sum(len(b.ids) for b in batches), rate)
            normalizer = objective.counts(batches)
        else:
            content = Content(int(normalizer.frames), int(normalizer.utterances), rate)
        self.clock.lap("trainer")

        stats = self.forward_backward(batches, normalizer)
        norm = self.optimizer_step(stats, self.step + 1)
        if norm is None:
            # A finite loss whose scaled gradients are not: an overflow, while the scale can fall.
            finite = bool(stats.total.isfinite())
            if not (finite and self.scaler.back_off()):
                self._check_recorded_steps()
                raise self.error_of(Fault(inputs, ("gradient_norm" if finite else "total",), clamped=0))
            self.telemetry.say(messages.overflow(inputs.step, self.scaler.scale))
            return False
        self.step += 1
        self.monitor.record(inputs, content, stats, norm)
        self.clock.frames += content.frames
        self.clock.lap("trainer")
        return True

    def log(self) -> None:
        """Report the steps since the last log point.

        Raises:
            TrainingError: as :meth:`save` does.
        """
        self._check_recorded_steps()
        rows = self.monitor.take()
        if not self.ranks.is_first:
            self.clock.start()
        elif rows:
            figures = {"learning_rate": self.optimizers.rate, **self.clock.read()}
            for part in (self.scaler, self.monitor, self.threads, self.forward_backward, self.optimizer_step):
                figures |= part.figures()
            self.telemetry.report(self.step, rows, figures | device_load(self.device))

    def validate(self) -> dict[str, float]:
        """Measure on held-out data, both ways; reduce the rate, keep the best, count patience.

        Returns:
            The metrics, by name.

        Raises:
            TrainingError: as :meth:`save` does.
            Preempted: SIGTERM or Ctrl-C came in its midst; a checkpoint was written that knows nothing of it.
        """
        self._check_recorded_steps()
        training, measured = self.config.training, None
        with self.average.deployed(), self.parallel.full_weights():
            if self.ranks.is_first:
                found = validate_model(
                    self.model,
                    self.validation_loader,
                    self.store,
                    self.voice,
                    training,
                    interrupted=lambda: self.preemption.requested,
                )
                if found is not None:
                    report_validation(self.telemetry, self.step, found, self.voice)
                    self.own_texts.speak(found.stop_threshold, self.telemetry, self.step)
                    measured = found.metrics, found.stop_threshold
        measured = self.ranks.broadcast_object(measured)
        if measured is None:
            self._leave()
        metrics, threshold = measured
        self.voice = replace(self.voice, stop_threshold=threshold)
        self.monitor.convergence.add_held_out(metrics["mel_l1"])
        watched = metrics[training.monitor]
        if training.auto_lr_reduction and self.plateau.update(watched):
            multiplier = self.plateau.multiplier
            self.telemetry.say(
                messages.plateau(self.step, training.monitor, training.lr_reduction_patience, multiplier)
            )
        if self.early_stopping.update(watched, self.step):
            self.save()
            if self.ranks.is_first:
                record_best(self.run_folder, self.step, training.monitor, watched)
        self.clock.start()
        return metrics

    def save(self) -> None:
        """Write a checkpoint of this step, once everything up to it is known to be as it should.

        Raises:
            TrainingError: a recorded step was not finite, or a GPU clamped its lengths; nothing is written.
        """
        folder = checkpoint_folder(self.run_folder, self.step, unvalidated=self._validation_due)
        if self.ranks.broadcast_object(folder.is_dir()):
            return  # as the best of a validation at this very step
        self._check_recorded_steps()
        self.checkpointer.save(folder, self.step, self.voice)
        self.clock.start()

    def _resume(self) -> bool:
        """Continue from the last checkpoint; tell whether there was one."""
        self.lock.take()
        try:
            checkpoint = self.checkpointer.restore(self.run_folder, self.voice)
        except BaseException:
            self.close()
            raise
        if checkpoint is None:
            return False
        self.step = checkpoint.step
        self.voice = replace(self.voice, stop_threshold=checkpoint.voice["stop_threshold"])
        if self.ranks.is_first:
            point_at_best(self.run_folder, self.early_stopping)
        return True

    def _check_recorded_steps(self) -> None:
        """Bring what steps recorded to the host: the one synchronisation of many steps.

        Raises:
            TrainingError: one was not finite, and neither it nor what followed has been applied; or lengths
                were clamped in one, and it has been applied, but no checkpoint holds it.
        """
        fault = self.monitor.read()
        if fault is not None:
            raise self.error_of(fault)
        if self.monitor.first_steep:
            self.telemetry.say(messages.steep(self.step, self.monitor.first_steep, self.monitor.threshold))

    def error_of(self, fault: Fault) -> TrainingError:
        """What a step ends the run with, in one line; all ranks ask together."""
        model, scale = self.model, self.scaler.factor
        return training_error(fault, self.config, self.store, model, self.parallel, scale, self.ranks)

    def _leave(self) -> NoReturn:
        self.save()
        raise Preempted(
            f"{self.run_folder}: stopped by {self.preemption.cause} at step {self.step}, whose checkpoint is "
            "written; continue with --resume"
        )

    @property
    def device(self) -> torch.device:
        """Where the model is trained."""
        return self.precision.device

    @property
    def reduction_factor(self) -> int:
        """Frames per decoder step."""
        return self.parallel.objective.reduction_factor

    @property
    def _validation_due(self) -> bool:
        training = self.config.training
        a_time_for_it = self.step % training.val_step == 0 or self.step >= training.max_steps
        return a_time_for_it and self.early_stopping.last_step != self.step

    def _finish(self) -> TrainingResult:
        self.save()
        early, chosen = self.early_stopping, checkpoint_to_use(self.config, self.ranks)
        self.model.load_state_dict(chosen.weights)
        reason = "early_stopping" if early.exhausted else "max_steps"
        result = TrainingResult(self.run_folder, self.step, reason, chosen.path, early.best_step, early.best)
        spikes, skipped = int(self.optimizer_step.guard.spikes), self.scaler.skipped
        self.telemetry.say(
            messages.ending(result, early.metric, self.monitor.steep_steps, spikes=spikes, skipped=skipped)
        )
        return result

    def close(self) -> None:
        """Stop the batcher threads, and let others into the run folder."""
        self.lock.release()
        self.loader.close()
        self.validation_loader.close()

    def __enter__(self) -> Trainer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
