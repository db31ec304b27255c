"""Whether steps of training fit: what memory there is, and the largest batch that it takes."""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from convarith.memory import available_bytes

from .costs import training_bytes, training_parts
from .graph import Graph
from .layers import Shape

#: No batch has more pictures.
MOST = 1 << 20


def checked_step(
    graph: Graph,
    shape: Shape,
    device: str,
    *,
    until: str | None = None,
    frozen: Collection[str] = (),
    slots: int = 0,
) -> str:
    """Return what a step of training needs and what there is, in words; refuse what does not fit.

    Nothing is held yet but the weights: they count as available.

    Parameters
    ----------
    device : {"cpu", "cuda"}
        Where the graph's arrays are.
    graph, shape, until, frozen, slots
        As `training_parts` takes them.

    Raises
    ------
    ValueError
        See `check`.
    """
    how: Any = {"until": until, "frozen": frozen, "slots": slots}
    parts = training_parts(graph, shape, **how)
    have = available(device) + parts["weights"]

    @functools.cache
    def need(batch: int) -> int:
        return training_bytes(graph, (batch, *shape[1:]), **how)

    check(need, shape[0], shape[1:3], have)
    return described(shape, parts, have)


def described(shape: Shape, parts: Mapping[str, int], have: int) -> str:
    """Return what a step needs, and what for, in words.

    Parameters
    ----------
    shape : tuple of int
        Of a batch, ``(n, h, w, channels)``.
    parts : mapping of str to int
        As `training_parts` returns them.
    have : int
        The bytes available.

    Examples
    --------
    >>> described((4, 192, 256, 3), {"weights": 56 << 20, "work": 968 << 20}, 3 << 30)
    'a step of 4 x 192 x 256 pixels needs 1.0 GiB (weights 56 MiB, work 968 MiB), 3.0 GiB \
available'
    """
    what = ", ".join(f"{name} {binary(nbytes)}" for name, nbytes in parts.items())
    return (
        f"a step of {' x '.join(map(str, shape[:3]))} pixels needs {binary(sum(parts.values()))} "
        f"({what}), {binary(have)} available"
    )


def available(device: str, *, statm: Path = Path("/proc/self/statm")) -> int:
    """Return the bytes that this process can still get without swapping.

    On the CPU that is the least of what the system has available, of what the limits of its
    control groups and of those around them leave, and of what a limit on the address space
    (``ulimit -v``) leaves. Systems without ``/proc`` do not say what is available: there it is all
    memory. On CUDA it is what is free on the current device and in CuPy's pool.

    Parameters
    ----------
    device : {"cpu", "cuda"}
    statm : Path
        The file in which Linux says how many pages a process has.
    """
    if device == "cuda":
        return available_bytes(importlib.import_module("cupy").empty(0))
    left = _address_space_left(statm)
    return available_bytes() if left is None else min(available_bytes(), left)


def _address_space_left(statm: Path) -> int | None:
    """Return what a limit on the address space leaves, None where there is no limit."""
    if sys.platform == "win32":
        return None
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return None
    try:
        pages = int(statm.read_text().split()[0])
    except OSError:  # how much of it is used is not known
        return limit
    return max(0, limit - pages * resource.getpagesize())


def largest_batch(need: Callable[[int], int], have: int) -> int:
    """Return the largest batch that needs at most `have` bytes, 0 where not even one fits.

    Parameters
    ----------
    need : callable
        Takes a batch, 1 or more, and returns its bytes, which grow with it.
    have : int

    Examples
    --------
    >>> largest_batch(lambda batch: 100 + 30 * batch, 200)
    3
    """
    fits, fails = 0, 1
    while fails <= MOST and need(fails) <= have:
        fits, fails = fails, 2 * fails
    while fails - fits > 1 and fits < MOST:
        middle = (fits + fails) // 2
        if need(middle) <= have:
            fits = middle
        else:
            fails = middle
    return fits


def check(need: Callable[[int], int], batch: int, size: tuple[int, ...], have: int) -> None:
    """Refuse a batch that does not fit.

    Parameters
    ----------
    need : callable
        As `largest_batch` takes it.
    batch : int
    size : (int, int)
        Height and width of its pictures.
    have : int
        The bytes available.

    Raises
    ------
    ValueError
        With the largest batch that fits, or with what a single picture needs.

    Examples
    --------
    >>> check(lambda batch: batch << 29, 4, (320, 480), 7 << 28)
    Traceback (most recent call last):
    ...
    ValueError: batch: expected at most 3 of 320 x 480 pixels, which need 1.5 GiB of the 1.8 GiB \
available, got 4, which need 2.0 GiB
    """
    if need(batch) <= have:
        return

    def with_need(count: int, what: str = "") -> str:
        return f"{count}{what}, which {'need' if count > 1 else 'needs'} {binary(need(count))}"

    pixels = f" of {size[0]} x {size[1]} pixels"
    largest = largest_batch(need, have)
    expected = (
        f"at most {with_need(largest, pixels)} of the {binary(have)} available"
        if largest
        else f"smaller pictures for the {binary(have)} available"
    )
    got = with_need(batch, "" if largest else pixels)
    one = "" if largest or batch == 1 else f", and {binary(need(1))} a single one"
    raise ValueError(f"batch: expected {expected}, got {got}{one}")


def binary(nbytes: int) -> str:
    """Return bytes as words: in GiB with one decimal, or below one in MiB.

    >>> binary(3 << 29), binary(100 << 20), binary(1)
    ('1.5 GiB', '100 MiB', '1 MiB')
    """
    if nbytes >= 1 << 30:
        return f"{nbytes / 2**30:.1f} GiB"
    return f"{-(-nbytes // 2**20)} MiB"
