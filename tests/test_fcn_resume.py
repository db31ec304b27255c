"""A training run stopped at any moment goes on to the bits of one that was not."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest

import fcn.session
from fcn import checkpoint, safetensors_file
from fcn.__main__ import main

#: Runs ``python -m fcn`` and dies where it is told to: argv is how, how often that may pass, and
#: the command's arguments.
DRIVER = """
import os, resource, signal, sys
from pathlib import Path
how, times = sys.argv[1], int(sys.argv[2])
import fcn.files, fcn.session
def die():
    os.kill(os.getpid(), signal.SIGKILL)
if how == "rename":  # the new checkpoint is written, the old one still in its place
    replace = os.replace
    def counted(source, target):
        global times
        if Path(target).name == "checkpoint.safetensors":
            times -= 1
            if times < 0:
                die()
        replace(source, target)
    fcn.files.os.replace = counted
if how in ("write", "full"):  # the kernel ends the write at this many bytes
    if how == "write":  # and the process with it; Python would ignore the signal
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    save = fcn.session.Session.save
    def limited(self):
        global times
        times -= 1
        if times < 0:
            resource.setrlimit(resource.RLIMIT_FSIZE, (12_345_678, resource.RLIM_INFINITY))
        save(self)
    fcn.session.Session.save = limited
if how == "step":
    take = fcn.training.Trainer.step
    def counted(*arguments):
        global times
        times -= 1
        if times < 0:
            die()
        return take(*arguments)
    fcn.training.Trainer.step = counted
from fcn.__main__ import main
sys.exit(main(sys.argv[3:]))
"""


def arguments(data, out, *more):
    network = ["--backbone", "mobilenet_v2", "--head", "8s", "--seed", "3"]
    how = ["--crop", "40x40", "--batch", "1", "--epochs", "2", "--save-every", "0"]
    return ["train", "--data", str(data), *network, *how, "--out", str(out), *more]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The arrays of an uninterrupted run, by optimizer; each is trained once."""
    runs = {}

    def whole(data, optimizer):
        if optimizer not in runs:
            out = tmp_path_factory.mktemp("whole")
            assert main(arguments(data, out, "--optimizer", optimizer)) == 0
            runs[optimizer] = contents(out)
        return runs[optimizer]

    return whole


def contents(out):
    """Return everything of a run but what it took."""
    arrays, metadata = safetensors_file.read(out / "checkpoint.safetensors")
    progress = json.loads(metadata.pop("progress"))
    log = (out / "log.csv").read_text().splitlines()
    weights = [(out / f"{name}.safetensors").read_bytes() for name in ("best", "last")]
    history = [
        {key: value for key, value in epoch.items() if "seconds" not in key}
        for epoch in progress["history"]
    ]
    assert progress["steps"] == 6 and progress["sums"]["steps"] == 0
    recipe = {**json.loads(metadata.pop("recipe")), "data": None}
    return {
        "arrays": {name: array.tobytes() for name, array in arrays.items()},
        "metadata": metadata,
        "recipe": recipe,
        "history": history,
        "weights": weights,
        "log": [line.split(",")[:5] for line in log],
    }


def killed(how, times, data, out, *more):
    command = [sys.executable, "-c", DRIVER, how, str(times), *arguments(data, out, *more)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


@pytest.mark.skipif(os.name != "posix", reason="kills processes as POSIX has it")
@pytest.mark.parametrize(
    "how, times, optimizer",
    [("rename", 3, "adam"), ("write", 4, "adam"), ("step", 4, "sgd")],
)
def test_killed(how, times, optimizer, labelled_pictures, tmp_path, whole, capsys):
    """By SIGKILL between two steps, in the middle of a write, and between write and rename."""
    out = tmp_path / "run"
    ended = killed(how, times, labelled_pictures, out, "--optimizer", optimizer)
    assert ended.returncode == -(signal.SIGXFSZ if how == "write" else signal.SIGKILL), ended.stderr
    leftovers = [path for path in out.iterdir() if path.name.startswith(".")]
    assert len(leftovers) == (0 if how == "step" else 1)
    if how == "write":
        assert leftovers[0].stat().st_size == 12_345_678
    _, _, _, progress = checkpoint.load(out / "checkpoint.safetensors")
    assert 0 < progress.steps < 6
    assert main(["train", "--out", str(out), "--resume"]) == 0
    assert contents(out) == whole(labelled_pictures, optimizer)
    assert not [path for path in out.iterdir() if path.name.startswith(".")]


@pytest.mark.skipif(os.name != "posix", reason="limits files as POSIX has it")
def test_full_disk(labelled_pictures, tmp_path, whole):
    out = tmp_path / "run"
    ended = killed("full", 4, labelled_pictures, out)
    assert ended.returncode == 2
    path = out / "checkpoint.safetensors"
    assert re.fullmatch(rf"fcn: \[Errno \d+\] [\w ]+: '{path}'\n", ended.stderr)
    assert not [path for path in out.iterdir() if path.name.startswith(".")]
    assert main(["train", "--out", str(out), "--resume"]) == 0
    assert contents(out) == whole(labelled_pictures, "adam")


@pytest.mark.parametrize(
    "number, moment", [(signal.SIGINT, "step"), (signal.SIGTERM, "validation")]
)
def test_asked_to_stop(number, moment, labelled_pictures, tmp_path, whole, monkeypatch, capsys):
    """The step, or the picture, is ended, and a checkpoint written."""
    out, calls = tmp_path / "run", []
    place = {
        "step": (fcn.session.Trainer, "step"),
        "validation": (fcn.session.Confusion, "add"),
    }[moment]
    original = getattr(*place)

    def interrupted(*given):
        calls.append(given)
        if len(calls) == 2:
            signal.raise_signal(number)
        return original(*given)

    before = signal.getsignal(number)
    with monkeypatch.context() as patch:
        patch.setattr(*place, interrupted)
        given = arguments(labelled_pictures, out)
        given[given.index("--save-every") + 1] = "1000"
        assert main(given) == 130
    assert signal.getsignal(number) is before
    assert capsys.readouterr().err == f"fcn: stopped; --resume goes on with {out}\n"
    progress = checkpoint.load(out / "checkpoint.safetensors")[-1]
    assert (progress.steps, progress.sums.steps) == ((2, 2) if moment == "step" else (3, 3))
    assert main(["train", "--out", str(out), "--resume"]) == 0
    assert contents(out) == whole(labelled_pictures, "adam")


def test_more_epochs_and_other_places(labelled_pictures, tmp_path, whole, capsys):
    out = tmp_path / "run"
    assert main([*arguments(labelled_pictures, out), "--epochs", "1"]) == 0
    moved = tmp_path / "elsewhere"
    shutil.move(labelled_pictures, moved)
    assert main(arguments(moved, out, "--resume")) == 0
    assert contents(out) == whole(moved, "adam")
    capsys.readouterr()
    assert main(arguments(moved, out, "--resume")) == 0  # which is done
    assert "loss" not in capsys.readouterr().out
    assert contents(out) == whole(moved, "adam")


@pytest.mark.parametrize("name", ["best.safetensors", "last.safetensors", "log.csv", "curves.png"])
def test_a_run_writes_over_nothing(labelled_pictures, tmp_path, capsys, name):
    out = tmp_path / "run"
    out.mkdir()
    (out / name).write_bytes(b"mine")
    assert main([*arguments(labelled_pictures, out), "--epochs", "1"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"fcn: out: {out / name} is there already") and error.count("\n") == 1
    assert (out / name).read_bytes() == b"mine" and len(list(out.iterdir())) == 1


def test_what_cannot_be_resumed(labelled_pictures, tmp_path, capsys):
    def refused(*given):
        assert main(["train", "--out", str(out), *given]) == 2
        printed = capsys.readouterr()
        assert printed.err.startswith("fcn: ") and printed.err.count("\n") == 1
        assert not printed.out
        return printed.err[5:-1]

    out = tmp_path / "run"
    path = out / "checkpoint.safetensors"
    assert refused("--resume") == f"resume: expected a run in {out}, got no {path}"
    assert main([*arguments(labelled_pictures, out), "--epochs", "1"]) == 0
    capsys.readouterr()
    held = path.read_bytes()
    assert refused("--data", str(labelled_pictures)) == (
        f"out: {out} holds a run: --resume goes on with it, another folder begins another"
    )
    assert refused("--resume", "--lr", "0.5") == "lr: expected 0.0001, as the run has, got 0.5"
    assert refused("--resume", "--batch", "2") == "batch: expected 1, as the run has, got 2"
    listing = labelled_pictures / "ImageSets" / "Segmentation" / "train.txt"
    listing.write_text("p0\np1\n")
    assert refused("--resume") == (
        f"data: expected the run's own pictures, got others in {labelled_pictures}"
    )
    listing.write_text("p0\np1\np2\n")
    assert path.read_bytes() == held

    shutil.copy(out / "last.safetensors", path)  # a model, which is no run
    assert refused("--resume") == (
        f"{path}: not a checkpoint of fcn train's: "
        "format: expected 'convarith.fcn.run', got 'convarith.fcn'"
    )
    for cut in (0, 4, 1000, len(held) - 1):
        path.write_bytes(held[:cut])
        assert refused("--resume").startswith(f"{path}: not a safetensors file: ")
    path.write_bytes(b"not a checkpoint")
    assert refused("--resume").startswith(f"{path}: not a safetensors file: ")


def test_forged_checkpoints(labelled_pictures, tmp_path):
    """Every entry of the metadata and every array is looked at before anything is trained."""
    out = tmp_path / "run"
    assert main([*arguments(labelled_pictures, out), "--epochs", "1"]) == 0
    path = out / "checkpoint.safetensors"
    arrays, metadata = safetensors_file.read(path)
    checkpoint.load(path)
    recipe, progress = json.loads(metadata["recipe"]), json.loads(metadata["progress"])
    slot = next(name for name in arrays if name.startswith("state/mean/"))
    without = {name: array for name, array in arrays.items() if name != slot}
    for forged, why in [
        ((without, metadata), "state: expected the entries"),
        (({**arrays, slot: arrays[slot][:1]}, metadata), "state: "),
        (({**arrays, slot: arrays[slot].astype(np.float64)}, metadata), "got float64"),
        (({**arrays, "more/of": arrays[slot]}, metadata), "expected weights/ and state/"),
        ((arrays, {**metadata, "version": "2"}), "version: expected '1', got '2'"),
        ((arrays, {**metadata, "progress": "{"}), "progress: expected JSON"),
        *(
            ((arrays, {**metadata, "progress": json.dumps({**progress, **change})}), why)
            for change, why in [
                ({"steps": -1}, "steps: expected an integer"),
                ({"data": 3}, "progress: expected text"),
                ({"sums": []}, "sums: expected a mapping"),
                ({"sums": {**progress["sums"], "pixels": "many"}}, "sums: pixels: expected int"),
                ({"history": {}}, "history: expected a list"),
                ({"history": progress["history"] * 2}, "history: expected epochs 1, 2"),
                ({"extra": 1}, "'extra' unknown"),
            ]
        ),
        *(
            ((arrays, {**metadata, "recipe": json.dumps({**recipe, **change})}), why)
            for change, why in [
                ({"lr": "fast"}, "lr: expected a number"),
                ({"backbone": "vgg19"}, "backbone: expected one of"),
                ({"lr_backbone": 0.0}, "state: "),  # then there is too much of it
                ({"optimizer": "sgd"}, "state: "),
                ({"crop": [3]}, "crop: expected height and width"),
            ]
        ),
    ]:
        safetensors_file.write(path, *forged)
        with pytest.raises(ValueError, match=re.escape(str(path))) as caught:
            checkpoint.load(path)
        assert why in str(caught.value) and "\n" not in str(caught.value)
