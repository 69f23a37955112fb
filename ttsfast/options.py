"""An option of the configuration, with its help and its range; and YAML that is checked against options."""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
import typing
from collections.abc import Iterable, Mapping
from dataclasses import field
from typing import Any

import yaml

from ttsfast.errors import InputError
from ttsfast.files import from_home

Values = dict[str, dict[str, Any]]
"""Sections, and in each the keys that somebody named."""
LARGEST_WHOLE = 10**9
"""Where an option says nothing lower: beyond it numbers stop being exact as floats, or fill the memory."""


def option(
    default: Any,
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    choices: tuple[str, ...] | None = None,
    path: bool = False,
) -> Any:
    """A field with its documentation and range: ``low <= value <= high``, ``value > above``.

    Whole numbers have :data:`LARGEST_WHOLE` above them in any case. A ``path`` may begin with ``~``.
    """
    limits = {"low": low, "high": high, "above": above, "choices": choices, "path": path}
    return field(default=default, metadata={"help": help, **limits})


class _UniqueKeyLoader(yaml.SafeLoader):
    """PyYAML keeps the last of two equal keys in silence; here that is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                raise yaml.constructor.ConstructorError(
                    None, None, "'<<' is not supported here, write the keys out", key_node.start_mark
                )
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def parse(text: str, where: str) -> Any:
    """The YAML of ``text``; raises InputError, in one line that names ``where``, for what is none."""
    try:
        return yaml.load(text, Loader=_UniqueKeyLoader)
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{where}: not valid YAML: {reason}") from error


def checked_values(given: Any, sections: Mapping[str, type], where: str) -> Values:
    """What ``given`` names, each value of its key's type and within its limits.

    Args:
        given: as YAML has it; None for an empty file.
        sections: the dataclass of options of each.
        where: it was given, for messages.

    Raises:
        InputError: an unknown section or key, or a value that does not fit.
    """
    values: Values = {}
    if given is None:
        return values
    if not isinstance(given, Mapping):
        raise InputError(
            f"{where}: expected the sections {', '.join(sections)}, found {type(given).__name__}"
        )
    for section, entries in given.items():
        if section not in sections:
            raise InputError(f"{where}: unknown section {shortened(section)}{nearest(section, sections)}")
        if entries is None:
            continue
        if not isinstance(entries, Mapping):
            raise InputError(f"{where}: section {section!r} must hold keys and values")
        options = {f.name: f for f in dataclasses.fields(sections[section])}
        kinds = typing.get_type_hints(sections[section])
        for key, value in entries.items():
            if key not in options:
                name = key if str(key).isprintable() and len(str(key)) <= 80 else shortened(key)
                hint = nearest(key, options, f"`ttsfast config --explain {section}` lists the valid ones")
                raise InputError(f"{where}: unknown key {section}.{name}{hint}")
            name = f"{where}: {section}.{key}"
            values.setdefault(section, {})[key] = _checked(name, value, kinds[key], options[key].metadata)
    return values


def overlaid(*layers: Values) -> Values:
    """All that the layers name; of two values of a key the later layer's."""
    values: Values = {}
    for layer in layers:
        for section, entries in layer.items():
            values.setdefault(section, {}).update(entries)
    return values


def shown_value(value: Any) -> str:
    """A value of a key as YAML has it, on one line."""
    rendered = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True)
    return str(rendered).removesuffix("\n").removesuffix("\n...")


def nearest(name: object, valid: Iterable[str], otherwise: str = "") -> str:
    """The end of a message on an unknown name: the valid one that is like it, or all of them, or, where they
    are more than twelve, what ``otherwise`` says."""
    names = sorted(valid)
    match = difflib.get_close_matches(str(name)[:80], names, n=1, cutoff=0.5)
    if match:
        return f"; did you mean {match[0]}?"
    return f"; {otherwise}" if otherwise and len(names) > 12 else f"; valid are {', '.join(names)}"


def shortened(value: object) -> str:
    """A value in a message, which stays one short line: what YAML's aliases nest can be beyond all memory."""
    if isinstance(value, (list, dict, set, tuple)):
        return f"a {type(value).__name__}"
    if isinstance(value, int) and abs(value) >= 10**30:
        return "a whole number of more than 30 digits"
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."


def _checked(name: str, value: Any, kind: type, limits: Mapping[str, Any]) -> Any:
    """``value`` as ``kind`` and within its limits, or an InputError that names the key."""
    converted = _converted(value, kind)
    if converted is None:
        wanted = {
            bool: "true or false",
            int: "a whole number",
            float: "a finite number",
            str: "text on one line",
        }[kind]
        raise InputError(f"{name}: expected {wanted}, found {shortened(value)}")
    if limits["choices"] and converted not in limits["choices"]:
        hint = nearest(converted, limits["choices"])
        raise InputError(f"{name}: {shortened(converted)} is not one of {', '.join(limits['choices'])}{hint}")
    if limits["path"]:
        return from_home(converted)
    high = LARGEST_WHOLE if limits["high"] is None and kind is int else limits["high"]
    if limits["low"] is not None and converted < limits["low"]:
        raise InputError(f"{name}: {shortened(converted)} is below the least value {limits['low']:g}")
    if limits["above"] is not None and converted <= limits["above"]:
        raise InputError(f"{name}: {shortened(converted)} must be above {limits['above']:g}")
    if high is not None and converted > high:
        raise InputError(f"{name}: {shortened(converted)} is above the greatest value {high:.10g}")
    return converted


def _converted(value: Any, kind: type) -> Any:
    """``value`` as ``kind``, or None where it is not one."""
    if kind is bool or isinstance(value, bool):
        return value if kind is bool and isinstance(value, bool) else None
    if kind is int:
        return value if isinstance(value, int) else None
    if kind is float:
        # YAML 1.1 reads "8e-5" as text: a number there needs a dot.
        try:
            number = float(value) if isinstance(value, (int, float, str)) else math.nan
        except (ValueError, OverflowError):
            return None
        return number if math.isfinite(number) else None
    # A line break in a name would break every message and log line that holds it.
    return value if isinstance(value, str) and value and not re.search(r"[\x00-\x1f\x7f]", value) else None
