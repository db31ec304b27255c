"""Names and colours of classes, and lists of them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fcn import voc
from fcn.palette import colormap
from fcn.voc import VOC_CLASSES, VOC_COLORMAP, Classes


def test_vocs_colours():
    assert len(VOC_CLASSES) == len(VOC_COLORMAP) == 21
    assert VOC_COLORMAP[:4] == ((0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0))
    assert VOC_COLORMAP[VOC_CLASSES.index("tv/monitor")] == (0, 64, 128)
    everything = colormap()
    assert len(np.unique(everything, axis=0)) == 256
    assert tuple(everything[255]) == voc.VOID_COLOUR == (224, 224, 192)


@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 255))
@settings(max_examples=40)
def test_colours_are_told_apart(seed, count):
    rng = np.random.default_rng(seed)
    colours = np.unique(rng.integers(0, 256, (2000, 3), dtype=np.uint8), axis=0)
    colours = rng.permutation(colours)[: count + 1]
    names = tuple(f"c{i}" for i in range(count))
    classes = Classes(names, colours[:-1], tuple(colours[-1].tolist()))
    ids = rng.integers(0, count, (7, 9)).astype(np.uint8)
    ids[rng.random(ids.shape) < 0.2] = 255
    np.testing.assert_array_equal(classes.ids(classes.table()[ids]), ids)


def test_as_many_classes_as_there_may_be():
    classes = Classes.of([f"thing {i}" for i in range(255)])
    assert len(classes) == 255 and classes.colours[0].tolist() == [0, 0, 0]


def test_a_list_of_classes(tmp_path):
    path = tmp_path / "classes.txt"
    path.write_text("\ufeff# of a town\nsky\n\ntraffic light\n", encoding="utf-8")
    classes = Classes.read(path)
    assert classes.names == ("sky", "traffic light") and not classes.coloured
    assert classes.colours.tolist() == [[128, 0, 0], [0, 128, 0]]
    path.write_text("sky 128 128 128\ntraffic light 0, 0, 7\nvoid 0 0 0\n")
    classes = Classes.read(path)
    assert classes.names == ("sky", "traffic light") and classes.coloured
    assert classes.colours.tolist() == [[128] * 3, [0, 0, 7]] and classes.void_colour == (0, 0, 0)
    path.write_text("\n".join(VOC_CLASSES))
    assert Classes.read(path).coloured


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "classes: expected 1 to 255, got 0"),
        ("\n".join(map(str, range(256))), "classes: expected 1 to 255, got 256"),
        ("a\nb\na\n", "classes: expected each name once, got 'a' twice"),
        ("a 1 2 3\nb 1 2 3\n", r"classes: expected each colour once, got \(1, 2, 3\) twice"),
        ("a 224 224 192\n", "classes: expected each colour once"),
        ("a 1 2 3\nb\n", "expected a colour for each class or for none"),
        ("a 1 2 256\n", "line 1: expected a colour of 0 to 255, got 1 2 256"),
        ("a\nvoid\n", "line 2: expected one line 'void R G B'"),
        ("a\nvoid 1 2 3\nVoid 4 5 6\n", "line 3: expected one line 'void R G B'"),
    ],
)
def test_bad_lists_of_classes(tmp_path, text, problem):
    path = tmp_path / "classes.txt"
    path.write_text(text)
    with pytest.raises(ValueError, match=problem) as caught:
        Classes.read(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_a_list_of_other_bytes(tmp_path):
    (tmp_path / "classes.txt").write_bytes(b"\xff\xfe\x00a")
    with pytest.raises(ValueError, match="expected text in UTF-8"):
        Classes.read(tmp_path / "classes.txt")
