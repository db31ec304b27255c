"""How many threads a product may use. No result depends on it, to the last bit."""

from __future__ import annotations

import functools
import os

from .validate import integer

_count: int | None = None
_forked = False


def _in_child() -> None:
    """Note that this process is a fork: OpenMP hangs in one whose parent had threads of it."""
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)


def set_num_threads(count: int | None) -> None:
    """Let each product of this process use at most `count` threads.

    Parameters
    ----------
    count : int or None
        At least 1. None is the default: what the environment variable CONVARITH_NUM_THREADS
        says, or else one for each core that this process may run on.

    Examples
    --------
    >>> set_num_threads(1)
    >>> get_num_threads()
    1
    >>> set_num_threads(None)
    """
    global _count
    _count = None if count is None else integer("count", count, minimum=1)


def get_num_threads() -> int:
    """Return the number of threads that a product may use."""
    return _count or _told() or cores()


def forked() -> bool:
    """Whether this process was forked since the library was imported."""
    return _forked


@functools.cache
def _told() -> int | None:
    """Return what the environment says, which is read once: a call has no time for it."""
    told = os.environ.get("CONVARITH_NUM_THREADS")
    if not told:
        return None
    try:
        return integer("CONVARITH_NUM_THREADS", int(told), minimum=1)
    except ValueError:
        raise ValueError(f"CONVARITH_NUM_THREADS: expected an integer >= 1, got {told!r}") from None


@functools.cache
def cores() -> int:
    """Return how many cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
