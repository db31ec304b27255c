"""The textbook's training experiments: what is varied, the runs, and what they came to.

A run is a command, ``python -m fcn train``, in a process of its own on one thread. As many run at
a time as there are cores: that takes the least processor time, and its bits are those of any
number of threads.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import hardware
from tables import markdown

from fcn.files import replacing
from fcn.record import Epoch, read_log, save_curves

TRAIN = (sys.executable, "-m", "fcn", "train")
#: What every run is told but for its data, its folder and what is varied.
COMMON = tuple(
    "--backbone mobilenet_v2 --weights imagenet --crop 96x128 --batch 4 --epochs 5".split()
)
RATE = "1e-3"
#: How a command ends whose loss is infinite or NaN, and how its one line begins.
DIVERGED = 2, "fcn: the loss is "


@dataclasses.dataclass(frozen=True)
class Run:
    """A run of an experiment.

    Attributes
    ----------
    kind : str
        What is compared; several seeds may be of one kind.
    varied : str
        The options that other runs do not have.
    """

    kind: str
    varied: str = ""

    @property
    def options(self) -> list[str]:
        """What `train` is told but for its data and its folder."""
        options = self.varied.split()
        return [*COMMON, *([] if "--lr" in options else ["--lr", RATE]), *options]

    @property
    def folder(self) -> str:
        """The name of its folder: experiments share the runs whose options are the same."""
        return self.varied.replace("--", "").replace(" ", "-") or "standard"


EXPERIMENTS = {
    "upsampling": (
        Run("bilinear"),
        Run("bilinear", "--seed 1"),
        Run("xavier", "--upsampling xavier"),
        Run("xavier", "--upsampling xavier --seed 1"),
    ),
    "heads": (
        Run("32s", "--head 32s"),
        Run("16s", "--head 16s"),
        Run("8s"),
    ),
    "rates": (
        Run("1e-5", "--lr 1e-5"),
        Run("1e-4", "--lr 1e-4"),
        Run("1e-3"),
        Run("1e-2", "--lr 1e-2"),
        Run("1e-1", "--lr 1e-1"),
    ),
}


def measured(name: str, data: Path, out: Path) -> dict[str, Any]:
    """Return the figures of an experiment; runs that are in `out` already are not run again."""
    runs, cores = EXPERIMENTS[name], hardware.cores()
    with concurrent.futures.ThreadPoolExecutor(cores) as pool:
        records = list(pool.map(lambda run: trained(run, data, out), runs))
    return {
        "common": shlex.join([*COMMON, "--lr", RATE]),
        "runs": [
            {"kind": run.kind, "varied": run.varied, **record}
            for run, record in zip(runs, records, strict=True)
        ],
    }


def trained(run: Run, data: Path, out: Path) -> dict[str, Any]:
    """Return what a run came to: of its record in `out`, else of the run itself.

    Raises
    ------
    ValueError
        Where the command fails, or its folder holds what is not a run that ended.
    """
    folder, record = out / run.folder, out / f"{run.folder}.json"
    command = [*TRAIN, "--data", str(data), *run.options, "--out", str(folder)]
    shown = shlex.join(["python", *command[1:]])
    if record.exists():
        known = json.loads(record.read_text(encoding="utf-8"))
        if known.pop("options") != run.options:
            raise ValueError(f"out: {folder} was run with other options: another --out is needed")
        return known
    if folder.exists():
        raise ValueError(f"out: {folder} holds a run that did not end: remove it to run it again")
    print(shown, flush=True)
    out.mkdir(parents=True, exist_ok=True)
    code, printed, times = finished(command)
    lines = printed.splitlines()
    last = lines[-1] if lines else ""
    diverged = code == DIVERGED[0] and last.startswith(DIVERGED[1])
    if code and not diverged:
        raise ValueError(f"{shown}: {last or 'nothing printed'} (exit code {code})")
    log = folder / "log.csv"
    found = {
        "trained": lines[0] if lines else "",
        "diverged": last.removeprefix("fcn: ") if diverged else None,
        "history": [dataclasses.asdict(e) for e in (read_log(log) if log.exists() else ())],
        **times,
    }
    with replacing(record) as beside:
        beside.write_text(json.dumps({"options": run.options, **found}), encoding="utf-8")
    return found


def finished(command: Sequence[str]) -> tuple[int, str, dict[str, float]]:
    """Run a command on one thread; return its exit code, what it printed and its times in s."""
    start = time.perf_counter()
    with tempfile.TemporaryFile() as printed:
        process = subprocess.Popen(
            command,
            stdout=printed,
            stderr=subprocess.STDOUT,
            env={**os.environ, "CONVARITH_NUM_THREADS": "1"},
        )
        _, status, used = os.wait4(process.pid, 0)  # of this child alone: others may run beside
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - start
        printed.seek(0)
        text = printed.read().decode(errors="replace")
    times = {"seconds": seconds, "cpu_seconds": used.ru_utime + used.ru_stime}
    return process.returncode, text, {name: round(value, 1) for name, value in times.items()}


def histories(result: Mapping[str, Any]) -> dict[str, list[Epoch]]:
    """Return the epochs of each run that has any, by what the run is called in the curve."""
    return {
        label(run): [Epoch(**epoch) for epoch in run["history"]]
        for run in result["runs"]
        if run["history"]
    }


def label(run: Mapping[str, Any]) -> str:
    """Return what a run is called: its kind, and its seed where that is varied."""
    _, found, seed = run["varied"].partition("--seed ")
    return run["kind"] + (f", seed {seed}" if found else "")


def draw(result: Mapping[str, Any], path: Path) -> None:
    """Draw the curves of an experiment's runs."""
    save_curves(path, histories(result))


def report(name: str, result: Mapping[str, Any]) -> str:
    """Return an experiment's table and what its figures come to."""
    shared = [run["history"] for run in result["runs"] if not run["diverged"]]
    epochs = max(map(len, shared), default=0)
    header = ["", "options", "loss", "val accuracy", "mean IU", "best", "CPU s"]
    rows = [_row(run) for run in result["runs"]]
    command = f"python -m fcn train --data DIR {result['common']} --out RUN"
    parts = [
        f"`{command}`, with the options in the table. It says: "
        f"“{result['runs'][-1]['trained']}”. Figures are those after {epochs} epochs, `best` is "
        "the greatest mean IU after any.",
        markdown(header, rows),
        f"![Loss, pixel accuracy and mean IU by epochs](../docs/experiments/{name}.png)",
        " ".join([ranking(result), *fates(result), times(result)]),
    ]
    return "\n\n".join(parts)


def _row(run: Mapping[str, Any]) -> list[str]:
    history = [Epoch(**epoch) for epoch in run["history"]]
    figures = ["–"] * 4
    if history and not run["diverged"]:
        last = history[-1]
        best = max((epoch.val_mean_iu or 0.0) for epoch in history)
        values = (last.loss, last.val_accuracy, last.val_mean_iu, best)
        figures = ["–" if value is None else f"{value:.3f}" for value in values]
    varied = f"`{run['varied']}`" if run["varied"] else ""
    return [label(run), varied, *figures, f"{run['cpu_seconds']:.0f}"]


def ranking(result: Mapping[str, Any]) -> str:
    """Return which kind is ahead of which in the end, by mean IU and by loss, in sentences."""
    ended = [run for run in result["runs"] if run["history"] and not run["diverged"]]
    if not ended:
        return "No run came to its end."
    sentences = []
    for name, figure, sign in (
        ("greatest mean IU", "val_mean_iu", -1),
        ("least training loss", "loss", 1),
    ):
        ends: dict[str, list[float]] = {}
        for run in ended:
            ends.setdefault(run["kind"], []).append(run["history"][-1][figure] or 0.0)
        means = {kind: statistics.fmean(values) for kind, values in ends.items()}
        first, *others = sorted(means, key=lambda kind: sign * means[kind])
        text = f"The {name} has {first}, {means[first]:.3f}"
        text += f", before {', '.join(f'{kind}, {means[kind]:.3f}' for kind in others)}"
        if len(ended) > len(ends):
            spread = max(max(values) - min(values) for values in ends.values())
            text += f": means of the seeds, which are {spread:.3f} apart at most"
        sentences.append(text + ".")
    return " ".join(sentences)


def fates(result: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each run that diverged."""
    return [
        f"{label(run)} diverged in epoch {len(run['history']) + 1}: {run['diverged']}."
        for run in result["runs"]
        if run["diverged"]
    ]


def times(result: Mapping[str, Any]) -> str:
    """Return what the runs took, in a sentence."""
    cores = result["machine"]["cores"]
    spent = sum(run["cpu_seconds"] for run in result["runs"])
    slowest = max(run["seconds"] for run in result["runs"])
    return (
        f"The {len(result['runs'])} runs took {spent:.0f} s of processor time, one thread each, "
        f"which on {cores} cores is {spent / cores / 60:.1f} min; beside the machine's other work "
        f"the longest of them took {slowest / 60:.1f} min."
    )
