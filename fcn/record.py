"""What a training run has come to: its epochs, as a CSV file and as curves."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Sequence
from pathlib import Path

from .files import replacing


@dataclasses.dataclass(frozen=True)
class Epoch:
    """An epoch, and what the network was worth after it.

    Attributes
    ----------
    epoch : int
        From 1.
    loss, accuracy : float or None
        Of the labelled pixels of the epoch's batches, each before the step on it.
    val_accuracy, val_mean_iu : float or None
        Of the validation pictures after the epoch.
    seconds, val_seconds : float
        What training and validation took.

    Where no pixel is labelled there is no figure.
    """

    epoch: int
    loss: float | None
    accuracy: float | None
    val_accuracy: float | None
    val_mean_iu: float | None
    seconds: float
    val_seconds: float


def line(epoch: Epoch, epochs: int) -> str:
    """Return an epoch as a line to print.

    >>> line(Epoch(1, 2.0, 0.5, 0.625, None, 90.0, 5.0), 10)
    'epoch  1/10  loss 2.0000  accuracy 0.5000  val accuracy 0.6250  mean IU -  95 s'
    """
    wide = len(str(epochs))
    figures = {
        "loss": epoch.loss,
        "accuracy": epoch.accuracy,
        "val accuracy": epoch.val_accuracy,
        "mean IU": epoch.val_mean_iu,
    }
    parts = [f"epoch {epoch.epoch:>{wide}}/{epochs}"]
    parts += [f"{name} {'-' if x is None else f'{x:.4f}'}" for name, x in figures.items()]
    return "  ".join([*parts, f"{epoch.seconds + epoch.val_seconds:.0f} s"])


def write_log(path: Path, history: Sequence[Epoch]) -> None:
    """Write epochs as CSV, a line each below their names."""
    with replacing(path) as beside, beside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(field.name for field in dataclasses.fields(Epoch))
        writer.writerows(dataclasses.astuple(epoch) for epoch in history)


def read_log(path: Path) -> list[Epoch]:
    """Return the epochs that `write_log` wrote.

    Raises
    ------
    OSError, ValueError
        In one line, for a file that is none of its.
    """
    columns = [field.name for field in dataclasses.fields(Epoch)]
    try:
        with path.open(newline="", encoding="utf-8") as file:
            header, *rows = csv.reader(file)
            if header != columns:
                raise ValueError(f"expected the columns {', '.join(columns)}")
            return [
                Epoch(int(number), *(float(text) if text else None for text in figures))
                for number, *figures in rows
            ]
    except (TypeError, ValueError, csv.Error) as error:
        raise ValueError(f"{path}: not a log of fcn train's: {error}") from None


def save_curves(path: Path, runs: dict[str, Sequence[Epoch]]) -> None:
    """Draw loss, pixel accuracy and mean IU by epochs.

    Parameters
    ----------
    path : Path
        The suffix names the format, which is PNG without one; the file appears whole or not at all.
    runs : dict of str to sequence of Epoch
        A colour each. The names are a legend where there are several.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(12, 3.6), layout="constrained")
    plots = {
        "loss": {"training": "loss"},
        "pixel accuracy": {"training": "accuracy", "validation": "val_accuracy"},
        "mean IU": {"validation": "val_mean_iu"},
    }
    for axes, (title, curves) in zip(figure.subplots(1, len(plots)), plots.items(), strict=True):
        for number, (name, history) in enumerate(runs.items()):
            for kind, attribute in curves.items():
                if all(getattr(epoch, attribute) is None for epoch in history):
                    continue  # nor an entry in the legend
                axes.plot(
                    [epoch.epoch for epoch in history],
                    [_or_nan(getattr(epoch, attribute)) for epoch in history],
                    color=f"C{number}",
                    linestyle="--" if kind == "training" else "-",
                    marker="." if len(history) < 30 else None,
                    label=f"{name}, {kind}" if len(runs) > 1 else kind,
                )
        axes.set(title=title, xlabel="epoch")
        losses = [y for drawn in axes.lines for y in drawn.get_ydata() if y > 0]
        if title != "loss":
            axes.set_ylim(0, 1)
        elif losses and max(losses) > 10 * min(losses):  # one run would flatten the others
            axes.set_yscale("log")
        else:
            axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(fontsize="small")
    with replacing(path) as beside:
        figure.savefig(beside, format=path.suffix[1:] or "png", dpi=120)


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value
