"""`fcn.batches`: an epoch as a step takes it, read ahead by a thread that never stays behind."""

import threading

import numpy as np
import pytest

from fcn import pictures
from fcn.batches import batches, collated, steps
from fcn.preprocess import Preprocess
from fcn.voc import FILL, VOID, Dataset, Sample

PREPROCESS = Preprocess.torch()
#: A thread that hangs fails a test by this, not by keeping it for ever.
PATIENCE = 60


@pytest.fixture
def data(labelled_pictures):
    """Five pictures of four sizes."""
    listing = labelled_pictures / "ImageSets" / "Segmentation" / "all.txt"
    listing.write_text("p0\np1\np2\np3\np4\n")
    return Dataset(labelled_pictures, "all", None, seed=1, flip=True)


@pytest.fixture(autouse=True)
def no_thread_stays():
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


def bits(found):
    return [(x.tobytes(), x.shape, labels.tobytes(), labels.shape) for x, labels in found]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7])
def test_the_data_sets_epoch_in_order(data, size):
    for epoch in (0, 4):
        samples = list(data.epoch(epoch))
        found = list(batches(data, PREPROCESS, size, epoch))
        assert len(found) == steps(len(data), size)
        assert [len(x) for x, _ in found[:-1]] == [size] * (len(found) - 1)
        assert sum(len(x) for x, _ in found) == len(data) == 5
        for number, (x, labels) in enumerate(found):
            group = samples[number * size : (number + 1) * size]
            sizes = np.array([sample.labels.shape for sample in group])
            assert x.shape == (len(group), *sizes.max(axis=0), 3) and labels.shape == x.shape[:3]
            assert (x.dtype, labels.dtype) == (np.float32, np.uint8)
            assert x.flags.c_contiguous and labels.flags.c_contiguous
            for sample, image, mask in zip(group, x, labels, strict=True):
                h, w = sample.labels.shape
                np.testing.assert_array_equal(image[:h, :w], PREPROCESS(sample.image))
                np.testing.assert_array_equal(mask[:h, :w], sample.labels)


def test_epochs_differ(data):
    first, again, other = (bits(batches(data, PREPROCESS, 2, epoch)) for epoch in (0, 0, 1))
    assert first == again != other


@pytest.mark.parametrize("size", [1, 2, 5])
def test_a_start_leaves_out_batches_and_changes_none(data, size):
    whole = bits(batches(data, PREPROCESS, size, 3))
    for start in range(len(whole) + 2):
        assert bits(batches(data, PREPROCESS, size, 3, start)) == whole[start:]


def test_crops_are_all_of_a_size(labelled_pictures):
    data = Dataset(labelled_pictures, "train", (24, 32), seed=1)
    (found,) = batches(data, PREPROCESS, 3, 0)
    assert found[0].shape == (3, 24, 32, 3)


@pytest.mark.parametrize(("pictures", "size", "expected"), [(1, 4, 1), (4, 4, 1), (5, 4, 2)])
def test_steps(pictures, size, expected):
    assert steps(pictures, size) == expected


def sample(height, width, value):
    image = np.full((height, width, 3), value, np.uint8)
    return Sample("", image, np.full((height, width), value, np.uint8))


def test_smaller_ones_are_padded_to_the_largest():
    """Rows and columns by themselves: no sample is as large as the batch."""
    same = Preprocess()
    x, labels = collated([sample(2, 5, 1), sample(4, 3, 2), sample(1, 1, 3)], same)
    assert x.shape == (3, 4, 5, 3) and labels.shape == (3, 4, 5)
    for at, (h, w) in enumerate([(2, 5), (4, 3), (1, 1)]):
        inside = np.zeros((4, 5), bool)
        inside[:h, :w] = True
        assert (x[at][inside] == at + 1).all() and (labels[at][inside] == at + 1).all()
        assert (x[at][~inside] == FILL).all() and (labels[at][~inside] == VOID).all()
    x, _ = collated([sample(2, 5, 1), sample(4, 3, 2)], PREPROCESS)
    assert abs(x[0, 3]).max() < 0.01  # to a network the fill is about nothing


# What goes wrong while they are read.


def at_fault(kind, data, name):
    image = data.root / "JPEGImages" / f"{name}.png"
    mask = data.root / "SegmentationClass" / f"{name}.png"
    if kind == "picture gone":
        image.unlink()
    elif kind == "mask gone":
        mask.unlink()
    else:
        image.write_bytes(image.read_bytes()[:200])
    return mask if kind == "mask gone" else image


@pytest.mark.parametrize("kind", ["picture gone", "mask gone", "truncated"])
@pytest.mark.parametrize("place", [0, 2, 4])
def test_an_error_in_reading_is_the_error(data, kind, place):
    """It comes in its batch's place, after all that could be read."""
    whole = bits(batches(data, PREPROCESS, 2, 0))
    name = data.order(0)[place]
    path = at_fault(kind, data, name)
    coming = batches(data, PREPROCESS, 2, 0)
    for expected in whole[: place // 2]:
        assert bits([next(coming)]) == [expected]
    with pytest.raises(pictures.Unreadable) as caught:
        next(coming)
    # Without its suffix: of a picture that is gone the first name that it may have is given.
    assert str(caught.value).startswith(f"{path.with_suffix('')}.")
    assert "\n" not in str(caught.value)
    assert next(coming, None) is None


def test_an_error_of_any_kind(data, monkeypatch):
    """As of a memory that is full: the very object, so that its kind is kept."""
    error = MemoryError("none left")

    def full(name):
        raise error

    monkeypatch.setattr(data, "_read", full)
    with pytest.raises(MemoryError) as caught:
        next(batches(data, PREPROCESS, 2, 0))
    assert caught.value is error


# The thread.


class Reading:
    """Says what is read, and keeps the reader waiting from a picture on."""

    def __init__(self, data, monkeypatch, waits_at):
        self.names, self.arrived, self.go = [], threading.Event(), threading.Event()
        read = data._read

        def reading(name):
            self.names.append(name)
            if len(self.names) == waits_at:
                self.arrived.set()
                assert self.go.wait(PATIENCE)
            return read(name)

        monkeypatch.setattr(data, "_read", reading)


def in_time(function):
    """Call a function in a thread that may hang."""
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert not thread.is_alive()


def test_the_next_is_read_meanwhile_and_no_more(data, monkeypatch):
    reading = Reading(data, monkeypatch, waits_at=3)
    coming = batches(data, PREPROCESS, 2, 0)
    assert reading.names == []
    next(coming)
    assert reading.arrived.wait(PATIENCE)  # nobody has asked for the second batch
    reading.go.set()
    in_time(coming.close)
    assert reading.names == data.order(0)[:4]


@pytest.mark.parametrize("taken", [0, 1, 2, 3])
def test_an_iterator_that_is_left(data, taken):
    coming = batches(data, PREPROCESS, 2, 0)
    for _ in range(taken):
        next(coming)
    in_time(coming.close)
    assert next(coming, None) is None


def test_an_iterator_that_is_left_while_it_reads(data, monkeypatch):
    """It ends when the picture is read; what comes after that picture's batch is not."""
    reading = Reading(data, monkeypatch, waits_at=2)
    coming = batches(data, PREPROCESS, 1, 0)
    next(coming)
    assert reading.arrived.wait(PATIENCE)
    timer = threading.Timer(0.05, reading.go.set)
    timer.start()
    in_time(coming.close)
    timer.join()
    assert reading.names == data.order(0)[:2]


def test_an_iterator_that_is_left_with_an_error_to_come(data):
    at_fault("truncated", data, data.order(0)[2])
    coming = batches(data, PREPROCESS, 2, 0)
    next(coming)
    in_time(coming.close)


def test_an_exception_in_the_loop(data):
    """As of a loss that is infinite, or Ctrl-C."""
    before = set(threading.enumerate())
    for kind in (ValueError, KeyboardInterrupt):
        with pytest.raises(kind):
            for _ in batches(data, PREPROCESS, 2, 0):
                assert set(threading.enumerate()) > before
                raise kind
        assert set(threading.enumerate()) <= before


def test_two_at_once(data):
    """Each has a thread of its own."""
    first, second = (bits(batches(data, PREPROCESS, 2, epoch)) for epoch in (0, 1))
    together = zip(batches(data, PREPROCESS, 2, 0), batches(data, PREPROCESS, 2, 1), strict=True)
    expected = zip(first, second, strict=True)
    assert [tuple(bits(pair)) for pair in together] == list(expected)
