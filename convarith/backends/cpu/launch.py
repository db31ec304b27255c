"""Running a worker: on several threads, or on the caller's own where that is better or needed.

A worker is compiled code ``void f(call, thread)``; each thread takes its next piece of work from
a counter of the call, so that a thread that is held up holds up nobody else. Numba's OpenMP
layer starts them, in 1.4 microseconds; one parallel function serves every kernel.
"""

from __future__ import annotations

import functools
import os
import struct
import threading
from typing import Any

import numba
import numpy as np
from numba import njit, prange, types

from ...threads import get_num_threads
from . import pool
from .blocks import SMALL_WORK
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
        Of int64 alone: first ``counter``, then what each call gives, and somewhere ``scratch``.
    nbytes : int
        Of the scratch of all threads.
    **fields
        What all calls share. An array stands for its address, and lives as long as this.
    """

    def __init__(self, worker: int, record: np.dtype, nbytes: int, /, **fields: Any) -> None:
        self.worker = worker
        self._head = -(-record.itemsize // 64) * 64 + 128
        self._size = (self._head + nbytes) // 8 + 8
        self._counter = self._head // 8 - 8
        self._idle: list[tuple[memoryview, int]] = []  # blocks; popping one is atomic
        self._arrays = [value for value in fields.values() if isinstance(value, np.ndarray)]
        filled = np.zeros((), record)
        for name, value in fields.items():
            filled[name] = pool.address(value) if isinstance(value, np.ndarray) else value
        names = list(record.names or ())
        given = next(at for at, name in enumerate(names[1:]) if name in {*fields, "scratch"})
        assert names[0] == "counter" and {*names[1 + given :]} == {*fields, "scratch"}
        #: Writes what one call gives, all at once: one by one they would take three times as long.
        self._write = struct.Struct(f"{given}q").pack_into
        self._scratch = filled.dtype.fields["scratch"][1] // 8
        self._template = np.zeros(self._head // 8, np.int64)
        self._template[: record.itemsize // 8] = np.frombuffer(filled.tobytes(), np.int64)

    def run(self, threads: int, *given: np.ndarray | int | None) -> None:
        """Run the worker with this call's fields, the first after ``counter``, in their order.

        None is 0, an array its address.
        """
        try:
            block = self._idle.pop()
        except IndexError:
            block = self._block()
        memory, address = block
        memory[self._counter] = memory[self._counter + 1] = 0
        address_of = pool.address
        numbers = [address_of(v) if type(v) is np.ndarray else v or 0 for v in given]
        self._write(memory, 8, *numbers)
        run(self.worker, address, threads)
        if len(memory) <= _MOST_KEPT // 8:
            self._idle.append(block)

    def _block(self) -> tuple[memoryview, int]:
        """Return memory for one call at a time, filled in as far as all calls are alike."""
        memory = pool.empty((self._size,), _INT)
        memory = memory[-pool.address(memory) // 8 % 8 :]  # from the start of a cache line on
        address = pool.address(memory)
        memory[: len(self._template)] = self._template
        memory[0] = address + 8 * self._counter
        memory[self._scratch] = address + self._head
        return memory.data, address


_INT = np.dtype(np.int64)
#: Bytes of a block that a call keeps for the next; larger ones go back to the pool.
_MOST_KEPT = 2**17


def run(worker: int, call: int, threads: int) -> None:
    """Call the worker with numbers 0 to `threads` - 1, and return when all have."""
    if threads <= 1 or _forked:
        _compiled()(worker, call)
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


def allowed(work: int) -> int:
    """Return how many threads a call of so many multiply-adds may use."""
    return 1 if work < SMALL_WORK or _forked else get_num_threads()


@functools.cache
def _compiled(*, parallel: bool = False):
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
