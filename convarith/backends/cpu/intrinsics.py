"""What workers need and Numba's Python has no word for: records, copies, calls, a counter.

Addresses are int64 throughout. Nothing here checks one; the plans that compute them do.
"""

from __future__ import annotations

import functools
import operator

from llvmlite import ir
from numba import njit, types
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model

from .native import BYTES, I1, I8, I64, offset

#: Compiles a function for workers: it must have nothing to raise, counts no references, and is not
#: called from Python.
inlined = functools.partial(
    njit, _nrt=False, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True
)


class Entries(types.Type):
    """Records that follow each other from an address on, however many there are."""

    def __init__(self, dtype: types.Record) -> None:
        self.dtype = dtype
        super().__init__(name=f"Entries({dtype})")


register_model(Entries)(models.OpaqueModel)


@infer_global(operator.getitem)
class _OfEntries(AbstractTemplate):
    def generic(self, args, kws):
        if isinstance(args[0], Entries) and isinstance(args[1], types.Integer):
            return signature(args[0].dtype, args[0], types.int64)
        return None


@lower_builtin(operator.getitem, Entries, types.Integer)
def _entry(context, builder, sig, args):
    moved = builder.mul(args[1], I64(sig.return_type.size))
    record = offset(builder, args[0], moved)
    return builder.bitcast(record, context.get_value_type(sig.return_type))


@intrinsic
def entries(typing, address, dtype):
    """Return what lies at an address: numbers or records of a dtype, to read and write."""
    kind = dtype.dtype
    several = Entries(kind) if isinstance(kind, types.Record) else types.CPointer(kind)

    def generate(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], context.get_value_type(several))

    return several(types.int64, dtype), generate


@intrinsic
def copy(typing, target, source, nbytes):
    """Copy bytes from one address to another; the two do not overlap."""
    signature = types.void(types.int64, types.int64, types.int64)

    def generate(context, builder, signature, arguments):
        target, source, nbytes = arguments
        function = builder.module.declare_intrinsic(
            "llvm.memcpy.p0.p0.i64", (), ir.FunctionType(ir.VoidType(), [BYTES, BYTES, I64, I1])
        )
        pointers = [builder.inttoptr(address, BYTES) for address in (target, source)]
        builder.call(function, [*pointers, nbytes, I1(0)])
        return context.get_dummy_value()

    return signature, generate


@intrinsic(prefer_literal=True)
def move(typing, target, source, nbytes):
    """Copy 4 bytes, or a power of two more that is a constant: in registers."""
    signature = types.void(target, source, nbytes)

    def generate(context, builder, signature, arguments):
        words = ir.VectorType(ir.IntType(32), signature.args[2].literal_value // 4)
        target, source = (builder.inttoptr(a, words.as_pointer()) for a in arguments[:2])
        loaded = builder.load(source, typ=words)
        loaded.align = 4
        builder.store(loaded, target).align = 4
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def clear(typing, target, nbytes):
    """Set bytes to zero."""
    signature = types.void(types.int64, types.int64)

    def generate(context, builder, signature, arguments):
        target, nbytes = arguments
        function = builder.module.declare_intrinsic(
            "llvm.memset.p0.i64", (), ir.FunctionType(ir.VoidType(), [BYTES, I8, I64, I1])
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
