"""The figures of Long, Shelhamer & Darrell, against sums over pixels in exact fractions."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fcn import metrics
from fcn.metrics import Confusion


def slow(classes, labels, found, void=255):
    """Return the four figures, None for what has none, and the counts, pixel by pixel."""
    n = np.zeros((classes, classes), object)
    kept = labels != void
    np.add.at(n, (labels[kept], found[kept]), 1)
    true = [sum(n[i]) for i in range(classes)]
    union = [true[i] + sum(n[:, i]) - n[i, i] for i in range(classes)]
    accuracies = [Fraction(n[i, i], true[i]) for i in range(classes) if true[i]]
    ius = {i: Fraction(n[i, i], union[i]) for i in range(classes) if union[i]}
    total = sum(true)

    def mean(values):
        return sum(values) / len(values) if values else None

    weighted = sum((true[i] * ius[i] for i in range(classes) if true[i]), Fraction(0))
    return n, [
        Fraction(sum(n.diagonal()), total) if total else None,
        mean(accuracies),
        mean(list(ius.values())),
        weighted / total if total else None,
    ]


def figures(confusion):
    return [
        confusion.pixel_accuracy,
        confusion.mean_accuracy,
        confusion.mean_iu,
        confusion.frequency_weighted_iu,
    ]


def drawn(seed, classes, size, *, few=False):
    """Return labels, some of them void, and what was found; a few classes do without."""
    rng = np.random.default_rng(seed)
    among = rng.choice(classes, size=max(1, classes // 3)) if few else np.arange(classes)
    labels = rng.choice(among, size=size).astype(np.uint8)
    found = np.where(rng.random(size) < 0.5, labels, rng.choice(among, size=size))
    labels[rng.random(size) < 0.2] = 255
    return labels, found.astype(np.uint8)


@given(
    seed=st.integers(0, 2**32 - 1),
    classes=st.integers(1, 30),
    shape=st.tuples(st.integers(0, 9), st.integers(0, 9)),
    few=st.booleans(),
)
def test_against_the_definitions(seed, classes, shape, few):
    labels, found = drawn(seed, classes, shape, few=few)
    confusion = Confusion(classes)
    confusion.add(labels, found)
    counts, expected = slow(classes, labels, found)
    assert confusion.matrix.dtype == np.int64
    np.testing.assert_array_equal(confusion.matrix, counts.astype(np.int64))
    assert confusion.void_pixels == (labels == 255).sum()
    for figure, exact in zip(figures(confusion), expected, strict=True):
        assert math.isnan(figure) if exact is None else figure == pytest.approx(float(exact))


@given(seed=st.integers(0, 2**32 - 1), parts=st.integers(1, 5))
@settings(max_examples=30)
def test_images_add_up(seed, parts):
    labels, found = drawn(seed, 7, 400)
    whole, summed = Confusion(7), Confusion(7)
    whole.add(labels, found)
    for some, other in zip(
        np.array_split(labels, parts), np.array_split(found, parts), strict=True
    ):
        summed.add(some, other)
    np.testing.assert_array_equal(whole.matrix, summed.matrix)
    assert whole.void_pixels == summed.void_pixels


def test_blocks_add_up(monkeypatch):
    labels, found = drawn(0, 5, (37, 41))
    whole, blocks = Confusion(5), Confusion(5)
    whole.add(labels, found)
    monkeypatch.setattr(metrics, "BLOCK", 100)
    blocks.add(labels, found)
    np.testing.assert_array_equal(whole.matrix, blocks.matrix)


def test_counts_are_exact_beyond_floats():
    confusion = Confusion(2)
    confusion.matrix[:] = [[2**60 + 1, 0], [0, 2**60]]
    confusion.add(np.array([0]), np.array([0]))
    assert confusion.matrix[0, 0] == 2**60 + 2


def test_a_class_that_is_absent():
    """As the released code's nanmean: no IU for 2, an IU of 0 for 1, which was only found."""
    confusion = Confusion(3)
    confusion.add(np.array([0, 0, 0, 255]), np.array([0, 0, 1, 2]))
    np.testing.assert_array_equal(confusion.accuracies, [2 / 3, np.nan, np.nan])
    np.testing.assert_array_equal(confusion.ius, [2 / 3, 0, np.nan])
    assert figures(confusion) == pytest.approx([2 / 3, 2 / 3, 1 / 3, 2 / 3])


def test_void_alone_has_no_figures():
    confusion = Confusion(2)
    confusion.add(np.array([255, 255]), np.array([0, 1]))
    assert all(map(math.isnan, figures(confusion)))


@pytest.mark.parametrize(
    ("labels", "found", "error", "problem"),
    [
        ([0, 3], [0, 0], ValueError, "labels: expected class ids below 3, got 3"),
        ([0, -1], [0, 0], ValueError, "labels: expected class ids below 3, got -1"),
        ([0, 0], [0, 255], ValueError, "found: expected class ids below 3, got 255"),
        ([0, 0], [0], ValueError, r"found: expected the labels' shape \(2,\)"),
        ([0.0], [0], TypeError, "labels: expected integers, got float64"),
        ([0], [True], TypeError, "found: expected integers, got bool"),
    ],
)
def test_what_is_refused(labels, found, error, problem):
    confusion = Confusion(3)
    with pytest.raises(error, match=f"^{problem}"):
        confusion.add(np.array(labels), np.array(found))
    assert not confusion.matrix.any()


@pytest.mark.parametrize("arguments", [(0, 255), (256, 300), (3, 2)])
def test_bad_numbers_of_classes(arguments):
    with pytest.raises(ValueError, match=r"^(classes|void): expected"):
        Confusion(arguments[0], void=arguments[1])
