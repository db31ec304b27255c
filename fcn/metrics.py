"""How well classes were found: the figures of Long, Shelhamer & Darrell, section 5.

"Fully convolutional networks for semantic segmentation" (arXiv:1411.4038). With ``n[i, j]`` pixels
of class ``i`` found to be class ``j``, and ``t[i]`` all pixels of class ``i``:

- pixel accuracy ``sum_i n[i, i] / sum_i t[i]``;
- mean accuracy, the mean over classes of ``n[i, i] / t[i]``;
- mean IU, the mean over classes of ``n[i, i] / (t[i] + sum_j n[j, i] - n[i, i])``;
- frequency weighted IU, ``sum_i t[i] IU[i] / sum_i t[i]``.

Pixels labelled void count nowhere. A class that has no pixel among the labels has no accuracy, and
one that has none among what was found either has no IU; means are over the classes that have one,
as in the code that the paper's authors released (``score.py``: ``np.nanmean``).
"""

from __future__ import annotations

import numpy as np

from .palette import VOID

#: Pixels counted at a time, so that what is made of them in between stays small.
BLOCK = 2**20


class Confusion:
    """Counts of every label against what was found, exact, added up over images.

    Parameters
    ----------
    classes : int
        1 to 255.
    void : int
        The label of pixels that are not counted.

    Attributes
    ----------
    matrix : ndarray
        ``(classes, classes)``, int64: pixels by label (row) and by what was found (column).
    void_pixels : int
        How many pixels were labelled void.

    Examples
    --------
    >>> confusion = Confusion(3)
    >>> confusion.add(np.array([0, 0, 1, 1, 255]), np.array([0, 1, 1, 1, 2]))
    >>> confusion.matrix
    array([[1, 1, 0],
           [0, 2, 0],
           [0, 0, 0]])
    >>> print(f"{confusion.pixel_accuracy:.3f} {confusion.mean_accuracy:.3f}")
    0.750 0.750
    >>> print(f"{confusion.mean_iu:.3f} {confusion.frequency_weighted_iu:.3f}")
    0.583 0.583
    """

    def __init__(self, classes: int, *, void: int = VOID) -> None:
        if not 1 <= classes <= 255:
            raise ValueError(f"classes: expected 1 to 255, got {classes}")
        if 0 <= void < classes:
            raise ValueError(f"void: expected none of the {classes} classes, got {void}")
        self.void = void
        self.matrix = np.zeros((classes, classes), np.int64)
        self.void_pixels = 0

    def add(self, labels: np.ndarray, found: np.ndarray) -> None:
        """Count the pixels of an image, or of several.

        Parameters
        ----------
        labels, found : ndarray
            Integers of one shape: class ids, among the labels void too.

        Raises
        ------
        TypeError, ValueError
            Naming the argument; nothing is counted then.
        """
        labels, found = np.asarray(labels), np.asarray(found)
        for name, array in (("labels", labels), ("found", found)):
            if array.dtype.kind not in "iu":
                raise TypeError(f"{name}: expected integers, got {array.dtype}")
        if labels.shape != found.shape:
            raise ValueError(f"found: expected the labels' shape {labels.shape}, got {found.shape}")
        labels, found = labels.ravel(), found.ravel()
        classes, counts, void = len(self.matrix), np.zeros_like(self.matrix), 0
        for start in range(0, labels.size, BLOCK):
            true = labels[start : start + BLOCK].astype(np.int64)
            here = found[start : start + BLOCK].astype(np.int64)
            counted = true != self.void
            void += true.size - int(np.count_nonzero(counted))
            true, here = true[counted], here[counted]
            for name, ids in (("labels", true), ("found", here)):
                wrong = (ids < 0) | (ids >= classes)
                if wrong.any():
                    raise ValueError(
                        f"{name}: expected class ids below {classes}, got {ids[wrong][0]}"
                    )
            pairs = np.bincount(true * classes + here, minlength=classes**2)
            counts += pairs.reshape(classes, classes)
        self.matrix += counts
        self.void_pixels += void

    @property
    def pixels(self) -> np.ndarray:
        """How many pixels have each label, ``(classes,)`` in int64."""
        return self.matrix.sum(axis=1)

    @property
    def accuracies(self) -> np.ndarray:
        """The share of each label's pixels that was found, NaN where it has no pixel."""
        return _share(self.matrix.diagonal(), self.pixels)

    @property
    def ius(self) -> np.ndarray:
        """Each class's intersection over union, NaN where both are empty."""
        right = self.matrix.diagonal()
        return _share(right, self.pixels + self.matrix.sum(axis=0) - right)

    @property
    def pixel_accuracy(self) -> float:
        """The share of all pixels that was found; NaN without any."""
        return float(_share(self.matrix.trace(), self.matrix.sum()))

    @property
    def mean_accuracy(self) -> float:
        """The mean of `accuracies`; NaN without any."""
        return _mean(self.accuracies)

    @property
    def mean_iu(self) -> float:
        """The mean of `ius`; NaN without any."""
        return _mean(self.ius)

    @property
    def frequency_weighted_iu(self) -> float:
        """The mean of `ius`, weighted by the labels' pixels; NaN without any."""
        present = self.pixels > 0
        weighted = self.pixels[present] * self.ius[present]
        return float(_share(weighted.sum(), self.pixels.sum()))


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Return ``part / whole``, NaN where `whole` is zero."""
    nothing = np.full(np.shape(whole), np.nan)
    return np.divide(part, whole, out=nothing, where=np.asarray(whole) > 0)


def _mean(values: np.ndarray) -> float:
    there = values[~np.isnan(values)]
    return float(there.mean()) if there.size else float("nan")
