"""Axes by letter: ``n`` batch, ``c`` channels, ``i`` and ``o`` a kernel's, ``*`` spatial."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Spelling(NamedTuple):
    """How a framework writes a call: the function, and the axes of its arrays and its kernel.

    ``i`` and ``o`` are what the call itself takes and gives, for transposed ones too; ``i`` is
    the channels of all groups where the transposed call divides ``o`` by them, and the other
    way round for the plain one. A kernel is `flipped` that the call reads back to front; an
    `output` has axes of its own where the call lets it.
    """

    function: str
    array: str
    kernel: str
    flipped: bool = False
    output: str | None = None


#: The layouts of `convarith.conv`, and of `convarith.conv_transpose` under True.
ARRAY = "n*c"
KERNEL = {False: "*io", True: "*oi"}


def axes(layout: str, rank: int) -> tuple[str, ...]:
    """Return one name an axis, the spatial ones by number.

    >>> axes("nc*", 2)
    ('n', 'c', '0', '1')
    """
    before, star, after = layout.partition("*")
    return (*before, *(map(str, range(rank)) if star else ()), *after)


def permutation(source: str, target: str, rank: int) -> tuple[int, ...]:
    """Return the order in which `target` takes the axes of `source`.

    >>> permutation("*oi", "io*", 2)
    (3, 2, 0, 1)
    """
    order = axes(source, rank)
    return tuple(order.index(name) for name in axes(target, rank))


def moved(array: np.ndarray, source: str, target: str) -> np.ndarray:
    """Return a view of `array`, whose axes are `source`, with the axes of `target`.

    >>> moved(np.zeros((1, 3, 4, 5)), "nc*", "n*c").shape
    (1, 4, 5, 3)
    """
    return array.transpose(permutation(source, target, array.ndim - 2))


def flipped(kernel: np.ndarray) -> np.ndarray:
    """Return a view of a kernel ``(*k, a, b)`` with its spatial axes reversed."""
    return kernel[(slice(None, None, -1),) * (kernel.ndim - 2)]
