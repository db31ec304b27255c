"""``python -m fcn train``, on a small data set made here."""

import re

import numpy as np
import pytest

import fcn
import fcn.training
from fcn import backbones, record
from fcn.__main__ import main


@pytest.fixture
def train(labelled_pictures, tmp_path, capsys):
    """Run the command; return its exit code, what it printed, and the run's folder."""

    def train(*given, out=tmp_path / "run"):
        network = ["--data", str(labelled_pictures), "--backbone", "mobilenet_v2", "--head", "32s"]
        code = main(["train", *network, "--crop", "32x32", "--out", str(out), *given])
        return code, capsys.readouterr(), out

    return train


def test_it_learns(train, labelled_pictures, capsys):
    """Dark from bright; and what it says of itself is what `evaluate` finds."""
    code, printed, out = train("--crop", "40x40", "--epochs", "6", "--batch", "1", "--lr", "1e-3")
    assert code == 0 and printed.err == ""
    assert sorted(path.name for path in out.iterdir()) == [
        "best.safetensors",
        "checkpoint.safetensors",
        "curves.png",
        "last.safetensors",
        "log.csv",
    ]
    history = record.read_log(out / "log.csv")
    assert [epoch.epoch for epoch in history] == [1, 2, 3, 4, 5, 6]
    losses = [epoch.loss for epoch in history]
    assert losses[-1] < 0.7 * losses[0] and history[-1].accuracy > 0.75
    lines = printed.out.splitlines()
    assert lines[0] == (
        "mobilenet_v2 32s, 2 classes: 2,242,818 of 2,242,818 parameters trained, on 3 pictures in "
        "3 steps an epoch; validated on 2"
    )
    epochs = [text for text in lines if text.startswith("epoch")]
    assert [text.partition(", about ")[0] for text in epochs] == [
        record.line(epoch, 6) for epoch in history
    ]
    assert all(re.search(r", about .* left$", text) for text in epochs[:-1])
    best = max(epoch.val_mean_iu for epoch in history)
    assert lines[-1].startswith(f"best mean IU {best:.4f}, of epoch ")

    model = fcn.load(out / "best.safetensors")
    assert model.classes == ("dark", "bright")
    for name, epoch in (
        ("best", next(epoch for epoch in history if epoch.val_mean_iu == best)),
        ("last", history[-1]),
    ):
        weights = str(out / f"{name}.safetensors")
        assert main(["evaluate", "--data", str(labelled_pictures), "--weights", weights]) == 0
        evaluated = capsys.readouterr().out
        assert f"mean IU                {epoch.val_mean_iu:.4f}\n" in evaluated
        assert f"pixel accuracy         {epoch.val_accuracy:.4f}\n" in evaluated


@pytest.mark.parametrize(
    "split, lengths", [(["train", "val"], (3, 2)), (["val,train"], (2, 3)), (["val"], (2, 2))]
)
def test_splits(split, lengths, train):
    code, printed, _ = train("--epochs", "1", "--split", *split)
    assert code == 0
    trained, validated = lengths
    assert f"on {trained} pictures in 1 steps" in printed.out
    assert printed.out.splitlines()[0].endswith(f"validated on {validated}")


def test_groups(train, labelled_pictures):
    """A frozen backbone keeps its bits, its statistics too, and the rest moves."""
    before = fcn.build("mobilenet_v2", ["dark", "bright"], "32s", seed=5).graph.arrays()
    frozen = ["--lr-backbone", "0", "--lr-upsampling", "0", "--lr-bias", "2", "--seed", "5"]
    code, printed, out = train("--epochs", "1", *frozen)
    assert code == 0
    assert "2 classes: 2,562 of 2,242,818 parameters trained" in printed.out
    after = fcn.load(out / "last.safetensors").graph.arrays()
    moved = {name for name in before if not np.array_equal(before[name], after[name])}
    assert moved == {"score32/kernel", "score32/bias"}
    # Adam's first step is the rate in every entry, but where the gradient is about its epsilon.
    for name, rate in (("score32/kernel", 1e-4), ("score32/bias", 2e-4)):
        steps = np.abs(before[name] - after[name])
        assert steps.max() == pytest.approx(rate, rel=1e-2)
    assert all(
        name.partition("/")[0] in backbones.names("mobilenet_v2")
        for name in set(before) - moved - {"upscore/kernel"}
    )


def test_whole_pictures_and_padding(train, labelled_pictures, tmp_path):
    code, printed, _ = train("--epochs", "1", "--crop", "none", "--batch", "3")
    assert code == 0 and "on 3 pictures in 1 steps" in printed.out
    code, printed, _ = train("--epochs", "1", "--crop", "44x44", out=tmp_path / "cropped")
    assert code == 0 and "on 1 pictures" in printed.out
    assert printed.err == "fcn: left out 2 of 'train', smaller than the crop: see --pad\n"
    code, printed, _ = train("--epochs", "1", "--crop", "64x64", "--pad", out=tmp_path / "padded")
    assert code == 0 and "on 3 pictures" in printed.out
    code, printed, out = train("--epochs", "1", "--crop", "65x41", out=tmp_path / "large")
    assert code == 2 and not out.exists()
    assert printed.err == (
        "fcn: crop: expected at most 44 x 44, the largest picture of split 'train', got 65 x 41\n"
    )


def test_sgd_and_its_options(train, tmp_path):
    sgd = ["--optimizer", "sgd", "--momentum", "0.5", "--weight-decay", "0.01", "--lr", "0.01"]
    code, _, out = train("--epochs", "1", "--upsampling", "xavier", *sgd)
    assert code == 0 and (out / "last.safetensors").exists()
    code, printed, _ = train("--momentum", "0.5", out=tmp_path / "adam")
    assert code == 2
    assert printed.err == "fcn: momentum: expected none with adam, got 0.5\n"


def test_pictures_at_fault(train, labelled_pictures, tmp_path):
    path = labelled_pictures / "JPEGImages" / "p1.png"
    path.write_bytes(path.read_bytes()[:300])
    code, printed, _ = train("--epochs", "1")
    assert code == 0 and "on 2 pictures" in printed.out
    assert printed.err.startswith(f"fcn: skipped {path}: ") and printed.err.count("\n") == 1
    code, printed, out = train("--strict", out=tmp_path / "strict")
    assert code == 2 and printed.err.startswith(f"fcn: {path}: ") and not out.exists()


def test_a_run_that_diverges(train, monkeypatch):
    losses = iter([1.0, 2.0, float("nan")])
    original = fcn.training.softmax_cross_entropy

    def growing(*given):
        return next(losses), original(*given)[1]

    monkeypatch.setattr(fcn.training, "softmax_cross_entropy", growing)
    code, printed, out = train("--epochs", "3", "--batch", "1")
    assert code == 2
    assert printed.err == "fcn: the loss is nan at step 3: a lower --lr may help\n"
    assert (out / "checkpoint.safetensors").exists()


@pytest.mark.parametrize(
    "given, error",
    [
        (["--split", "train", "test"], "expected a split of train, val, got 'test'"),
        (["--split", "a", "b", "c"], "split: expected one name or two, got a b c"),
        (["--lr", "nan"], "lr: expected a number from 0 to 1e\\+06, got nan"),
        (["--lr", "0"], "lr: expected more than 0"),
        (["--seed", "-1"], "seed: expected an integer"),
        (["--fc"], "fc: expected False for mobilenet_v2"),
        (["--weights", "none.pth"], "No such file or directory: 'none.pth'"),
        (["--out", "pyproject.toml"], "out: expected a folder, got the file pyproject.toml"),
    ],
)
def test_refusals(given, error, train):
    code, printed, _ = train(*given)
    assert code == 2 and printed.err.startswith("fcn: ") and printed.err.count("\n") == 1
    assert re.search(error, printed.err)


@pytest.mark.parametrize("given", [["--crop", "3"], ["--epochs", "0"], ["--save-every", "soon"]])
def test_what_the_parser_refuses(given, train, capsys):
    with pytest.raises(SystemExit) as ended:
        train(*given)
    assert ended.value.code == 2
    assert f"argument {given[0]}: " in capsys.readouterr().err
