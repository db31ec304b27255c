"""Pictures in, whatever is in the file, and overlays out."""

import numpy as np
import PIL.Image
import pytest
import skimage.data
from hypothesis import given, settings
from hypothesis import strategies as st

from fcn import overlay, pictures
from fcn.palette import Classes

NAMES = ("background", "red", "green", "blue")


def photograph(size=(60, 40)):
    return PIL.Image.fromarray(skimage.data.astronaut()).resize(size)


def test_the_overlay_is_the_photograph_with_colours():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (600, 50, 3), dtype=np.uint8)
    ids = np.zeros((600, 50), np.uint8)
    ids[100:400, 10:30] = 2  # over the border of two strips
    ids[500:] = 255
    classes = Classes.of(NAMES)
    drawn = overlay.drawn_over(pixels, ids, classes)
    found = ids == 2
    np.testing.assert_array_equal(drawn[~found], pixels[~found])
    inside = np.zeros_like(found)
    inside[101:399, 11:29] = True
    colour = classes.colours[2].astype(float)
    for where, part in ((inside, overlay.OPACITY), (found & ~inside, overlay.BORDER)):
        blend = pixels[where] * (1 - part) + colour * part
        assert np.abs(drawn[where] - blend).max() <= 1


@pytest.mark.parametrize("size", [(1, 1), (3, 700), (700, 3)])
@pytest.mark.parametrize("count", [1, 3, 60])
def test_legends_of_odd_sizes(tmp_path, size, count):
    names = ["\u3000", "猫" * 20, "\ud800b", *(f"class {i}" for i in range(57))][:count]
    ids = np.arange(size[0] * size[1]).reshape(size[::-1]) % count
    picture = PIL.Image.new("RGB", size)
    path = tmp_path / "a.overlay.png"
    overlay.save_overlay(path, picture, ids.astype(np.uint8), Classes.of(names))
    with PIL.Image.open(path) as written:
        assert written.height > size[1] and max(written.size) < 2000


def test_a_legend_of_void_alone(tmp_path):
    path = tmp_path / "a.png"
    ids = np.full((4, 4), 255, np.uint8)
    overlay.save_overlay(path, PIL.Image.new("RGB", (4, 4)), ids, Classes.of(NAMES))
    assert path.is_file()


def test_transparent_pixels_are_shown_over_white(tmp_path):
    picture = PIL.Image.new("RGBA", (2, 1), (10, 20, 30, 0))
    picture.putpixel((1, 0), (10, 20, 30, 255))
    picture.save(tmp_path / "a.png")
    assert np.asarray(pictures.read(tmp_path / "a.png")).tolist() == [[[255] * 3, [10, 20, 30]]]


def test_postscript_is_no_picture(tmp_path):
    """Pillow would have another program run it."""
    path = tmp_path / "a.png"
    path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n%%EndComments\n")
    with pytest.raises(pictures.Unreadable, match="not a picture"):
        pictures.read(path)


@pytest.mark.parametrize("kind", ["png", "jpg", "gif", "tif", "bmp", "webp", "ppm", "tga", "ico"])
@given(data=st.data())
@settings(max_examples=25)
def test_damaged_pictures(tmp_path_factory, kind, data):
    """Bytes changed, cut off or put in: a picture, or one error, never anything else."""
    path = tmp_path_factory.mktemp("damaged") / f"a.{kind}"
    photograph((16, 16)).save(path)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        match data.draw(st.sampled_from(["change", "cut", "insert"])):
            case "change":
                content[at] = data.draw(st.integers(0, 255))
            case "cut":
                del content[at + 1 :]
            case "insert":
                content[at:at] = data.draw(st.binary(max_size=8))
    path.write_bytes(content)
    try:
        assert pictures.read(path).mode == "RGB"
    except pictures.Unreadable as error:
        assert str(error).startswith(f"{path}: ") and "\n" not in str(error)
    except MemoryError:
        pass  # a size that is none of its own
