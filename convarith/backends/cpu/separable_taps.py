"""What the kernels of separable products have in common: taps, each a source and its weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from llvmlite import ir

from .emitter import Emitter
from .native import BYTES, I64, offset

#: Taps that a kernel of its own holds in registers; 0 is the one for any number.
MOST_TAPS = 4


class TapsEmitter(Emitter):
    """Generates what reads taps: of ``sources`` the addresses, ``weights_step`` bytes apart.

    Attributes
    ----------
    taps : int
        How many there are, or 0 for as many as ``count``.
    """

    taps: int

    def _source(self, t: ir.Value) -> ir.Value:
        """Return the address of a tap's source."""
        at = offset(self.builder, self._pointer("sources"), self.builder.shl(t, I64(3)))
        return self.builder.inttoptr(self._load_int(at), BYTES)

    def _weight(
        self, t: ir.Value, channel: ir.Value | None = None, *, name: str = "weights"
    ) -> ir.Value:
        """Return the weights of a tap, from `channel` on, or the one of all channels."""
        b = self.builder
        at = offset(b, self._pointer(name), b.mul(t, self.arguments["weights_step"]))
        if channel is not None:
            return self._load(offset(b, at, channel))
        scalar = b.load(b.bitcast(at, self.element.type.as_pointer()))
        scalar.align = self.itemsize
        return self._splat(scalar)

    def _over_taps(
        self, sums: Sequence[ir.Value], add: Callable[..., Sequence[ir.Value]]
    ) -> Sequence[ir.Value]:
        """Return the sums after ``sums = add(t, sums)`` for each tap in turn.

        Where their number is known, t is a Python integer: what is the same for all pixels has
        been loaded before the loop over these.
        """
        if self.taps:
            for t in range(self.taps):
                sums = add(t, sums)
            return sums
        b = self.builder

        def going(t, *running):
            return b.icmp_signed("<", t, self.arguments["count"])

        def body(t, *running):
            return b.add(t, I64(1)), *add(t, running)

        return self._while([I64(0), *sums], going, body)[1:]
