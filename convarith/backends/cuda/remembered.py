"""What a plan has worked out for the devices and batches it met last."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

_T = TypeVar("_T")


class Remembered:
    """A few results by key: to find a launch's kernel and numbers takes longer than to launch it.

    Several threads may use one: computing an entry twice does no harm.
    """

    def __init__(self) -> None:
        self._found: dict[Hashable, Any] = {}

    def get(self, key: Hashable, make: Callable[[], _T]) -> _T:
        """Return what `make` returned for `key`, or returns now."""
        found = self._found.get(key)
        if found is None:
            if len(self._found) >= 64:
                self._found.clear()
            found = self._found[key] = make()
        return found
