"""Checks of integers: every size in the library passes through here once."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from typing import Any, SupportsIndex, TypeAlias, TypeGuard

#: An integer for every axis alike, or one integer an axis.
PerAxis: TypeAlias = SupportsIndex | Sequence[SupportsIndex]


def integer(name: str, value: object, *, minimum: int | None = None) -> int:
    """Return `value` as a Python integer; refuse floats (NaN too), strings and bools.

    >>> integer("strides", 2, minimum=1)
    2
    >>> integer("strides", 0, minimum=1)
    Traceback (most recent call last):
    ...
    ValueError: strides: expected an integer >= 1, got 0
    """
    expected = "an integer" if minimum is None else f"an integer >= {minimum}"
    # NumPy's bool has no __index__; Python's has one, and strides=True is a mistake all the same.
    if isinstance(value, bool):
        raise TypeError(f"{name}: expected {expected}, got {value!r}")
    try:
        result = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"{name}: expected {expected}, got {value!r}") from None
    if minimum is not None and result < minimum:
        raise ValueError(f"{name}: expected {expected}, got {result}")
    return result


def one_of(name: str, value: object, allowed: Iterable[str | None]) -> str | None:
    """Return `value` where it is one of the words (or None) allowed.

    >>> one_of("border", "wrap", ("zero", "edge"))
    Traceback (most recent call last):
    ...
    ValueError: border: expected one of 'zero', 'edge', got 'wrap'
    """
    words = tuple(allowed)
    if (value is None or isinstance(value, str)) and value in words:
        return value
    raise ValueError(f"{name}: expected one of {', '.join(map(repr, words))}, got {value!r}")


def is_sequence(value: object) -> TypeGuard[Sequence[Any]]:
    """Whether `value` lists one entry an axis; zero-dimensional arrays and strings do not."""
    return (
        isinstance(value, Iterable)
        and hasattr(value, "__len__")
        and hasattr(value, "__getitem__")
        and not isinstance(value, (str, bytes, bytearray, memoryview, dict))
        and getattr(value, "ndim", 1) > 0
    )


def per_axis(name: str, value: object, rank: int, *, minimum: int | None = None) -> tuple[int, ...]:
    """Return one integer an axis from an integer (for all axes alike) or `rank` integers.

    >>> per_axis("strides", 2, 3, minimum=1)
    (2, 2, 2)
    >>> per_axis("dilations", (1, 2), 3)
    Traceback (most recent call last):
    ...
    ValueError: dilations: expected an integer or 3 of them (one a spatial axis), got (1, 2)
    """
    if not is_sequence(value):
        return (integer(name, value, minimum=minimum),) * rank
    if len(value) != rank:  # before tuple(): it may be long
        raise ValueError(
            f"{name}: expected an integer or {rank} of them (one a spatial axis), got {value!r}"
        )
    values = tuple(value)
    return tuple(integer(f"{name}[{axis}]", v, minimum=minimum) for axis, v in enumerate(values))


def spatial_rank(**sizes: object) -> int:
    """Return the rank that the first of the named sizes written a number an axis gives, else 1."""
    for name, size in sizes.items():
        if is_sequence(size):
            rank = len(size)
            if rank == 0:
                raise ValueError(f"{name}: expected at least one spatial axis, got {size!r}")
            return rank
    return 1
