"""What was worked out for the forms of arrays, devices and batches that came last."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

_T = TypeVar("_T")


class Remembered:
    """Results by key, at most so many: to work them out takes longer than a small product.

    Several threads may use one: computing an entry twice does no harm.
    """

    def __init__(self, most: int = 64) -> None:
        self._found: dict[Hashable, Any] = {}
        self._most = most

    def get(self, key: Hashable, make: Callable[[], _T]) -> _T:
        """Return what `make` returned for `key`, or returns now."""
        found = self._found.get(key)
        if found is None:
            if len(self._found) >= self._most:
                self._found.clear()
            found = self._found[key] = make()
        return found
