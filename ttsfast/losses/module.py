"""``TTSLoss``: the composite loss as a module; state and options here, arithmetic in the backends."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ttsfast.losses import backend as backends
from ttsfast.losses import beside
from ttsfast.losses.adaptive import AdaptiveWeights, refuse_other_dtypes
from ttsfast.losses.checks import check_call, check_inputs, check_scalars
from ttsfast.losses.options import resolve, statistic, without_smoothing
from ttsfast.losses.output import LossOutput
from ttsfast.terms.checks import in_range, one_of
from ttsfast.terms.counts import Counts, count
from ttsfast.terms.spec import TERMS, LossInputs, LossSpec
from ttsfast.terms.state import METHODS, StepState

__all__ = ["Counts", "LossOutput", "TTSLoss"]


class TTSLoss(nn.Module):
    """Masked mel loss, Gaussian KL, stop cross-entropy, guided attention and the losses of a learned
    alignment under adaptive weights.

    B utterances, T frames, C mel bins, S steps of the decoder or aligner, N symbols, Z latents, H heads. A
    padded element never contributes, whatever it holds.

    Args:
        mel_weight, kl_weight, stop_weight, attention_weight, alignment_weight, binarization_weight: base
            weights, at least 0. A term whose inputs are missing must have weight 0; a term of weight 0 with
            inputs is reported and sends no gradient.
        mel_loss: ``"huber"`` (``torch.nn.HuberLoss``), ``"l1"`` or ``"mse"``. With two predictions the mel
            term is the sum of both.
        huber_delta: where Huber turns linear, in the units of the features.
        mel_label_smoothing: e below, in 0..1.
        mel_smoothing: ``"mean"``, target ``(1 - e) * y + e * mel_mean``; ``"noise"``, target
            ``y + e * mel_std * xi`` with Philox noise; ``"none"``.
        mel_mean, mel_std: (C,) corpus statistics; None for normalised features (0 and 1).
        normalization: ``"frame"``, over all valid elements; ``"utterance"``, the mean over utterances that
            are not empty of each one's own mean.
        kl_normalization: ``"elbo"`` divides the nats as the mel term is divided, so that
            ``kl_weight / mel_weight`` is a true beta; ``"vector"`` averages nats per latent vector. Under
            ``normalization="utterance"`` both average within each utterance first.
        kl_free_bits: nats per latent vector below which no gradient flows.
        stop_label_smoothing: e in ``q = y (1 - e) + e / 2``.
        stop_pos_weight: as in ``torch.nn.BCEWithLogitsLoss``.
        stop_tail_frames: steps after the end that are trained as stops, where S has room for them.
        attention_sigma: width of the guided diagonal (Tachibana et al., 2017).
        weighting: see :class:`ttsfast.losses.adaptive.AdaptiveWeights`.
        backend: ``"auto"``, ``"torch"``, ``"cpp"`` or ``"triton"``.
        seed: seed of the noise, one per rank.
        alignment_weight: of the forward-sum loss, each utterance's divided by its symbols, mean over
            utterances (Shih et al., 2021; Badlani et al., 2021), under either ``normalization``.
        binarization_weight: of the soft alignment's negative logarithm on the hard path, mean over steps.
        update_in_forward: whether a training call updates the adaptive weights; False leaves it to
            :meth:`update_weights`, once for several micro-batches.

    In ``eval()`` the targets are not smoothed and all state is frozen. In ``train()`` every call, also one
    without gradients, advances the noise and, unless ``update_in_forward`` is False, the weights.

    Raises:
        TypeError: an option that is no number where one is wanted.
        ValueError: an option out of its range.
        RuntimeError: a backend asked for by name that cannot run here.
    """

    noise_step: Tensor
    schedule: Tensor
    mel_mean: Tensor | None
    mel_std: Tensor | None

    def __init__(
        self,
        mel_weight: float = 22.0,
        kl_weight: float = 1.8,
        stop_weight: float = 1.5,
        attention_weight: float = 0.3,
        mel_loss: str = "huber",
        huber_delta: float = 0.6,
        mel_label_smoothing: float = 0.025,
        mel_smoothing: str = "mean",
        mel_mean: Tensor | Sequence[float] | None = None,
        mel_std: Tensor | Sequence[float] | None = None,
        normalization: str = "frame",
        kl_normalization: str = "elbo",
        kl_free_bits: float = 0.0,
        stop_label_smoothing: float = 0.06,
        stop_pos_weight: float = 4.0,
        stop_tail_frames: int = 8,
        attention_sigma: float = 0.2,
        weighting: str = "dwa",
        backend: str = "auto",
        seed: int = 0,
        *,
        alignment_weight: float = 0.0,
        binarization_weight: float = 0.0,
        update_in_forward: bool = True,
    ) -> None:
        super().__init__()
        one_of("weighting", weighting, METHODS)
        backends.check_name(backend)
        self.register_buffer("mel_mean", statistic("mel_mean", mel_mean), persistent=False)
        self.register_buffer("mel_std", statistic("mel_std", mel_std), persistent=False)
        fused = (mel_weight, kl_weight, stop_weight, attention_weight)
        options = LossSpec(
            base_weights=(*fused, alignment_weight, binarization_weight),
            mel_loss=mel_loss,
            huber_delta=huber_delta,
            mel_smoothing=mel_smoothing,
            mel_label_smoothing=mel_label_smoothing,
            mel_floor=0.0,
            normalization=normalization,
            kl_normalization=kl_normalization,
            kl_free_bits=kl_free_bits,
            stop_label_smoothing=stop_label_smoothing,
            stop_pos_weight=stop_pos_weight,
            stop_tail_frames=stop_tail_frames,
            attention_sigma=attention_sigma,
            seed=seed,
        )
        self._training_spec = resolve(options, self.mel_std)
        self._evaluation_spec = without_smoothing(self._training_spec)
        self.backend = backend
        self.update_in_forward = update_in_forward
        self.adaptive = AdaptiveWeights(weighting)
        self.register_load_state_dict_pre_hook(refuse_other_dtypes)
        self.register_buffer("noise_step", torch.zeros((), dtype=torch.int64))
        self.register_buffer("schedule", torch.ones(len(TERMS), dtype=torch.float32), persistent=False)

    def reset_parameters(self) -> None:
        """Begin anew: no noise drawn, no loss seen, every term at its base weight.

        torch's wrappers ask for it where a model was made on the meta device; ``.to_empty`` does it itself.
        """
        self.noise_step.zero_()
        self.schedule.fill_(1)
        self.adaptive.reset_parameters()

    @property
    def spec(self) -> LossSpec:
        """The resolved options of the current mode."""
        return self._training_spec if self.training else self._evaluation_spec

    def forward(
        self,
        mel_pred: Tensor | tuple[Tensor, Tensor],
        mel_target: Tensor,
        mel_lengths: Tensor,
        *,
        stop_logits: Tensor | None = None,
        step_lengths: Tensor | None = None,
        posterior: tuple[Tensor, Tensor] | None = None,
        prior: tuple[Tensor, Tensor] | None = None,
        attention: Tensor | Sequence[Tensor] | None = None,
        text_lengths: Tensor | None = None,
        alignment_log_probs: Tensor | None = None,
        alignment_prior: Tensor | None = None,
        alignment_path: Tensor | None = None,
        truncated: Tensor | None = None,
        normalizer: Counts | Tensor | float | None = None,
        grad_scale: Tensor | float | None = None,
    ) -> LossOutput:
        """Compute every term whose inputs are given.

        Args:
            mel_pred: (B, T, C) in any strides, or the pair before and after a post-net.
            mel_target: (B, T, C)
            mel_lengths: (B,) any integer type.
            stop_logits: (B, S)
            step_lengths: (B,) valid steps of the stop logits, the attention and the aligner; ``mel_lengths``
                when None (r = 1).
            posterior: (mu, logvar), each (B, Z) or (B, T, Z).
            prior: (mu, logvar) of the posterior's shape, with gradients; N(0, I) when None.
            attention: (B, S, N) or (B, H, S, N), or a sequence of such layers.
            text_lengths: (B,), with ``attention`` and ``alignment_log_probs``.
            alignment_log_probs: (B, S, N) of the symbols at each step; they need not be normalised.
            alignment_prior: (B, S, N), log-probabilities that are added to them, such as
                :func:`ttsfast.functional.beta_binomial_prior` gives.
            alignment_path: the hard alignment that the soft one is to come near: durations (B, N) in steps,
                integers, or a path (B, S, N), bool; such as :func:`ttsfast.functional.monotonic_alignment`
                gives.
            truncated: (B,) bool, clips cut before their end: no positive stop target, no tail.
            normalizer: what to divide by: None, this call's own counts; :class:`Counts` summed over all
                micro-batches and ranks, so that their losses add up to that of the whole batch; or a scalar,
                the global number of valid frames (utterances with ``normalization="utterance"``), by which
                each term's own average is scaled with ``own / global``: exact for what is counted in frames
                (mel, KL), for stop, attention and binarization where steps are proportional to frames, and
                for alignment where utterances are.
            grad_scale: the gradient that will arrive at ``total``, where it is not 1: the loss scaler's scale
                divided by the accumulation. A hint that saves a fused backend a rescaling pass; no result
                depends on it, ``total`` included.

        Raises:
            TypeError, ValueError: inputs that do not fit, naming the argument.
            RuntimeError: a backend asked for by name that cannot serve these tensors.
        """
        check_scalars(normalizer, grad_scale)
        spec, state = self.spec, self._step_state()
        # Not as attributes: nn.Module looks for those in three dictionaries, one after another.
        own: dict[str, Any] = self._buffers
        mel_mean, mel_std = own["mel_mean"], own["mel_std"]
        direct = backends.for_unchecked(self.backend, state.noise_step.device)
        if alignment_log_probs is not None or alignment_prior is not None or alignment_path is not None:
            direct = None
        # No layers at all are an error here, and absence where the checks are done.
        if direct is not None and not (isinstance(attention, (tuple, list)) and not attention):
            given: Any = LossInputs(
                mel_pred,  # type: ignore[arg-type]
                mel_target,
                mel_lengths,
                step_lengths,  # type: ignore[arg-type]
                text_lengths,
                truncated,
                stop_logits,
                posterior,
                prior,
                attention,  # type: ignore[arg-type]
                mel_mean,
                mel_std,
            )
            try:
                return direct.call(spec, given, state, normalizer, grad_scale)
            except direct.declined:
                # Wrong, or only unusual: the checks in Python tell them apart.
                pass
        inputs = check_inputs(
            mel_pred,
            mel_target,
            mel_lengths,
            stop_logits=stop_logits,
            step_lengths=step_lengths,
            posterior=posterior,
            prior=prior,
            attention=attention,
            alignment_log_probs=alignment_log_probs,
            alignment_prior=alignment_prior,
            alignment_path=alignment_path,
            text_lengths=text_lengths,
            truncated=truncated,
            mel_mean=mel_mean,
            mel_std=mel_std,
        )
        check_call(spec, inputs, state.noise_step.device)
        backend = backends.choose(self.backend, spec, inputs)
        if inputs.alignment is None:
            return backend.call(spec, inputs, state, normalizer, grad_scale)
        return beside.call(backend, spec, inputs, state, normalizer, grad_scale)

    def _step_state(self) -> StepState:
        """What the backend moves on."""
        # From the dictionaries: ten look-ups through __getattr__ would cost more than all checks of the call.
        own: dict[str, Any] = self._buffers
        weights: Any = self._modules["adaptive"]
        adaptive: dict[str, Any] = weights._buffers
        return StepState(
            method=weights.method if self.training and self.update_in_forward else "fixed",
            factors=adaptive["factors"],
            fast=adaptive["fast"],
            slow=adaptive["slow"],
            log_variances=adaptive["log_variances"],
            observations=adaptive["observations"],
            skipped=adaptive["skipped"],
            schedule=own["schedule"],
            noise_step=own["noise_step"],
            advance=self.training,
        )

    def schedule_weight(self, term: str, factor: float) -> None:
        """Scale a term's base weight from now on, as a schedule that fades the attention term does.

        A device tensor holds the factor, so a captured graph follows it. It is not in ``state_dict``: a
        schedule is a function of the step.
        """
        one_of("term", term, TERMS)
        in_range("factor", factor, 0, math.inf)
        self.schedule[TERMS.index(term)] = factor

    def counts(
        self,
        mel_lengths: Tensor,
        step_lengths: Tensor | None = None,
        truncated: Tensor | None = None,
        *,
        steps: int | None = None,
    ) -> Counts:
        """This batch's part of a ``normalizer``; arguments as in :func:`ttsfast.terms.counts.count`."""
        tail = self.spec.stop_tail_frames
        return count(mel_lengths, step_lengths, truncated, stop_tail_frames=tail, steps=steps)

    def update_weights(self, values: Tensor, floors: Tensor) -> None:
        """Update the adaptive weights once from several calls, with ``update_in_forward = False``.

        Args:
            values, floors: (n,) sums of ``out.values`` and ``out.floor_values`` over the micro-batches and
                ranks of one optimizer step, so that all of them used, and will use, the same weights.
        """
        if self.training and self.adaptive.method != "fixed":
            state = self._step_state()._replace(method=self.adaptive.method)
            backends.update(self.backend, self.spec, state, values, floors)

    def extra_repr(self) -> str:
        spec = self._training_spec
        weights = ", ".join(f"{t}_weight={w:g}" for t, w in zip(TERMS, spec.base_weights, strict=True))
        return (
            f"{weights}, mel_loss={spec.mel_loss}, weighting={self.adaptive.method}, backend={self.backend}"
        )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> TTSLoss:
        """Move with the model, but keep the dtypes: averages in half precision would stand still. What the
        meta device did not keep begins anew."""
        held = [(m, name, buffer) for m in self.modules() for name, buffer in m.named_buffers(recurse=False)]
        super()._apply(fn, recurse)
        for module, name, before in held:
            moved = getattr(module, name)
            if moved.dtype != before.dtype:
                setattr(module, name, before.to(moved.device))
        if held[0][2].is_meta and not self.noise_step.is_meta:
            self.reset_parameters()
        return self
