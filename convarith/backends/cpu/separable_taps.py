"""What the kernels of separable products have in common: taps, each a source and its weights."""

from __future__ import annotations

from llvmlite import ir

from .emitter import Emitter
from .native import BYTES, I64, offset

#: Taps that a kernel of its own holds in registers; 0 is the one for any number.
MOST_TAPS = 4


class TapsEmitter(Emitter):
    """Generates what reads taps: of ``sources`` the addresses, ``weights_step`` bytes apart."""

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
