"""Recipes: ways to train one model on one corpus, each in a YAML file that names where it comes from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path

from ttsfast.config import AUTO, SECTIONS, Config, check_preset, config_of, preset_values
from ttsfast.data.store.store import Store
from ttsfast.devices import Machine
from ttsfast.errors import InputError
from ttsfast.options import Values, checked_values, nearest, overlaid, parse
from ttsfast.training.auto import Speech, choose

_FOLDER = resources.files("ttsfast.benchmarks.convergence") / "recipes"
LOOPS = ("trainer", "plain")
SAME = frozenset(
    {"model.size", "data.max_mel_frames", "data.max_text_length", "data.sample_rate", "data.n_mels"}
)
"""What every recipe has as ``auto`` chooses it: the same model, on the same utterances."""
OWN: Values = {
    "training": {
        "early_stopping": False,
        "auto_lr_reduction": False,
        "keep_checkpoints": 1,
        "preflight": False,
    }
}
"""The first two follow from validations, which are made apart from training here; snapshots are kept beside
checkpoints; and a preflight belongs to the trainer alone."""
OWN_KEYS = ("training.run_folder", "training.seed")
"""That each run has of its own."""
PLAIN_LACKS = {
    "training.use_adaptive_loss_weights": False,
    "training.attention_fade_steps": 0,
    "training.gradient_accumulation_steps": 1,
    "training.ema_decay": 0.0,
    "training.kl_free_bits": 0.0,
    "training.loss_normalization": "frame",
    "training.mel_smoothing": "mean",
    "training.compile": False,
    "training.cuda_graphs": False,
    "training.freeze": "none",
    "training.start_from": "none",
    "data.mixed_precision": False,
    "data.frame_budget": 0,
    "data.speaker_balance": 0.0,
}
"""Keys of which the plain loop knows one value."""


PLUS = " + "
"""Between the name of a recipe and that of a change to it."""


@dataclass(frozen=True)
class Recipe:
    """How to train."""

    name: str
    """That of a folder, too."""
    loop: str
    """Of :data:`LOOPS`: the trainer, or what people write in plain PyTorch."""
    preset: str
    bucketing: bool = True
    """Of the plain loop: batches of like length, in place of random ones."""
    values: Values = field(default_factory=dict)
    """What differs from the preset, by section and key."""

    def changed(self, name: str, values: Values) -> Recipe:
        """This recipe under another name, with some values of its own."""
        return replace(self, name=name, values=overlaid(self.values, values))

    def config(self, store: Store, machine: Machine, settings: Values) -> Config:
        """The configuration on ``machine``.

        Args:
            store: to learn from.
            machine: for which ``auto`` chooses.
            settings: laid over every recipe; they name the store, too.

        Raises:
            InputError: a key is set that the plain loop cannot follow.
        """
        given = overlaid(self.values, settings, OWN)
        chosen: Values = {}
        for choice in choose(machine, Speech.of_store(store), given):
            for key, value in choice.values.items():
                if self.preset == AUTO or key in SAME:
                    section, _, name = key.partition(".")
                    chosen.setdefault(section, {})[name] = value
        base = {} if self.preset == AUTO else preset_values(self.preset)
        config = config_of(overlaid(base, chosen, given))
        if self.loop == "plain":
            self._check_plain(config)
        return config

    def _check_plain(self, config: Config) -> None:
        values = config.to_dict()
        for key, only in PLAIN_LACKS.items():
            section, _, name = key.partition(".")
            if values[section][name] != only:
                raise InputError(
                    f"recipe {self.name}: {key}={values[section][name]}, and the plain loop can only do "
                    f"{only}; set that, or `loop: trainer`"
                )
        if config.training.optimizer not in ("adamw", "adam"):
            raise InputError(
                f"recipe {self.name}: training.optimizer={config.training.optimizer}, and the plain loop has "
                "adamw and adam; set one of them, or `loop: trainer`"
            )


def names() -> list[str]:
    """The recipes that come with the package."""
    return sorted(Path(file.name).stem for file in _FOLDER.iterdir() if file.name.endswith(".yaml"))


def read_recipe(place: str) -> Recipe:
    """A recipe of the package by its name, or one in a YAML file.

    The file has ``loop``, ``preset``, for a plain loop ``bucketing``, and the sections of a configuration.

    Raises:
        InputError: there is none, or it holds something else.
    """
    if place in names():
        return _recipe(place, (_FOLDER / f"{place}.yaml").read_text(encoding="utf-8"), f"recipe {place}")
    path = Path(place)
    if path.suffix not in (".yaml", ".yml"):
        raise InputError(f"no recipe {place!r}{nearest(place, names())}; or name a YAML file")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as a recipe ({error})") from error
    return _recipe(path.stem, text, str(path))


def read_recipes(places: Sequence[str]) -> list[Recipe]:
    """As :func:`read_recipe`, each under a name of its own."""
    recipes = [read_recipe(place) for place in places]
    for recipe in recipes:
        if sum(other.name == recipe.name for other in recipes) > 1:
            raise InputError(f"two recipes are called {recipe.name}: rename a file, or name it once")
    return recipes


def _recipe(name: str, text: str, where: str) -> Recipe:
    content = parse(text, where)
    if PLUS in name:
        raise InputError(f"{where}: {PLUS!r} parts a recipe from a change to it; name the file otherwise")
    if not isinstance(content, dict):
        raise InputError(f"{where}: expected loop, preset and the sections of a configuration")
    values = {key: value for key, value in content.items() if key in SECTIONS}
    own = {key: value for key, value in content.items() if key not in SECTIONS}
    allowed = {"loop", "preset", "bucketing"}
    if unknown := sorted(set(map(str, own)) - allowed):
        raise InputError(f"{where}: unknown key {unknown[0]}{nearest(unknown[0], allowed | set(SECTIONS))}")
    if own.get("loop") not in LOOPS:
        raise InputError(f"{where}: loop must be one of {', '.join(LOOPS)}, found {own.get('loop')!r}")
    if not isinstance(own.get("bucketing", True), bool):
        raise InputError(f"{where}: bucketing must be true or false")
    return Recipe(
        name,
        own["loop"],
        check_preset(own.get("preset", AUTO), where),
        own.get("bucketing", True),
        checked_values(values, SECTIONS, where),
    )
