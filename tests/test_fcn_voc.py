"""Data sets in Pascal VOC's layout, whole and at fault."""

import hashlib

import numpy as np
import PIL.Image
import pytest

from fcn import pictures, voc
from fcn.voc import VOC_CLASSES, Classes, Dataset


class Folder:
    """A data set on disk that tests put pictures into."""

    def __init__(self, root, classes=None):
        self.root, self.rng = root, np.random.default_rng(0)
        for part in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
            (root / part).mkdir(parents=True)
        if classes is not None:
            (root / "classes.txt").write_text(classes, encoding="utf-8")

    def add(self, name, size=(40, 50), *, labels=None, mode="P", classes=None):
        """Write a picture and its mask, and return the labels."""
        pixels = self.rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        PIL.Image.fromarray(pixels).save(self.image(name), quality=95)
        if labels is None:
            labels = self.rng.choice([0, 1, 2, 255], size=size).astype(np.uint8)
        mask = PIL.Image.fromarray(labels)
        if mode != "L":
            table = (classes or Classes.of(VOC_CLASSES)).table()
            mask.putpalette(table.tobytes())
        mask.convert(mode).save(self.mask(name))
        return labels

    def image(self, name):
        return self.root / "JPEGImages" / f"{name}.jpg"

    def mask(self, name):
        return self.root / "SegmentationClass" / f"{name}.png"

    def split(self, name, *names):
        path = self.root / "ImageSets" / "Segmentation" / f"{name}.txt"
        path.write_text("".join(f"{line}\n" for line in names))


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path / "data")


@pytest.fixture
def many(folder):
    names = [f"picture{number}" for number in range(20)]
    for number, name in enumerate(names):
        folder.add(name, (30 + number, 40 + 2 * number))
    folder.split("train", *names)
    return folder


# What is read.


@pytest.mark.parametrize("mode", ["P", "L", "RGB", "RGBA"])
def test_masks_of_every_mode(folder, mode):
    labels = folder.add("a", mode=mode)
    folder.split("val", "a")
    data = Dataset(folder.root, "val", None)
    sample = data[0]
    assert (sample.name, sample.image.shape, sample.image.dtype) == ("a", (40, 50, 3), np.uint8)
    np.testing.assert_array_equal(sample.image, pictures.read(folder.image("a")))
    assert sample.labels.dtype == np.uint8
    np.testing.assert_array_equal(sample.labels, labels)
    assert data.classes.names == VOC_CLASSES and not data.skipped and not data.small


def test_a_palette_in_another_order(folder):
    """As programs write it that leave out what is not used; the colours are the classes'."""
    labels = folder.add("a", labels=np.array([[0, 7, 255], [12, 7, 0]], np.uint8), size=(2, 3))
    with PIL.Image.open(folder.mask("a")) as mask:
        mask.convert("RGB").quantize(4).save(folder.mask("a"))
    with PIL.Image.open(folder.mask("a")) as mask:
        assert mask.mode == "P" and np.asarray(mask).max() == 3
    folder.split("val", "a")
    np.testing.assert_array_equal(Dataset(folder.root, "val", None)[0].labels, labels)


def test_a_palette_of_other_colours_says_nothing(folder):
    labels = folder.add("a", labels=np.array([[0, 1, 2]], np.uint8), size=(1, 3))
    mask = PIL.Image.fromarray(labels)
    mask.putpalette(np.array([[128, 0, 0], [0, 0, 0], [1, 2, 3]], np.uint8).tobytes())
    mask.save(folder.mask("a"))
    folder.split("val", "a")
    np.testing.assert_array_equal(Dataset(folder.root, "val", None)[0].labels, labels)


def test_classes_of_its_own(tmp_path):
    folder = Folder(tmp_path, "sky 128 128 128\nroad 128 64 128\ncar 64 0 128\nvoid 0 0 0\n")
    classes = Classes.read(tmp_path / "classes.txt")
    labels = folder.add("a", mode="RGB", classes=classes)
    folder.split("val", "a")
    np.testing.assert_array_equal(Dataset(tmp_path, "val", None)[0].labels, labels)


def test_pictures_in_png(folder):
    folder.add("a")
    folder.split("val", "a")
    with PIL.Image.open(folder.image("a")) as picture:
        picture.save(folder.image("a").with_suffix(".png"))
    folder.image("a").unlink()
    assert len(Dataset(folder.root, "val", None)) == 1


def test_a_class_that_there_is_not(folder):
    labels = np.zeros((40, 50), np.uint8)
    labels[3, 7] = 21
    folder.add("a", labels=labels)
    folder.split("val", "a")
    with pytest.raises(ValueError) as caught:
        Dataset(folder.root, "val", None)
    expected = "expected class ids below 21 or 255, got 21 at row 3, column 7"
    assert str(caught.value) == f"{folder.mask('a')}: {expected}"


def test_a_colour_that_there_is_not(folder):
    folder.add("a", mode="RGB")
    with PIL.Image.open(folder.mask("a")) as mask:
        mask.putpixel((7, 3), (1, 2, 3))
        mask.save(folder.mask("a"))
    folder.split("val", "a")
    with pytest.raises(ValueError) as caught:
        Dataset(folder.root, "val", None)
    expected = "colour (1, 2, 3) at row 3, column 7 is none of the 21 classes'"
    assert str(caught.value) == f"{folder.mask('a')}: {expected}"


def test_masks_in_colours_that_nobody_knows(tmp_path):
    folder = Folder(tmp_path, "sky\nroad\ncar\n")
    folder.add("a", mode="RGB")
    folder.split("val", "a")
    with pytest.raises(ValueError, match="a mask in RGB needs the classes' colours"):
        Dataset(tmp_path, "val", None)


def test_masks_of_no_known_mode(folder):
    folder.add("a")
    PIL.Image.new("LA", (50, 40)).save(folder.mask("a"))
    folder.split("val", "a")
    with pytest.raises(ValueError, match="expected a mask in palette, grey or RGB, got LA"):
        Dataset(folder.root, "val", None)


# What is at fault.


@pytest.fixture
def faulty(folder):
    """Return a data set of five, four of which are at fault, with what to say of each."""
    for name in ("good", "none", "cut", "other", "unmasked"):
        folder.add(name)
    folder.image("none").unlink()
    folder.image("cut").write_bytes(folder.image("cut").read_bytes()[:300])
    PIL.Image.new("P", (50, 41)).save(folder.mask("other"))
    folder.mask("unmasked").unlink()
    folder.split("val", "none", "cut", "good", "other", "unmasked")
    return folder, {
        "none": f"{folder.image('none')}: No such file",
        "cut": f"{folder.image('cut')}: not a whole picture",
        "other": f"{folder.mask('other')}: expected 40 x 50 pixels as other.jpg has, got 41 x 50",
        "unmasked": f"{folder.mask('unmasked')}: No such file",
    }


def test_what_is_at_fault_is_named_and_skipped(faulty):
    folder, problems = faulty
    data = Dataset(folder.root, "val", None)
    assert data.names == ["good"] and len(data) == 1
    assert list(data.skipped) == list(problems)
    for name, problem in problems.items():
        assert data.skipped[name].startswith(problem)


@pytest.mark.parametrize("name", ["none", "cut", "other", "unmasked"])
def test_or_refused(faulty, name):
    folder, problems = faulty
    folder.split("val", "good", name)
    with pytest.raises(ValueError) as caught:
        Dataset(folder.root, "val", None, strict=True)
    assert str(caught.value).startswith(problems[name])


def test_nothing_left(faulty):
    folder, problems = faulty
    folder.split("val", "none", "cut")
    with pytest.raises(ValueError, match="split 'val' has no whole picture, the first: "):
        Dataset(folder.root, "val")


def test_another_layout(tmp_path, folder):
    with pytest.raises(ValueError, match=f"^{tmp_path}: expected Pascal VOC's layout"):
        Dataset(tmp_path, "val")
    folder.split("train", "a")
    folder.split("trainval", "a")
    with pytest.raises(ValueError, match="expected a split of train, trainval, got 'val'"):
        Dataset(folder.root, "val")
    with pytest.raises(ValueError, match="expected a split of"):
        Dataset(folder.root, "../Segmentation/train")


@pytest.mark.parametrize("name", ["../a", "/etc/a", "x/../../a", "a\0b"])
def test_names_that_lead_elsewhere(folder, name):
    folder.split("val", name)
    with pytest.raises(ValueError, match="expected names of pictures, got"):
        Dataset(folder.root, "val")


def test_names_that_come_twice_or_not_at_all(folder):
    folder.split("val", "a", "b", "a")
    with pytest.raises(ValueError, match="expected each name once, got 'a' twice"):
        Dataset(folder.root, "val")
    folder.split("val", "", " ")
    with pytest.raises(ValueError, match="expected names of pictures, got none"):
        Dataset(folder.root, "val")


# Crops and their order.


def test_pictures_smaller_than_the_crop(many):
    data = Dataset(many.root, "train", (40, 50))
    assert data.names == [f"picture{number}" for number in range(10, 20)]
    assert data.small == [f"picture{number}" for number in range(10)]
    assert len(data.sizes) == 20 and data.sizes["picture3"] == (33, 46)
    samples = list(data.epoch(0))
    assert sorted(s.name for s in samples) == sorted(data.names)
    assert all(s.image.shape == (40, 50, 3) and s.labels.shape == (40, 50) for s in samples)


def test_a_crop_that_leaves_nothing(many):
    with pytest.raises(ValueError) as caught:
        Dataset(many.root, "train")
    expected = "expected at most 49 x 78, the largest picture of split 'train', got 320 x 480"
    assert str(caught.value) == f"crop: {expected}"
    assert Dataset(many.root, "train", (49, 78)).names == ["picture19"]


@pytest.mark.parametrize("crop", [(0, 4), (4,), (4, 4, 4), (4.0, 4)])
def test_bad_crops(many, crop):
    with pytest.raises(ValueError, match="^crop: expected"):
        Dataset(many.root, "train", crop)


def test_padding(many):
    data = Dataset(many.root, "train", (45, 60), pad=True)
    assert len(data) == 20 and not data.small
    for sample in data.epoch(3):
        whole = data[data.names.index(sample.name)]
        height, width = (min(a, b) for a, b in zip(whole.labels.shape, (45, 60), strict=True))
        assert sample.labels.shape == (45, 60) and sample.image.shape == (45, 60, 3)
        assert (sample.labels[height:] == 255).all() and (sample.labels[:, width:] == 255).all()
        assert (sample.image[height:] == voc.FILL).all()
        assert found_in(sample, whole, height, width)


def found_in(sample, whole, height, width):
    """Say whether a sample is a crop of a whole picture, image and labels at the same place."""
    rows, columns = (n - k + 1 for n, k in zip(whole.labels.shape, (height, width), strict=True))
    return any(
        np.array_equal(whole.labels[y : y + height, x : x + width], sample.labels[:height, :width])
        and np.array_equal(
            whole.image[y : y + height, x : x + width], sample.image[:height, :width]
        )
        for y in range(rows)
        for x in range(columns)
    )


def test_a_seed_gives_the_same_epoch_again(many):
    def epoch(number, seed=0, start=0):
        samples = Dataset(many.root, "train", (30, 40), seed=seed).epoch(number, start)
        return [(s.name, s.image.tobytes(), s.labels.tobytes()) for s in samples]

    first = epoch(0)
    assert len(first) == 20 and epoch(0) == first
    assert epoch(0, start=7) == first[7:]
    names = [name for name, *_ in first]
    for other in (epoch(1), epoch(0, seed=1)):
        assert sorted(name for name, *_ in other) == sorted(names)
        assert [name for name, *_ in other] != names
        assert len(set(first) & set(other)) < 5  # the crops are others too


def test_the_order_is_the_same_on_every_machine(many):
    """It is written down here: it depends on no library's random numbers."""
    order = Dataset(many.root, "train", None, seed=5).order(2)
    assert order == sorted(
        (f"picture{number}" for number in range(20)),
        key=lambda name: hashlib.sha256(f"5/2/order/{name}".encode()).hexdigest(),
    )
    assert order[:3] == ["picture16", "picture18", "picture13"]


def test_crops_reach_every_place(folder):
    folder.add("a", (6, 7), labels=np.arange(42).reshape(6, 7).astype(np.uint8) % 21)
    folder.split("train", "a")
    data = Dataset(folder.root, "train", (4, 4))
    whole = data[0]
    found = set()
    for number in range(200):
        (sample,) = data.epoch(number)
        assert found_in(sample, whole, 4, 4)
        found.add(sample.image.tobytes())
    assert len(found) == 3 * 4


# Flips.


def mirrored(sample):
    return sample.image[:, ::-1].tobytes(), sample.labels[:, ::-1].tobytes()


def as_is(sample):
    return sample.image.tobytes(), sample.labels.tobytes()


@pytest.mark.parametrize("crop", [None, (30, 40), (60, 50)])
def test_half_are_mirrored(many, crop):
    """Picture and labels alike; the order and the crops are those of a set without flips."""
    plain, flipped = (
        Dataset(many.root, "train", crop, seed=3, pad=True, flip=flip) for flip in (False, True)
    )
    count = 0
    for number in range(6):
        assert flipped.order(number) == plain.order(number)
        for one, other in zip(plain.epoch(number), flipped.epoch(number), strict=True):
            assert one.name == other.name and as_is(one) != mirrored(one)
            assert as_is(other) in (as_is(one), mirrored(one))
            assert other.image.shape == one.image.shape and other.labels.shape == one.labels.shape
            count += as_is(other) != as_is(one)
    assert 45 <= count <= 75  # of 120


def test_what_is_mirrored_goes_by_seed_epoch_and_name(many):
    plain = Dataset(many.root, "train", None)

    def flips(number, seed=0, start=0):
        data = Dataset(many.root, "train", None, seed=seed, flip=True)
        return {
            sample.name: as_is(sample) != as_is(plain[plain.names.index(sample.name)])
            for sample in data.epoch(number, start)
        }

    first = flips(0)
    assert len(first) == 20 and flips(0) == first
    later = flips(0, start=8)
    assert later == {name: first[name] for name in Dataset(many.root, "train", None).order(0)[8:]}
    assert flips(1) != first and flips(0, seed=1) != first
    # Written down, as the order is: it depends on no library's random numbers.
    assert flips(2, seed=5) == {
        name: hashlib.sha256(f"5/2/flip/{name}".encode()).digest()[15] % 2 == 1 for name in first
    }


def test_whole_pictures_are_never_mirrored(many):
    """What is validated on is taken by number."""
    plain, flipped = (Dataset(many.root, "train", None, flip=flip) for flip in (False, True))
    for number in range(20):
        assert as_is(flipped[number]) == as_is(plain[number])
