"""What kernels need and Numba's Python has no word for: addresses, copies, calls, a counter.

Addresses are int64 throughout. Nothing here checks one; the plans that compute them do.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

I1, I8, I64 = ir.IntType(1), ir.IntType(8), ir.IntType(64)
BYTES = I8.as_pointer()
#: Bytes of a cache's line, and what `copy_piece` copies.
LINE = PIECE = 64


def offset(builder: ir.IRBuilder, pointer: ir.Value, nbytes: ir.Value | int) -> ir.Value:
    """Return a byte pointer moved by `nbytes`."""
    if isinstance(nbytes, int):
        if nbytes == 0:
            return pointer
        nbytes = I64(nbytes)
    return builder.gep(pointer, [nbytes], source_etype=I8)


@intrinsic
def pointer(typing, address):
    """Return an address as a pointer, for ``numba.carray``."""

    def generate(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], BYTES)

    return types.voidptr(types.int64), generate


@intrinsic
def copy(typing, target, source, nbytes):
    """Copy bytes from one address to another; the two do not overlap."""
    signature = types.void(types.int64, types.int64, types.int64)

    def generate(context, builder, signature, arguments):
        target, source, nbytes = arguments
        function = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(ir.VoidType(), [BYTES, BYTES, I64, I1]),
            "llvm.memcpy.p0.p0.i64",
        )
        pointers = [builder.inttoptr(address, BYTES) for address in (target, source)]
        builder.call(function, [*pointers, nbytes, I1(0)])
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def copy_piece(typing, target, source):
    """Copy PIECE bytes: in registers, where `copy` calls a function."""
    signature = types.void(types.int64, types.int64)

    def generate(context, builder, signature, arguments):
        piece = ir.VectorType(I64, PIECE // 8).as_pointer()
        target, source = (builder.inttoptr(address, piece) for address in arguments)
        loaded = builder.load(source)
        loaded.align = 1
        builder.store(loaded, target).align = 1
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def clear(typing, target, nbytes):
    """Set bytes to zero."""
    signature = types.void(types.int64, types.int64)

    def generate(context, builder, signature, arguments):
        target, nbytes = arguments
        function = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(ir.VoidType(), [BYTES, I8, I64, I1]),
            "llvm.memset.p0.i64",
        )
        builder.call(function, [builder.inttoptr(target, BYTES), I8(0), nbytes, I1(0)])
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def take_next(typing, counter):
    """Add one to the int64 at an address, atomically; return what it was.

    Who sees the sum of several threads sees all that they wrote before.
    """

    def generate(context, builder, signature, arguments):
        pointer = builder.inttoptr(arguments[0], I64.as_pointer())
        return builder.atomic_rmw("add", pointer, I64(1), "acq_rel")

    return types.int64(types.int64), generate


@intrinsic
def finish_stores(typing):
    """Wait until other threads see what was stored, past the caches as well."""

    def generate(context, builder, signature, arguments):
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic
def run_tile(typing, kernel, tile):
    """Call the tile kernel at an address with the address of its arguments."""
    signature = types.void(types.int64, types.int64)

    def generate(context, builder, signature, arguments):
        kind = ir.FunctionType(ir.VoidType(), [I64])
        builder.call(builder.inttoptr(arguments[0], kind.as_pointer()), arguments[1:])
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def run_worker(typing, worker, call, thread):
    """Call the worker at an address with its call's address and the number of the thread."""
    signature = types.void(types.int64, types.int64, types.int64)

    def generate(context, builder, signature, arguments):
        kind = ir.FunctionType(ir.VoidType(), [I64, I64])
        builder.call(builder.inttoptr(arguments[0], kind.as_pointer()), arguments[1:])
        return context.get_dummy_value()

    return signature, generate
