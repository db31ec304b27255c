"""How far a run is: a bar where tqdm is installed and someone looks, otherwise lines or nothing."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator, Sequence
from typing import Any


def progress(items: Sequence[Any], *, lines: bool = False) -> Iterator[Any]:
    """Yield the items, and say the ``path`` of the one that is being measured.

    Parameters
    ----------
    items : sequence
    lines : bool
        Whether to write a line an item where there is no bar.
    """
    if sys.stderr.isatty() and importlib.util.find_spec("tqdm") is not None:
        from tqdm import tqdm

        with tqdm(items, unit="case") as bar:
            for item in bar:
                bar.set_description(item.path)
                yield item
        return
    for number, item in enumerate(items, start=1):
        if lines:
            print(f"{number}/{len(items)} {item.path}", file=sys.stderr, flush=True)
        yield item
