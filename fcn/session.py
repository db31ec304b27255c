"""`Session`: a training run in a folder, begun or gone on with."""

from __future__ import annotations

import dataclasses
import hashlib
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from . import checkpoint, tiling
from .batches import batches, steps
from .checkpoint import Progress
from .evaluate import predictions
from .files import remove_leftovers
from .layers import Array
from .memory import checked_step
from .metrics import Confusion
from .model import Model
from .recipe import Recipe
from .record import Epoch, line, save_curves, write_log
from .stopping import Stopping
from .training import Sums, Trainer
from .voc import Dataset

#: What a run's folder holds.
CHECKPOINT, BEST, LAST = "checkpoint.safetensors", "best.safetensors", "last.safetensors"
LOG, CURVES = "log.csv", "curves.png"


class Session:
    """A run in a folder, from wherever it stands to its end."""

    def __init__(
        self,
        trainer: Trainer,
        recipe: Recipe,
        progress: Progress,
        data: tuple[Dataset, Dataset],
        out: Path,
        device: str,
        save_every: float,
    ) -> None:
        self.trainer, self.recipe, self.progress = trainer, recipe, progress
        self.train, self.val = data
        self.out, self.device, self.save_every = out, device, save_every
        self.steps = steps(len(self.train), recipe.batch)
        self.saved = time.monotonic()

    @property
    def done(self) -> bool:
        """Whether there were as many epochs as there are to be."""
        return len(self.progress.history) >= self.recipe.epochs

    def announce(self) -> None:
        """Print what is trained, on what, and what memory it takes; refuse what does not fit."""
        recipe, graph = self.recipe, self.trainer.model.graph
        trained = sum(array.size for array in self.trainer.parameters.values())
        every = sum(array.size for array in graph.parameters().values())
        print(
            f"{recipe.backbone} {recipe.head}, {len(self.train.classes)} classes: {trained:,} of "
            f"{every:,} parameters trained, on {len(self.train)} pictures in {self.steps} steps "
            f"an epoch; validated on {len(self.val)}"
        )
        height, width = recipe.crop or map(max, zip(*self.train.sizes.values(), strict=True))
        print(
            checked_step(
                graph,
                (recipe.batch, height, width, graph.channels),
                self.device,
                until=self.trainer.model.scores,
                frozen=self.trainer.frozen,
                slots=len(self.trainer.optimizer.slots),
            )
        )
        for data in (self.train, self.val):
            for problem in data.skipped.values():
                print(f"fcn: skipped {problem}", file=sys.stderr)
            if data.small:
                print(
                    f"fcn: left out {len(data.small)} of {data.split!r}, smaller than the crop: "
                    "see --pad",
                    file=sys.stderr,
                )

    def epoch(self, stopping: Stopping) -> bool:
        """Train and validate what is left of an epoch; return False where it was stopped."""
        progress = self.progress
        if not self._train(stopping):
            return False
        start = time.perf_counter()
        confusion = self._validate(stopping)
        if confusion is None:
            return False
        figures = (
            progress.sums.mean_loss,
            progress.sums.accuracy,
            confusion.pixel_accuracy,
            confusion.mean_iu,
        )
        progress.history.append(
            Epoch(
                len(progress.history) + 1,
                *(None if np.isnan(figure) else figure for figure in figures),
                round(progress.seconds, 3),
                round(time.perf_counter() - start, 3),
            )
        )
        progress.sums, progress.seconds = Sums(), 0.0
        self._record()
        return True

    def _train(self, stopping: Stopping) -> bool:
        from tqdm import tqdm

        recipe, progress = self.recipe, self.progress
        done = progress.sums.steps
        number = len(progress.history)
        bar = tqdm(
            total=recipe.epochs * self.steps,
            initial=number * self.steps + done,
            desc=f"epoch {number + 1}/{recipe.epochs}",
            unit="step",
            disable=None,
            leave=False,
        )
        with bar, np.errstate(all="ignore"):  # what comes to no number stops the run by its loss
            coming = batches(self.train, self.trainer.model.preprocess, recipe.batch, number, done)
            for x, labels in coming:
                start = time.perf_counter()
                progress.sums.add(self.trainer.step(x, labels))
                progress.steps = self.trainer.steps
                progress.seconds += time.perf_counter() - start
                bar.set_postfix(
                    loss=f"{progress.sums.mean_loss:.4f}",
                    accuracy=f"{progress.sums.accuracy:.4f}",
                    refresh=False,
                )
                bar.update()
                if stopping.asked:
                    return False
                if time.monotonic() - self.saved >= self.save_every:
                    self.save()
        return True

    def _validate(self, stopping: Stopping) -> Confusion | None:
        """Return how well whole pictures are found now; None where it was stopped."""
        confusion = Confusion(len(self.val.classes))
        model = self.trainer.model.compiled()  # with the weights as they are now
        for sample, found in predictions(model, self.val, progress=True):
            confusion.add(sample.labels, found)
            if stopping.asked:
                return None
        return confusion

    def _record(self) -> None:
        """Write what an epoch came to; the checkpoint last, so that it never knows of more."""
        history, model = self.progress.history, self.trainer.model
        if self.progress.best is history[-1]:
            model.save(self.out / BEST)
        model.save(self.out / LAST)
        write_log(self.out / LOG, history)
        save_curves(self.out / CURVES, {"": history})
        self.save()
        left = (self.recipe.epochs - len(history)) * (history[-1].seconds + history[-1].val_seconds)
        ends = f", about {_duration(left)} left" if left else ""
        print(line(history[-1], self.recipe.epochs) + ends, flush=True)

    def save(self) -> None:
        """Write the checkpoint."""
        checkpoint.save(self.out / CHECKPOINT, self.trainer, self.recipe, self.progress)
        self.saved = time.monotonic()


def begun(out: Path, given: Mapping[str, Any], *, device: str, save_every: float) -> Session:
    """Return a run before its first step."""
    if "data" not in given:
        raise ValueError("data: expected the folder to train on, got none")
    if out.exists() and not out.is_dir():
        raise ValueError(f"out: expected a folder, got the file {out}")
    if (out / CHECKPOINT).exists():
        raise ValueError(
            f"out: {out} holds a run: --resume goes on with it, another folder begins another"
        )
    for name in (BEST, LAST, LOG, CURVES):
        if (out / name).exists():
            raise ValueError(f"out: {out / name} is there already, which a run would write over")
    recipe = Recipe(**given)
    data = recipe.datasets(progress=True)
    model = recipe.model(data[0].classes)
    trainer = _trainer(recipe, model.to(device))
    progress = Progress(fingerprint(*data))
    session = Session(trainer, recipe, progress, data, out, device, save_every)
    session.announce()
    out.mkdir(parents=True, exist_ok=True)
    session.save()  # a folder that cannot be written to is known before the work begins
    return session


def resumed(out: Path, given: Mapping[str, Any], *, device: str, save_every: float) -> Session:
    """Return the run in a folder as its checkpoint has it.

    What is given beside ``--resume`` is to be what the run was told, but for more epochs, and for
    where the data are now.
    """
    path = out / CHECKPOINT
    if not path.exists():
        raise ValueError(f"resume: expected a run in {out}, got no {path}")
    model, state, recipe, progress = checkpoint.load(path)
    changed = dataclasses.replace(recipe, **given)
    for field in dataclasses.fields(Recipe):
        before, now = getattr(recipe, field.name), getattr(changed, field.name)
        if before != now and field.name not in ("data", "epochs"):
            raise ValueError(f"{field.name}: expected {before!r}, as the run has, got {now!r}")
    if changed.epochs < len(progress.history):
        raise ValueError(
            f"epochs: expected at least {len(progress.history)}, which are done, "
            f"got {changed.epochs}"
        )
    data = changed.datasets(progress=True)
    if fingerprint(*data) != progress.data:
        raise ValueError(f"data: expected the run's own pictures, got others in {changed.data}")
    remove_leftovers(out)
    trainer = _trainer(changed, model.to(device), state, progress.steps)
    session = Session(trainer, changed, progress, data, out, device, save_every)
    session.announce()
    return session


def _trainer(
    recipe: Recipe, model: Model, state: Mapping[str, Array] | None = None, done: int = 0
) -> Trainer:
    tiling.check_pixelwise(model, recipe.backbone)
    return Trainer(
        model,
        recipe.new_optimizer(),
        recipe.rates(model),
        decays=recipe.decays(model),
        frozen=recipe.frozen(model),
        state=state,
        steps=done,
    )


def fingerprint(*data: Dataset) -> str:
    """Return a digest of the names and sizes of data sets' pictures, and of their classes."""
    text = repr([(each.names, each.sizes, each.classes.names) for each in data])
    return hashlib.sha256(text.encode()).hexdigest()


def _duration(seconds: float) -> str:
    """Return a time as people say it.

    >>> _duration(50), _duration(400), _duration(7300)
    ('50 s', '7 min', '2 h 2 min')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
