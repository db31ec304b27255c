"""`fcn.record`: what a run has come to, as lines, as CSV and as curves."""

import contextlib
import errno
import os

import matplotlib.figure
import numpy as np
import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fcn.record import Epoch, line, read_log, save_curves, write_log

figures = st.floats(0, 1) | st.floats(0, allow_infinity=False, allow_nan=False)
seconds = st.floats(0, 1e7)
missing = st.none()
epochs = st.builds(
    Epoch,
    st.integers(1, 10**6),
    *[missing | figures] * 4,
    *[seconds] * 2,
)

HISTORY = [
    Epoch(1, 1.5, 0.25, 0.5, 0.125, 100.0, 9.5),
    Epoch(2, 0.75, 0.5, 0.625, 0.25, 100.0, 9.5),
    Epoch(3, 0.5, 0.625, 0.75, 0.375, 99.0, 9.25),
]


@given(st.lists(epochs, max_size=5))
def test_a_log_comes_back_as_it_was(tmp_path_factory, history):
    """Every float to its last bit, and what is missing as missing."""
    path = tmp_path_factory.getbasetemp() / "log.csv"
    write_log(path, history)
    assert read_log(path) == history
    assert [repr(epoch) for epoch in read_log(path)] == [repr(epoch) for epoch in history]


def test_a_log_is_read_by_others(tmp_path):
    path = tmp_path / "log.csv"
    write_log(path, [HISTORY[0], Epoch(2, 0.1, None, None, None, 1.0, 2.0)])
    assert path.read_bytes().decode() == (
        "epoch,loss,accuracy,val_accuracy,val_mean_iu,seconds,val_seconds\n"
        "1,1.5,0.25,0.5,0.125,100.0,9.5\n"
        "2,0.1,,,,1.0,2.0\n"
    )
    write_log(path, HISTORY)  # in its place
    assert read_log(path) == HISTORY and os.listdir(tmp_path) == ["log.csv"]


@pytest.mark.parametrize(
    "text, said",
    [
        ("", "not enough values"),
        ("epoch,loss\n1,2\n", "expected the columns epoch, loss, accuracy, val_accuracy, "),
        ("{good}1,2,3\n", "missing 4 required positional arguments"),
        ("{good}1,,,,,1,1,1\n", "takes 8 positional arguments but 9 were given"),
        ("{good}one,,,,,1,1\n", "invalid literal for int"),
        ("{good}1,fast,,,,1,1\n", "could not convert string to float: 'fast'"),
        ("{good}1,\0,,,,1,1\n", "could not convert string to float"),
        ("{good}\xff", "'utf-8' codec can't decode"),
    ],
)
def test_what_is_no_log(tmp_path, text, said):
    path = tmp_path / "log.csv"
    write_log(path, [])
    path.write_bytes(text.replace("{good}", path.read_text()).encode("latin-1"))
    with pytest.raises(ValueError) as caught:
        read_log(path)
    assert str(caught.value).startswith(f"{path}: not a log of fcn train's: ")
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_lines():
    assert line(HISTORY[0], 3) == (
        "epoch 1/3  loss 1.5000  accuracy 0.2500  val accuracy 0.5000  mean IU 0.1250  110 s"
    )
    nothing = Epoch(7, None, None, None, None, 0.2, 0.1)
    assert line(nothing, 100) == (
        "epoch   7/100  loss -  accuracy -  val accuracy -  mean IU -  0 s"
    )
    assert line(Epoch(12, 0.0, 1.0, 1.0, 1.0, 59.4, 0.0), 12).startswith("epoch 12/12  loss 0.0000")


@given(epochs, st.integers(1, 10**6))
def test_a_line_is_one(epoch, total):
    text = line(epoch, total)
    assert "\n" not in text and "nan" not in text and "None" not in text
    assert f"{epoch.epoch}/{total}" in text


# The curves.


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are saved."""
    figures, save = [], matplotlib.figure.Figure.savefig

    def kept(figure, *given, **more):
        figures.append(figure)
        return save(figure, *given, **more)

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", kept)
    return figures


def curves(figure):
    """The points of every curve, by plot and label."""
    return {
        axes.get_title(): {
            each.get_label(): [(float(x), float(y)) for x, y in each.get_xydata()]
            for each in axes.get_lines()
        }
        for axes in figure.axes
    }


def pixels(path):
    with PIL.Image.open(path) as picture:
        picture.load()
        assert picture.format == "PNG" and min(picture.size) > 300
        return np.asarray(picture.convert("RGB"))


def test_curves_of_a_run(tmp_path, drawn):
    path = tmp_path / "curves.png"
    save_curves(path, {"": HISTORY})
    assert len(np.unique(pixels(path).reshape(-1, 3), axis=0)) > 20
    assert os.listdir(tmp_path) == ["curves.png"]
    assert curves(drawn[0]) == {
        "loss": {"training": [(1, 1.5), (2, 0.75), (3, 0.5)]},
        "pixel accuracy": {
            "training": [(1, 0.25), (2, 0.5), (3, 0.625)],
            "validation": [(1, 0.5), (2, 0.625), (3, 0.75)],
        },
        "mean IU": {"validation": [(1, 0.125), (2, 0.25), (3, 0.375)]},
    }
    loss, accuracy, iu = drawn[0].axes
    assert loss.get_ylim()[0] == 0 and loss.get_ylim()[1] > 1.5
    assert accuracy.get_ylim() == iu.get_ylim() == (0, 1)
    for axes in drawn[0].axes:
        assert axes.get_xlabel() == "epoch" and axes.get_legend() is not None
        ticks = axes.get_xticks()
        np.testing.assert_array_equal(ticks, ticks.round())
        kinds = {each.get_label(): each.get_linestyle() for each in axes.get_lines()}
        assert all((style == "--") == (kind == "training") for kind, style in kinds.items())


def test_curves_of_several_runs(tmp_path, drawn):
    """Each has a colour and a name, and as many epochs as it had."""
    other = [Epoch(n, 2.0, 0.1, 0.2, 0.3, 1.0, 1.0) for n in range(1, 41)]
    save_curves(tmp_path / "both.png", {"bilinear": HISTORY, "xavier": other})
    found = curves(drawn[0])
    assert found["pixel accuracy"].keys() == {
        f"{run}, {kind}" for run in ("bilinear", "xavier") for kind in ("training", "validation")
    }
    assert found["mean IU"]["bilinear, validation"] == [(1, 0.125), (2, 0.25), (3, 0.375)]
    assert found["mean IU"]["xavier, validation"] == [(n, 0.3) for n in range(1, 41)]
    for axes in drawn[0].axes:
        colours = {}
        for each in axes.get_lines():
            colours.setdefault(each.get_label().partition(",")[0], set()).add(each.get_color())
        assert [len(each) for each in colours.values()] == [1, 1]
        assert colours["bilinear"] != colours["xavier"]
        texts = [text.get_text() for text in axes.get_legend().get_texts()]
        assert texts == [each.get_label() for each in axes.get_lines()]


def test_one_epoch_is_a_point_that_is_seen(tmp_path, drawn):
    save_curves(tmp_path / "one.png", {"": HISTORY[:1]})
    save_curves(tmp_path / "none.png", {"": []})
    assert curves(drawn[0])["loss"] == {"training": [(1, 1.5)]}
    assert all(each.get_marker() == "." for axes in drawn[0].axes for each in axes.get_lines())
    assert (pixels(tmp_path / "one.png") != pixels(tmp_path / "none.png")).any()


def test_what_is_missing_is_a_gap(tmp_path, drawn):
    gap = Epoch(2, None, None, None, None, 1.0, 1.0)
    save_curves(tmp_path / "gap.png", {"": [HISTORY[0], gap, HISTORY[2]]})
    (first, second, third) = curves(drawn[0])["mean IU"]["validation"]
    assert (first, third) == ((1, 0.125), (3, 0.375)) and np.isnan(second[1])
    nothing = [Epoch(n, None, None, None, None, 1.0, 1.0) for n in (1, 2)]
    save_curves(tmp_path / "nothing.png", {"": nothing})
    pixels(tmp_path / "nothing.png")


def test_the_suffix_names_the_format(tmp_path):
    save_curves(tmp_path / "curves.svg", {"": HISTORY})
    assert "<svg" in (tmp_path / "curves.svg").read_text()
    save_curves(tmp_path / "curves", {"": HISTORY})
    pixels(tmp_path / "curves")
    with pytest.raises(ValueError, match="Format 'xyz' is not supported"):
        save_curves(tmp_path / "curves.xyz", {"": HISTORY})
    assert sorted(os.listdir(tmp_path)) == ["curves", "curves.svg"]


# What cannot be written.


def write_curves(path):
    save_curves(path, {"": HISTORY})


def write_epochs(path):
    write_log(path, HISTORY)


WRITE = pytest.mark.parametrize("write", [write_epochs, write_curves])


@WRITE
def test_where_nothing_can_be_written(tmp_path, write):
    """A folder by the name, no folder, a file in place of the folder: named, and nothing left."""
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "file").write_text("kept")
    for path in ("folder.png", "none/a.png", "file/a.png"):
        with pytest.raises(OSError) as caught:
            write(tmp_path / path)
        assert caught.value.filename == str(tmp_path / path)
        assert sorted(os.listdir(tmp_path)) == ["file", "folder.png"]
        assert not os.listdir(tmp_path / "folder.png")
    assert (tmp_path / "file").read_text() == "kept"


@WRITE
def test_a_folder_that_is_read_only(tmp_path, write):
    """Nothing, or to a superuser, whom no mode stops, all of it."""
    folder = tmp_path / "read only"
    folder.mkdir()
    folder.chmod(0o500)
    try:
        with contextlib.suppress(PermissionError):
            write(folder / "a.png")
        assert os.listdir(folder) in ([], ["a.png"])
        for path in folder.iterdir():
            assert read_log(path) == HISTORY if write is write_epochs else pixels(path).any()
    finally:
        folder.chmod(0o700)


@WRITE
def test_a_disk_that_is_full(tmp_path, write, monkeypatch):
    """What was there before is there still."""
    path = tmp_path / "a.png"
    path.write_text("before")

    def full(figure, beside, **more):
        beside.write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def broken(epoch):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", full)
    monkeypatch.setattr("fcn.record.dataclasses.astuple", broken)
    with pytest.raises(OSError) as caught:
        write(path)
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(path))
    assert os.listdir(tmp_path) == ["a.png"] and path.read_text() == "before"
