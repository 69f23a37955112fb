"""From the configuration's ``model`` section to a module: a built-in one, or one that a factory makes."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from torch import nn

from ttsfast.config import ModelConfig
from ttsfast.errors import InputError, in_their_code
from ttsfast.models.convtts import ConvTTS
from ttsfast.models.paralleltts import ParallelTTS

if TYPE_CHECKING:
    from ttsfast.models.voice_info import VoiceInfo

Factory: TypeAlias = "Callable[[VoiceInfo, ModelConfig], nn.Module]"


def _convtts(info: VoiceInfo, options: ModelConfig) -> ConvTTS:
    latent_dim = options.latent_dim
    return ConvTTS.from_size(
        options.size,
        n_symbols=len(info.symbols),
        n_mels=info.contract.n_mels,
        n_speakers=len(info.speakers),
        silence=info.silence,
        reduction_factor=options.reduction_factor,
        dropout=options.dropout,
        prenet_dropout=options.prenet_dropout,
        latent_dim=latent_dim if options.posterior else 0,
    )


def _paralleltts(info: VoiceInfo, options: ModelConfig) -> ParallelTTS:
    return ParallelTTS.from_size(
        options.size,
        n_symbols=len(info.symbols),
        n_mels=info.contract.n_mels,
        n_speakers=len(info.speakers),
        silence=info.silence,
        statistics=info.tracks,
        reduction_factor=options.reduction_factor,
        dropout=options.dropout,
        pitch=options.pitch,
        energy=options.energy,
    )


CONVTTS, PARALLELTTS = "convtts", "paralleltts"
BUILT_IN: dict[str, Factory] = {CONVTTS: _convtts, PARALLELTTS: _paralleltts}
"""By what ``model.architecture`` calls them."""


def built_in(config: ModelConfig) -> bool:
    """Whether the model is one of this package's."""
    return config.architecture in BUILT_IN


def build_model(config: ModelConfig, info: VoiceInfo) -> nn.Module:
    """The model that ``config`` names, for the symbols, speakers and mel bins of ``info``.

    A factory, ``package.module:factory``, is called as ``factory(info, config)`` and may read any key of the
    ``model`` section. It is looked for in the current folder and among the installed packages.

    Raises:
        InputError: no such module or attribute, a factory that takes other arguments or returns no module, or
            a ``model`` key, other than ``size``, that was set and that the model does not read.
    """
    name = f"model.architecture={config.architecture}"
    options = _TrackedOptions(**asdict(config))
    if built_in(config):
        model = BUILT_IN[config.architecture](info, options)
        others = " or ".join(other for other in BUILT_IN if other != config.architecture)
        remedy = f", or set model.architecture={others}"
    else:
        model = _made(_find_factory(config.architecture), name, info, options)
        remedy = ", or read it from the options in the factory"
    defaults = ModelConfig()
    # The trainer itself reads model.posterior: no posterior, no KL term. The size is of the built-in models,
    # as its help says, and presets set it.
    known = {*options.read, "architecture", "posterior", "size"}
    for field in fields(ModelConfig):
        value = getattr(config, field.name)
        if field.name not in known and value != getattr(defaults, field.name):
            raise InputError(
                f"{name}: model.{field.name}={value} is set, and the model does not read it; leave it at "
                f"{getattr(defaults, field.name)}{remedy}"
            )
    return model


def _made(factory: Callable[..., Any], name: str, info: VoiceInfo, options: ModelConfig) -> nn.Module:
    """What a factory of the user's makes."""
    try:
        inspect.signature(factory).bind(info, options)
    except TypeError as error:
        raise InputError(
            f"{name}: it is called as factory(voice, options), and takes {inspect.signature(factory)} "
            f"({error}); give it these two arguments, and defaults for the rest"
        ) from error
    try:
        model = factory(info, options)
    except InputError:
        raise
    except Exception as error:
        # Whatever it is, it comes from their code, and the command line has one line for it.
        raise InputError(f"{name}: it failed ({in_their_code(error)})") from error
    if not isinstance(model, nn.Module):
        raise InputError(f"{name}: it returned {type(model).__name__}; return a torch.nn.Module")
    return model


def require_trust(config: ModelConfig, source: Path, *, trust_code: bool) -> None:
    """Raise InputError, before anything is imported, where a checkpoint names code that nobody vouched for.

    Args:
        config: the ``model`` section that the checkpoint holds.
        source: the checkpoint, for the message.
        trust_code: whether who named the checkpoint said that its code may run.
    """
    if trust_code or built_in(config):
        return
    module = config.architecture.partition(":")[0]
    raise InputError(
        f"{source}: its model is not built in: model.architecture={config.architecture} would import the "
        f"module {module} from {Path.cwd()} or the installed packages, and run it; "
        "add --trust-code if you trust both"
    )


def _find_factory(architecture: str) -> Callable[..., Any]:
    where = f"model.architecture={architecture}"
    module_name, colon, attribute = architecture.partition(":")
    parts = [*module_name.split("."), attribute]
    if not colon or not all(part.isidentifier() for part in parts):
        raise InputError(
            f"{where}: write {', '.join(BUILT_IN)}, or package.module:factory for a model of your own"
        )
    # As `python -m` does; the ttsfast command starts with its own folder there.
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = str(error.name)
        if module_name != missing and not module_name.startswith(f"{missing}."):
            raise InputError(f"{where}: importing it needs the module {missing}; install that") from error
        raise InputError(
            f"{where}: no module {missing} in {here} or among the installed packages; "
            "start ttsfast in the folder that holds it, or install it"
        ) from error
    except (Exception, SystemExit) as error:
        raise InputError(f"{where}: importing {module_name} failed ({in_their_code(error)})") from error
    if not hasattr(module, attribute):
        callables = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
        own = [n for n in callables if getattr(module, n).__module__ == module_name] or callables
        raise InputError(
            f"{where}: {module_name} has no {attribute}; it has {', '.join(own) or 'nothing to call'}"
        )
    factory = getattr(module, attribute)
    if not callable(factory):
        raise InputError(
            f"{where}: it is of type {type(factory).__name__}; name a function that makes the model"
        )
    return factory


class _TrackedOptions(ModelConfig):
    """A ``ModelConfig`` that remembers which of its keys were read."""

    def __getattribute__(self, name: str) -> Any:
        if name in ModelConfig.__dataclass_fields__:
            self.read.add(name)
        return object.__getattribute__(self, name)

    @property
    def read(self) -> set[str]:
        """The keys that were read so far."""
        return object.__getattribute__(self, "__dict__").setdefault("_read", set())
