"""LLVM's words for what every kernel is made of: integers, bytes, addresses."""

from __future__ import annotations

from llvmlite import ir

I1, I8, I64 = ir.IntType(1), ir.IntType(8), ir.IntType(64)
BYTES = I8.as_pointer()
#: Bytes of a cache's line, and what is copied in registers at a time.
LINE = PIECE = 64


def offset(builder: ir.IRBuilder, pointer: ir.Value, nbytes: ir.Value | int) -> ir.Value:
    """Return a byte pointer moved by `nbytes`."""
    if isinstance(nbytes, int):
        if nbytes == 0:
            return pointer
        nbytes = I64(nbytes)
    return builder.gep(pointer, [nbytes], source_etype=I8)
