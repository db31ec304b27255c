"""A training run as it stands, in a file: from there it goes on to the same bits.

A safetensors file. Its arrays are the network's, ``"weights/node/array"``, and the optimizer's,
``"state/slot/node/parameter"``. The metadata are ``format`` and ``version``, what
`fcn.saved.description` says of the model, and in JSON ``recipe`` and ``progress``.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from . import safetensors_file, saved
from .layers import moved
from .layers.layer import check_keys
from .layers.sizes import integer, short
from .model import Model
from .recipe import Recipe
from .record import Epoch
from .training import Sums, Trainer

FORMAT, VERSION = "convarith.fcn.run", "1"


@dataclasses.dataclass
class Progress:
    """How far a run has come.

    Attributes
    ----------
    data : str
        What tells the data set from another one, see `fcn.session.fingerprint`.
    steps : int
        Since the beginning.
    sums : Sums
        Of the epoch that is being trained.
    seconds : float
        That it took so far.
    history : list of Epoch
        The epochs that are done, validated.
    """

    data: str
    steps: int = 0
    sums: Sums = dataclasses.field(default_factory=Sums)
    seconds: float = 0.0
    history: list[Epoch] = dataclasses.field(default_factory=list)

    @property
    def best(self) -> Epoch | None:
        """The first epoch with the greatest mean IU; None where none has one."""
        known = [epoch for epoch in self.history if epoch.val_mean_iu is not None]
        return max(known, key=lambda epoch: epoch.val_mean_iu, default=None)


def save(path: Path, trainer: Trainer, recipe: Recipe, progress: Progress) -> None:
    """Write a run; the file is on the disk, whole, before it takes the place of the last one.

    Raises
    ------
    OSError
    """
    arrays = {f"weights/{name}": array for name, array in trainer.model.graph.arrays().items()} | {
        f"state/{name}": array for name, array in trainer.state.items()
    }
    metadata = {
        "format": FORMAT,
        "version": VERSION,
        **saved.description(trainer.model),
        "recipe": json.dumps(recipe.to_json()),
        "progress": json.dumps(dataclasses.asdict(progress), allow_nan=False),
    }
    host = {name: moved(array, np) for name, array in arrays.items()}
    safetensors_file.write(path, host, metadata)


def load(path: Path) -> tuple[Model, dict[str, np.ndarray], Recipe, Progress]:
    """Return the model of a run, the optimizer's state, the recipe and how far it has come.

    Raises
    ------
    ValueError
        In one line, for a file that is truncated, damaged, or no checkpoint.
    OSError
        Where it cannot be read.
    """
    arrays, metadata = safetensors_file.read(path)
    try:
        saved.check_format(metadata, FORMAT, VERSION)
        parts: dict[str, dict[str, np.ndarray]] = {"weights": {}, "state": {}}
        for name, array in arrays.items():
            part, _, rest = name.partition("/")
            if part not in parts:
                raise ValueError(f"arrays: expected weights/ and state/, got {short(name)}")
            parts[part][rest] = array
        model = saved.described(parts["weights"], metadata)
        recipe = Recipe.from_json(saved.entry(metadata, "recipe", dict))
        progress = _progress(saved.entry(metadata, "progress", dict))
        _check_state(parts["state"], model, recipe)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ValueError(f"{path}: not a checkpoint of fcn train's: {str(error)[:400]}") from error
    return model, parts["state"], recipe, progress


def _progress(described: Mapping[str, Any]) -> Progress:
    check_keys("progress", described, [field.name for field in dataclasses.fields(Progress)])
    steps = integer("steps", described["steps"], 0, 1 << 40)
    data, seconds, history = (described[name] for name in ("data", "seconds", "history"))
    if not isinstance(data, str) or not isinstance(seconds, (int, float)):
        raise ValueError(f"progress: expected text and seconds, got {short((data, seconds))}")
    sums = _of(Sums, "sums", described["sums"])
    if not isinstance(history, list):
        raise ValueError(f"history: expected a list, got {short(history)}")
    epochs = [_of(Epoch, f"history[{i}]", entry) for i, entry in enumerate(history)]
    if [epoch.epoch for epoch in epochs] != list(range(1, len(epochs) + 1)):
        raise ValueError("history: expected epochs 1, 2 and so on")
    return Progress(data, steps, sums, seconds, epochs)


def _of(kind: type, what: str, described: Any) -> Any:
    """Return a dataclass of numbers, some of which may be None, from JSON."""
    fields = {field.name: field.type for field in dataclasses.fields(kind)}
    check_keys(what, described, list(fields))
    for name, value in described.items():
        types = {"int": (int,), "float": (int, float)}[fields[name].partition(" ")[0]]
        known = isinstance(value, types) and not isinstance(value, bool) and value >= 0
        if not known and not (value is None and fields[name].endswith("None")):
            raise ValueError(f"{what}: {name}: expected {fields[name]}, got {short(value)}")
    return kind(**described)


def _check_state(state: Mapping[str, np.ndarray], model: Model, recipe: Recipe) -> None:
    """Refuse an optimizer's state that is not of the trained parameters' shapes."""
    expected = {
        f"{slot}/{name}": array.shape
        for slot in recipe.new_optimizer().slots
        for name, array in model.graph.parameters(recipe.frozen(model)).items()
    }
    check_keys("state", state, list(expected))
    for name, shape in expected.items():
        if state[name].shape != shape or state[name].dtype != np.float32:
            raise ValueError(
                f"state: {short(name)}: expected float32 of shape {shape}, "
                f"got {state[name].dtype} of shape {state[name].shape}"
            )
