"""Strides, dilations, windows and paddings, as a caller or a file writes them."""

from __future__ import annotations

import math
import operator
import reprlib
from typing import Any, TypeAlias

#: A word of TensorFlow's, or ``(low, high)`` for the rows and for the columns.
Padding: TypeAlias = str | tuple[tuple[int, int], tuple[int, int]]
WORDS = ("SAME", "VALID")

#: No network has larger strides, windows or paddings. A file that says so is broken, or is out
#: to fill the memory.
LARGEST = 4096


def integer(name: str, value: object, minimum: int, maximum: int = LARGEST) -> int:
    """Return `value` as a Python integer from `minimum` to `maximum`; refuse bools and floats.

    >>> integer("groups", 2.0, 1)
    Traceback (most recent call last):
    ...
    TypeError: groups: expected an integer from 1 to 4096, got 2.0
    """
    expected = f"an integer from {minimum} to {maximum}"
    try:
        if isinstance(value, bool):
            raise TypeError
        result = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"{name}: expected {expected}, got {short(value)}") from None
    if not minimum <= result <= maximum:
        raise ValueError(f"{name}: expected {expected}, got {short(value)}")
    return result


def number(name: str, value: object, minimum: float, maximum: float) -> float:
    """Return `value` as a float from `minimum` to `maximum`; refuse bools and NaN.

    >>> number("epsilon", 1, 0, 1)
    1.0
    """
    expected = f"a number from {minimum:g} to {maximum:g}"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name}: expected {expected}, got {short(value)}")
    if not minimum <= value <= maximum or math.isnan(value):
        raise ValueError(f"{name}: expected {expected}, got {short(value)}")
    return float(value)


def pair(name: str, value: object, minimum: int) -> tuple[int, int]:
    """Return one integer for the rows and one for the columns, from both or from one for both.

    >>> pair("strides", 2, 1)
    (2, 2)
    """
    if not isinstance(value, (tuple, list)):
        return (integer(name, value, minimum),) * 2
    if len(value) != 2:
        raise ValueError(f"{name}: expected an integer or two, got {short(value)}")
    first, second = (integer(f"{name}[{i}]", entry, minimum) for i, entry in enumerate(value))
    return first, second


def pairs(name: str, value: object) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return ``(low, high)`` of the rows and of the columns; an integer stands for both sides.

    >>> pairs("padding", 1)
    ((1, 1), (1, 1))
    >>> pairs("padding", [[0, 1], [0, 1]])
    ((0, 1), (0, 1))
    """
    if not isinstance(value, (tuple, list)):
        value = (value, value)
    if len(value) != 2:
        raise ValueError(f"{name}: expected two pairs (low, high), got {short(value)}")
    rows, columns = (pair(f"{name}[{i}]", entry, 0) for i, entry in enumerate(value))
    return rows, columns


def padding_of(value: object) -> Padding:
    """Return a padding: a word, or whatever `pairs` takes.

    >>> padding_of("same")
    Traceback (most recent call last):
    ...
    ValueError: padding: expected 'SAME', 'VALID' or two pairs (low, high), got 'same'
    """
    if isinstance(value, str):
        if value not in WORDS:
            raise ValueError(
                f"padding: expected 'SAME', 'VALID' or two pairs (low, high), got {short(value)}"
            )
        return value
    return pairs("padding", value)


def short(value: object) -> str:
    """Return `value` as an error message shows it: cut where it is long, large or deep.

    >>> short([[[[[]]]], *range(100)])
    '[[[[...]]], 0, 1, 2, 3, 4, ...]'
    """
    try:
        return _repr.repr(value)
    except ValueError:  # an integer of more digits than Python writes
        return f"a {type(value).__qualname__} too large to show"


_repr = reprlib.Repr()
_repr.maxlevel, _repr.maxstring, _repr.maxother = 3, 80, 80


def listed(value: Any) -> Any:
    """Return tuples, also within one another, as the lists that JSON has in their place.

    >>> listed(((1, 2), "SAME"))
    [[1, 2], 'SAME']
    """
    return [listed(entry) for entry in value] if isinstance(value, tuple) else value
