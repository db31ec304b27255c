"""Where evenly spaced operands lie, in few registers.

LLVM likes to keep a pointer for each place of a loop, and spills what it has no registers for. So
the few that addresses are made of are hidden from it.
"""

from __future__ import annotations

from llvmlite import ir

from .native import I64, offset


def hidden(builder: ir.IRBuilder, value: ir.Value) -> ir.Value:
    """Return the value such that LLVM does not know how it came about."""
    return builder.asm(ir.FunctionType(value.type, [value.type]), "", "=r,0", [value], False)


class Distance:
    """So many bytes from each place to the next, known to the kernel or by an argument.

    What is not known is addressed from a pointer for each GROUP, by two multiples of the distance.
    """

    GROUP = 5  # x86 addresses a pointer + (0, 1, 2, 3, 4)*step

    def __init__(self, builder: ir.IRBuilder, nbytes: int | ir.Value) -> None:
        self.builder, self.nbytes = builder, nbytes
        self.is_known = isinstance(nbytes, int)
        self._groups: dict[tuple[ir.Value, int], ir.Value] = {}
        if not isinstance(nbytes, int):
            one = hidden(builder, nbytes)
            three = hidden(builder, builder.mul(nbytes, I64(3)))
            self.multiples = [None, one, builder.shl(one, I64(1)), three, builder.shl(one, I64(2))]

    def moved(self, pointer: ir.Value, count: int) -> ir.Value:
        """Return a pointer to `count` places on, which may be 0."""
        if isinstance(self.nbytes, int):
            return offset(self.builder, pointer, count * self.nbytes)
        return offset(self.builder, pointer, self.builder.mul(self.nbytes, I64(count)))

    def at(self, pointer: ir.Value, count: int) -> ir.Value:
        """Return the address of `count` places on."""
        if self.is_known:
            return self.moved(pointer, count)
        group, place = divmod(count, self.GROUP)
        if group:
            if (pointer, group) not in self._groups:
                moved = self.moved(pointer, group * self.GROUP)
                self._groups[pointer, group] = hidden(self.builder, moved)
            pointer = self._groups[pointer, group]
        return offset(self.builder, pointer, self.multiples[place]) if place else pointer
