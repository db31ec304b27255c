"""Running a worker: on several threads, or on the caller's own where that is better or needed.

A worker is compiled code ``void f(call, thread)``; each thread takes its next piece of work from
a counter of the call, so that a thread that is held up holds up nobody else.
"""

from __future__ import annotations

import ctypes
import functools
import struct
from typing import Any

import numpy as np
from llvmlite import ir

from ...threads import cores, forked, get_num_threads
from . import compiled, pool
from .blocks import SMALL_WORK
from .native import I64
from .team import team

_WORKER = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64)

#: Words of the cache line that a call's threads write to: two counters, how many threads have come;
#: and of what they read first: the worker's address and the call's.
CAME, WORKER, CALL = 2, 3, 4


class Call:
    """What a worker is called with, but for the arrays of one call.

    In memory it is the record, its counters in a cache line of their own, and the threads' scratch.

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
        self._worker, self._alone = worker, _WORKER(worker)
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
        line = self._counter
        memory[line] = memory[line + 1] = memory[line + CAME] = 0
        address_of = pool.address
        numbers = [address_of(v) if type(v) is np.ndarray else v or 0 for v in given]
        self._write(memory, 8, *numbers)
        if threads <= 1 or forked():
            self._alone(address, 0)
        else:
            team()(_start(), address + 8 * line, min(threads, cores()))
        if len(memory) <= _MOST_KEPT // 8:
            self._idle.append(block)

    def _block(self) -> tuple[memoryview, int]:
        """Return memory for one call at a time, filled in as far as all calls are alike."""
        memory = pool.empty((self._size,), _INT)
        memory = memory[-pool.address(memory) // 8 % 8 :]  # from the start of a cache line on
        address = pool.address(memory)
        memory[: len(self._template)] = self._template
        memory[0] = address + 8 * self._counter
        memory[self._counter + WORKER], memory[self._counter + CALL] = self._worker, address
        memory[self._scratch] = address + self._head
        return memory.data, address


_INT = np.dtype(np.int64)
#: Bytes of a block that a call keeps for the next; larger ones go back to the pool.
_MOST_KEPT = 2**17


def allowed(work: int) -> int:
    """Return how many threads a call of so many multiply-adds may use."""
    return 1 if work < SMALL_WORK or forked() else get_num_threads()


@functools.cache
def _start() -> int:
    """Return the address of what each thread of a team runs, with the address of a call's line."""
    return compiled.kernel(start)


def start(builder: ir.IRBuilder, line: ir.Value) -> None:
    """Generate it: call the worker with the call and this thread's number, as they come."""

    def word(place: int) -> ir.Value:
        at = builder.add(line, I64(8 * place))
        return builder.inttoptr(at, I64.as_pointer())

    number = builder.atomic_rmw("add", word(CAME), I64(1), "monotonic")
    kind = ir.FunctionType(ir.VoidType(), [I64, I64])
    worker = builder.inttoptr(builder.load(word(WORKER), typ=I64), kind.as_pointer())
    builder.call(worker, [builder.load(word(CALL), typ=I64), number])
