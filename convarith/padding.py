"""Padding as a caller writes it, and the numbers it stands for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, SupportsIndex, TypeAlias

from .validate import integer, is_sequence

#: A padding word, an amount for every side, an amount an axis, or ``(low, high)`` an axis.
Padding: TypeAlias = (
    Literal["VALID", "SAME", "SAME_LOWER"]
    | SupportsIndex
    | Sequence[SupportsIndex | tuple[SupportsIndex, SupportsIndex]]
)
PADDING_WORDS: tuple[str, ...] = ("VALID", "SAME", "SAME_LOWER")


def parse_padding(padding: object, rank: int) -> str | tuple[tuple[int, int], ...]:
    """Return a padding word as it is, anything else as ``(low, high)`` an axis."""
    expected = (
        f"padding: expected one of {', '.join(map(repr, PADDING_WORDS))}, an integer, or "
        f"{rank} of them or of (low, high) pairs (one a spatial axis), got {padding!r}"
    )
    if isinstance(padding, str):
        if padding not in PADDING_WORDS:
            raise ValueError(expected)
        return padding
    if not is_sequence(padding):
        amount = integer("padding", padding)
        return ((amount, amount),) * rank
    if len(padding) != rank:
        raise ValueError(expected)
    entries = tuple(padding)
    pairs = []
    for axis, entry in enumerate(entries):
        sides = entry if is_sequence(entry) else (entry, entry)
        if len(sides) != 2:
            raise ValueError(expected)
        low, high = (integer(f"padding[{axis}]", side) for side in sides)
        pairs.append((low, high))
    return tuple(pairs)


def resolve_padding(
    padding: str | tuple[tuple[int, int], ...],
    input_size: tuple[int, ...],
    kernel_size: tuple[int, ...],
    strides: tuple[int, ...],
    dilations: tuple[int, ...],
) -> tuple[tuple[int, int], ...]:
    """Put ``(low, high)`` an axis in place of a word.

    SAME pads to ``ceil(i/s)`` outputs, ``P = max(0, (o - 1)s + ke - i)`` in all; where that is
    odd, SAME puts the greater half high and SAME_LOWER low.

    >>> resolve_padding("SAME", (5, 6), (3, 3), (2, 2), (1, 1))
    ((1, 1), (0, 1))
    """
    if not isinstance(padding, str):
        return padding
    if padding == "VALID":
        return ((0, 0),) * len(input_size)
    resolved = []
    for i, k, s, d in zip(input_size, kernel_size, strides, dilations, strict=True):
        total = max(0, (-(-i // s) - 1) * s + (k - 1) * d + 1 - i)
        low = (total + 1) // 2 if padding == "SAME_LOWER" else total // 2
        resolved.append((low, total - low))
    return tuple(resolved)
