"""``training.freeze``: parts of a model that stay as they are."""

from __future__ import annotations

from torch import nn

from ttsfast.config import NONE
from ttsfast.errors import InputError
from ttsfast.options import nearest


def freeze(model: nn.Module, names: str) -> None:
    """Take the parameters that ``names`` says out of the training.

    Args:
        model: before its optimiser is made.
        names: modules or parameters by name, such as ``symbols,text_layers``, or ``none``.

    Raises:
        InputError: there is none of that name, or nothing would be left to train.
    """
    if names == NONE:
        return
    known = {name for name, _ in model.named_modules() if name} | {n for n, _ in model.named_parameters()}
    for name in (part.strip() for part in names.split(",")):
        if name not in known:
            children = [child for child, _ in model.named_children()]
            hint = nearest(name, known, f"its parts are {', '.join(children)}")
            raise InputError(f"training.freeze: the model has no {name!r}{hint}")
        for parameter_name, parameter in model.named_parameters():
            if parameter_name == name or parameter_name.startswith(f"{name}."):
                parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise InputError(f"training.freeze={names}: nothing is left to train; name fewer parts")
