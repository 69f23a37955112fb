"""``training.compile``: what compiled passes compute, how often they are compiled, what they leave alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import Any

import pytest
import torch
from rank_runs import ended, job, start, weights
from rank_worker import BlocksModel, tiny_model
from tiny_model import TinyModel, traced_only
from torch import Tensor, nn
from torch import _inductor as inductor
from torch._dynamo.exc import TorchDynamoException
from torch._dynamo.utils import counters
from torch._functorch import config as functorch_config
from torch._inductor.utils import get_code

from ttsfast.config import Config
from ttsfast.data.loading.batch import Batch, collate
from ttsfast.errors import InputError
from ttsfast.models.convtts import ConvTTS
from ttsfast.models.layers import GatedConv
from ttsfast.models.paralleltts import ParallelTTS
from ttsfast.training import compilation
from ttsfast.training.setup import forever
from ttsfast.training.trainer import Trainer

pytestmark = pytest.mark.skipif(
    torch.__version__ < compilation.OLDEST_TORCH,
    reason=f"training.compile needs torch 2.11, and this is {torch.__version__}",
)
MakeConfig = Callable[..., Config]
MakeModel = Callable[[], nn.Module]
DILATIONS: dict[type, tuple[str, ...]] = {
    ConvTTS: ("text_dilations", "mel_dilations", "decoder_dilations"),
    ParallelTTS: ("text_dilations", "predictor_dilations", "decoder_dilations"),
}
NONE = dict.fromkeys([f"training__{term}_loss_weight" for term in ("kl", "stop", "attention")], 0.0)
WEIGHTS: dict[type, dict[str, float]] = {
    ConvTTS: {},
    ParallelTTS: {**NONE, "training__alignment_loss_weight": 1.0, "training__binarization_loss_weight": 0.1},
}


class TinyConvolution(TinyModel):
    """Hears through a gated convolution, whose gradient compilers treat by itself."""

    def __init__(self, symbols: int) -> None:
        super().__init__(symbols)
        self.heard = GatedConv(80, 3, 1, causal=True, dropout=0.1)

    def forward(self, text: Tensor, text_lengths: Tensor, mel: Tensor, *rest: Any, **named: Any) -> Any:
        return super().forward(text, text_lengths, self.heard(mel), *rest, **named)


@pytest.fixture(autouse=True)
def _afresh() -> Iterator[None]:
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Python; the others have gradients traced, and code made of them."""
    monkeypatch.setattr(torch, "compile", traced_only(torch.compile))


def batches_of_all_sizes(trainer: Trainer, count: int) -> Iterator[Batch]:
    """From 2 to 6 utterances, padded to lengths of all kinds."""
    store = trainer.store
    indices = store.indices("train")
    for number in range(count):
        chosen = [store[int(i)] for i in indices[number % 4 : number % 4 + 2 + number % 5]]
        multiple = 8 * (1 + number % 7)
        yield collate(chosen, pad_value=store.silence, tail_frames=8, pad_to_multiple=multiple)


def after(trainer: Trainer, batches: Any) -> dict[str, Tensor]:
    for batch in batches:
        trainer.train_step([batch])
    return {name: p.detach().clone() for name, p in trainer.model.named_parameters()}


def check_compiled_against_plain(
    model: type[TinyModel], make_config: MakeConfig, tmp_path: Any, steps: int
) -> None:
    """With dropout: both draw the same numbers."""
    weights = []
    for compile in (False, True):
        config = make_config(
            training__compile=compile,
            training__learning_rate=1e-3,
            training__run_folder=str(tmp_path / str(compile)),
        )
        torch.manual_seed(1)
        with Trainer(config, model=model(100)) as trainer:
            names = [name for name, _ in trainer.model.named_parameters()]
            weights.append(after(trainer, batches_of_all_sizes(trainer, steps)))
    assert list(weights[0]) == list(weights[1]) == names
    assert counters["stats"]["unique_graphs"] in (1, 2, 3)
    assert counters["graph_break"] == {}
    for name, plain in weights[0].items():
        torch.testing.assert_close(weights[1][name], plain, rtol=1e-4, atol=1e-5, msg=name)


def codes_of_an_embedding() -> str:
    """What torch generates for both passes of one whose rows come several times, for two threads; to compile
    that takes longer than all the rest.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with (
            inductor.config.patch(force_disable_caches=True),
            functorch_config.patch(force_non_lazy_backward_lowering=True),
        ):
            codes = get_code(torch.compile(nn.Embedding(9, 16)), torch.arange(700) % 9)
    finally:
        torch.set_num_threads(threads)
    return "\n".join(codes)


def test_rows_that_come_several_times_are_added_up_in_order() -> None:
    """Not by several threads as they come."""
    with compilation.passes(torch.device("cpu")):
        assert "atomic_add" not in codes_of_an_embedding()
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    # Otherwise they are not, which is what the test looks for.
    assert "atomic_add" in codes_of_an_embedding()


def test_what_the_user_asked_of_torch_stays_as_it_was() -> None:
    torch.use_deterministic_algorithms(True)
    try:
        with compilation.passes(torch.device("cpu")):
            assert not torch.is_deterministic_algorithms_warn_only_enabled()
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)
    with pytest.raises(ValueError, match="mine"), compilation.passes(torch.device("cpu")):
        raise ValueError("mine")
    assert not torch.are_deterministic_algorithms_enabled()
    with compilation.passes(torch.device("cuda")):
        assert not torch.are_deterministic_algorithms_enabled()


def test_a_torch_that_nobody_tried_is_refused_where_bits_must_repeat(
    make_config: MakeConfig, make_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "__version__", torch.torch_version.TorchVersion("2.15.0"))
    config = partial(make_config, training__compile=True)
    try:
        with pytest.raises(
            InputError, match=r"^training\.compile with training\.deterministic .*torch 2\.15\.0.*"
        ):
            Trainer(config(training__deterministic=True), model=make_model())
    finally:
        torch.use_deterministic_algorithms(False)
    Trainer(config(), model=make_model()).close()


def test_a_torch_without_its_private_names_compiles_too(
    make_config: MakeConfig, make_model: MakeModel, traced: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert compilation.private("torch.no_such_module", "name") is None
    assert compilation.private("torch", "no_such_name") is None
    monkeypatch.setattr(compilation, "private", lambda module, name: None)
    with Trainer(make_config(training__compile=True, training__max_steps=2), model=make_model()) as trainer:
        assert trainer.fit().step == 2
    assert compilation.counters() == {}
    with pytest.raises(TorchDynamoException), compilation.explained():
        raise TorchDynamoException("as it comes")


@pytest.mark.slow
def test_compiled_steps_are_plain_steps_and_no_length_is_compiled_anew(
    make_config: MakeConfig, tmp_path: Any
) -> None:
    check_compiled_against_plain(TinyConvolution, make_config, tmp_path, steps=40)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [ConvTTS, ParallelTTS])
def test_a_built_in_model_is_traced_in_one_piece(
    kind: type[ConvTTS] | type[ParallelTTS], make_config: MakeConfig, tmp_path: Any, traced: None
) -> None:
    config = make_config(training__compile=True, training__run_folder=str(tmp_path), **WEIGHTS[kind])
    model = kind.from_size("nano", 100, 80, channels=8, **dict.fromkeys(DILATIONS[kind], (1,)))
    with Trainer(config, model=model) as trainer:
        after(trainer, batches_of_all_sizes(trainer, 12))
    assert counters["stats"]["unique_graphs"] in (1, 2, 3)
    assert counters["graph_break"] == {}


def test_a_compiled_run_validates_saves_and_resumes_uncompiled(
    make_config: MakeConfig, make_model: MakeModel, traced: None
) -> None:
    config = make_config(training__compile=True, training__max_steps=3)
    with Trainer(config, model=make_model()) as trainer:
        result = trainer.fit()
        assert type(trainer.model) is TinyModel
        assert counters["stats"]["unique_graphs"] in (1, 2, 3)
    with Trainer(make_config(training__max_steps=5), model=make_model(), resume=True) as trainer:
        assert trainer.step == result.step
        before = dict(counters["stats"])
        trainer.fit()
    assert dict(counters["stats"]) == before


def test_a_model_that_cannot_be_compiled_is_bad_input(
    make_config: MakeConfig, make_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(graph: Any, inputs: Any) -> Any:
        raise NotImplementedError("no such instruction")

    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda model, **_: real(model, backend=breaks))
    with (
        Trainer(make_config(training__compile=True), model=make_model()) as trainer,
        pytest.raises(
            InputError, match=r"^training\.compile: .*no such instruction.*training\.compile=false"
        ),
    ):
        trainer.fit()


def test_what_a_model_itself_raises_is_not_blamed_on_the_compiler(
    make_config: MakeConfig, make_model: MakeModel
) -> None:
    with pytest.raises(RuntimeError, match="mine"), compilation.explained():
        raise RuntimeError("mine")
    config = partial(make_config, training__compile=False)
    with Trainer(config(), model=make_model()) as trainer:
        assert list(islice(forever(trainer.loader), 1))
        assert trainer.parallel.objective._aside[1] is trainer.model


@pytest.mark.slow
def test_two_compiled_ranks_are_one_plain(make_config: MakeConfig, tmp_path: Any) -> None:
    """Of a model whose gradients are many messages, which torch would cut it by."""

    def config(name: str, batch_size: int, compile: bool = True) -> Config:
        return make_config(
            training__run_folder=str(tmp_path / name),
            training__early_stopping_restore_best_weights=False,
            training__gradient_accumulation_steps=2,
            training__compile=compile,
            training__device="cpu",
            training__max_steps=2,
            training__val_step=2,
            training__save_step=2,
            data__batch_size=batch_size,
        )

    two = job("two", config("two", 3), model="BlocksModel", bucket_bytes=2000)
    results = ended(start([two], tmp_path), seconds=280)
    assert [code for code, _ in results] == [0, 0], results
    both = [weights(tmp_path, "two", rank) for rank in (0, 1)]
    alone = config("alone", 6, compile=False)
    with Trainer(alone, model=tiny_model(alone.data.store, 0.0, BlocksModel)) as trainer:
        trainer.fit()
    for name, expected in trainer.model.named_parameters():
        assert torch.equal(both[0][name], both[1][name])
        torch.testing.assert_close(both[0][name], expected, rtol=1e-4, atol=2e-5, msg=name)
