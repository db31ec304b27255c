"""From samples to what a step of training takes."""

from __future__ import annotations

import concurrent.futures
import itertools
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from .preprocess import Preprocess
from .voc import FILL, VOID, Dataset, Sample

#: ``(n, h, w, 3)`` in float32, preprocessed, and labels ``(n, h, w)`` in uint8.
Batch = tuple[np.ndarray, np.ndarray]


def batches(
    data: Dataset, preprocess: Preprocess, size: int, epoch: int, start: int = 0
) -> Iterator[Batch]:
    """Yield an epoch of a data set in batches, the last of them with what is left.

    Each is read and preprocessed while the one before is worked with.

    Parameters
    ----------
    data : Dataset
    preprocess : Preprocess
    size : int
        Pictures a batch.
    epoch : int
        What the order, crops and flips go by.
    start : int
        How many batches to leave out; those after them are the same as without.
    """
    samples = data.epoch(epoch, start * size)
    groups: Iterator[Sequence[Sample]] = iter(lambda: list(itertools.islice(samples, size)), [])

    def read() -> Batch | None:
        group = next(groups, None)
        return None if group is None else collated(group, preprocess)

    with concurrent.futures.ThreadPoolExecutor(1) as reader:
        coming = reader.submit(read)
        while (batch := coming.result()) is not None:
            coming = reader.submit(read)
            yield batch


def steps(pictures: int, size: int) -> int:
    """Return the number of batches in an epoch.

    >>> steps(367, 4)
    92
    """
    return -(-pictures // size)


def collated(samples: Iterable[Sample], preprocess: Preprocess) -> Batch:
    """Return samples as one batch.

    Those that are smaller than the largest are padded on the right and at the bottom, pictures by
    `FILL`, labels by void.
    """
    samples = list(samples)
    height, width = (max(s.labels.shape[axis] for s in samples) for axis in (0, 1))
    images = np.empty((len(samples), height, width, 3), np.uint8)
    images[:] = FILL
    labels = np.full((len(samples), height, width), VOID, np.uint8)
    for at, sample in enumerate(samples):
        h, w = sample.labels.shape
        images[at, :h, :w], labels[at, :h, :w] = sample.image, sample.labels
    return preprocess(images), labels
