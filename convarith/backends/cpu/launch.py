"""Running a worker: on several threads, or on the caller's own where that is better or needed.

A worker is compiled code ``void f(call, thread)``; each thread takes its next piece of work from
a counter of the call, so that a thread that is held up holds up nobody else. Numba's OpenMP
layer starts them, in 1.4 microseconds; one parallel function serves every kernel.
"""

from __future__ import annotations

import functools
import os
import threading
from typing import Any

import numba
import numpy as np
from numba import njit, prange, types

from ...threads import get_num_threads
from . import pool
from .compiled import kept_on_disk, sources
from .native import run_worker

_forked = False


def _in_child() -> None:
    """Note that this process is a fork: Numba ends one that enters a parallel region."""
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)


class Call:
    """What a worker is called with, but for the arrays of one call.

    In memory it is the record, two counters in a cache line of their own, and the threads' scratch.

    Parameters
    ----------
    worker : int
        Its address.
    record : dtype
        Of int64 alone; with fields ``counter`` and ``scratch``.
    nbytes : int
        Of the scratch of all threads.
    **fields
        An array stands for its address, and lives as long as this.
    """

    def __init__(self, worker: int, record: np.dtype, nbytes: int, /, **fields: Any) -> None:
        self.worker = worker
        self._head = -(-record.itemsize // 64) * 64 + 128
        self._size = (self._head + nbytes) // 8 + 8
        self._counter = self._head // 8 - 8
        self._idle: list[tuple[memoryview, int]] = []  # blocks; popping one is atomic
        self._at = {name: field[1] // 8 for name, field in (record.fields or {}).items()}
        self._arrays = [value for value in fields.values() if isinstance(value, np.ndarray)]
        filled = np.zeros((), record)
        for name, value in fields.items():
            filled[name] = pool.address(value) if isinstance(value, np.ndarray) else value
        self._template = np.zeros(self._head // 8, np.int64)
        self._template[: record.itemsize // 8] = np.frombuffer(filled.tobytes(), np.int64)

    def run(
        self,
        threads: int,
        numbers: tuple[str, np.ndarray] | None = None,
        /,
        **fields: np.ndarray | int | None,
    ) -> None:
        """Run the worker with the call's own fields; None is 0, an array its address.

        The `numbers` are for the fields from the named one on, written all at once.
        """
        try:
            block = self._idle.pop()
        except IndexError:
            block = self._block()
        memory, address = block
        memory[self._counter] = memory[self._counter + 1] = 0
        at, address_of = self._at, pool.address
        if numbers is not None:
            first = at[numbers[0]]
            memory[first : first + len(numbers[1])] = numbers[1].data
        for name, value in fields.items():
            if value is None:
                value = 0
            memory[at[name]] = value if isinstance(value, int) else address_of(value)
        run(self.worker, address, threads)
        if len(memory) <= _MOST_KEPT // 8:
            self._idle.append(block)

    def _block(self) -> tuple[memoryview, int]:
        """Return memory for one call at a time, filled in as far as all calls are alike.

        Numbers are written into a view in half the time that they take into an array.
        """
        memory = pool.empty((self._size,), _INT)
        memory = memory[-pool.address(memory) // 8 % 8 :]  # from the start of a cache line on
        address = pool.address(memory)
        memory[: len(self._template)] = self._template
        memory[self._at["counter"]] = address + 8 * self._counter
        memory[self._at["scratch"]] = address + self._head
        return memory.data, address


_INT = np.dtype(np.int64)
#: Bytes of a block that a call keeps for the next; larger ones go back to the pool.
_MOST_KEPT = 2**17


def run(worker: int, call: int, threads: int) -> None:
    """Call the worker with numbers 0 to `threads` - 1, and return when all have."""
    if threads <= 1 or _forked:
        _compiled(parallel=False)(worker, call)
        return
    parallel = _compiled(parallel=True)
    if not _concurrent():
        with _lock:
            parallel(worker, call, threads)
    elif threads >= (before := numba.get_num_threads()):
        parallel(worker, call, threads)
    else:  # Numba's loops of this Python thread take no more threads than there is work for
        numba.set_num_threads(threads)
        try:
            parallel(worker, call, threads)
        finally:
            numba.set_num_threads(before)


def allowed() -> int:
    """Return how many threads a call may use."""
    return 1 if _forked else get_num_threads()


@functools.cache
def _compiled(*, parallel: bool):
    """Compile what calls workers, once and for all of them."""

    def on_threads(worker, call, threads):
        for thread in prange(threads):
            run_worker(worker, call, thread)

    def on_this_thread(worker, call):
        run_worker(worker, call, 0)

    function = on_threads if parallel else on_this_thread
    function.__qualname__ += f"_{sources()}"
    signature = types.void(*[types.int64] * (3 if parallel else 2))
    return kept_on_disk(
        lambda cache: njit(signature, nogil=True, parallel=parallel, cache=cache)(function)
    )


_lock = threading.Lock()


@functools.cache
def _concurrent() -> bool:
    """Whether the layer that Numba has loaded is safe to enter from several threads."""
    with _lock:
        _compiled(parallel=True)
        numba.set_num_threads(numba.get_num_threads())  # loads it
        try:
            return numba.threading_layer() in ("omp", "tbb")
        except ValueError:  # not loaded yet
            return False
