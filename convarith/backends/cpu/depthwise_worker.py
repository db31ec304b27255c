"""The worker of a depthwise convolution: windows over strips; see `window`.

A *strip* is a few rows of outputs, or a part of them, and all channels. A piece of work is some
strips that follow each other, and a block of channels.
"""

from __future__ import annotations

import functools

import numpy as np
from numba import carray

from . import compiled
from .depthwise_kernel import OUTPUTS
from .native import pointer, run_tile, take_next

_int = np.int64

#: A part of a row.
PART = np.dtype([(name, _int) for name in ("range", "x_offset", "c_offset")])
#: As many channels as a window has lanes.
PANEL = np.dtype([(name, _int) for name in ("offset", "lanes", "last")])
#: Panels of one piece of work.
BLOCK = np.dtype([(name, _int) for name in ("first", "stop")])
#: What a worker is called with. Strides are in bytes, over (n, z, y, x).
CALL = np.dtype(
    [
        *((name, _int) for name in ("counter", "source", "packed", "out")),
        *((name, _int) for name in ("scale", "bias", "residual", "activation")),
        *((name, _int, 3) for name in ("kernel", "size", "output", "step", "dilation", "low")),
        ("source_strides", _int, 4),
        ("result_strides", _int, 4),
        *((name, _int) for name in ("rows", "apart", "row_groups", "line_step")),
        *((name, _int) for name in ("x_step", "x_class", "c_step", "tap")),
        *((name, _int) for name in ("parts", "part_count", "panels", "panel_count")),
        *((name, _int) for name in ("blocks", "block_count", "kernels", "kernel_count")),
        *((name, _int) for name in ("strips", "chunk", "chunks", "runs", "units")),
        *((name, _int) for name in ("scratch", "scratch_nbytes")),
    ]
)
#: What one thread needs.
SCRATCH = -(-OUTPUTS.itemsize // 64) * 64


@functools.cache
def worker() -> int:
    """Return the address of the worker, compiled on first use."""
    return compiled.address(compiled.WORKER, slide)


def slide(call_address, thread):
    """Take pieces of work until there are none left."""
    call = carray(pointer(call_address), 1, CALL)[0]
    parts = carray(pointer(call.parts), call.part_count, PART)
    panels = carray(pointer(call.panels), call.panel_count, PANEL)
    blocks = carray(pointer(call.blocks), call.block_count, BLOCK)
    kernels = carray(pointer(call.kernels), call.kernel_count, np.int64)
    scratch = call.scratch + thread * call.scratch_nbytes
    window = carray(pointer(scratch), 1, OUTPUTS)[0]
    source, result = call.source_strides, call.result_strides
    window.x_line = call.line_step * source[2]
    window.x_line_class = call.dilation[1] * source[2]
    window.x_step, window.x_class, window.c_step = call.x_step, call.x_class, call.c_step
    window.c_row = call.apart * result[2]
    window.tap_row, window.tap = call.kernel[2] * call.tap, call.tap
    window.scale = window.bias = window.residual = 0
    window.activation = call.activation
    while True:
        unit = take_next(call.counter)
        if unit >= call.units:
            return
        # Threads begin far from each other, and each goes on where it has read before.
        unit, b = divmod(unit, call.block_count)
        unit, run = divmod(unit, call.runs)
        chunk = run * (call.units // (call.runs * call.block_count)) + unit
        block = blocks[b]
        for strip in range(chunk * call.chunk, min((chunk + 1) * call.chunk, call.strips)):
            rest, part = divmod(strip, call.part_count)
            here = parts[part]
            rest, group = divmod(rest, call.row_groups)
            n, z = divmod(rest, call.output[0])
            group, first = divmod(group, call.apart)
            first += group * call.apart * call.rows
            count = min(call.rows, (call.output[1] - 1 - first) // call.apart + 1)
            height = call.kernel[1]
            x_z = z * call.step[0] - call.low[0]
            if x_z < 0 or x_z >= call.size[0]:
                height = 0
            top = first * call.step[1] - call.low[1]
            bottom = (first + (count - 1) * call.apart) * call.step[1] - call.low[1]
            bottom += (height - 1) * call.dilation[1]
            several = count == call.rows and top >= 0 and bottom < call.size[1] and height > 0
            x_plane = call.source + n * source[0] + x_z * source[1] + here.x_offset
            c_plane = n * result[0] + z * result[1] + here.c_offset
            window.range = here.range
            for j in range(1 if several else count):
                y = first + j * call.apart
                top = y * call.step[1] - call.low[1]
                start = min(height, max(0, -(top // call.dilation[1])))
                stop = min(height, (call.size[1] - 1 - top) // call.dilation[1] + 1)
                stop = max(start, stop)
                x = x_plane + (top + start * call.dilation[1]) * source[2]
                at = c_plane + y * result[2]
                taps = call.packed + start * window.tap_row
                which = 4 * (stop - start) + 2 * several
                for p in range(block.first, block.stop):
                    panel = panels[p]
                    window.x = x + panel.offset
                    window.c = call.out + at + panel.offset
                    window.taps = taps + panel.offset
                    window.lanes = panel.lanes
                    if call.scale:
                        window.scale = call.scale + panel.offset
                    if call.bias:
                        window.bias = call.bias + panel.offset
                    if call.residual:
                        window.residual = call.residual + at + panel.offset
                    run_tile(kernels[which + panel.last], scratch)
