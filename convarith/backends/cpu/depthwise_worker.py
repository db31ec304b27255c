"""The worker of a depthwise convolution: windows over strips; see `window`.

A *strip* is a few rows of outputs, or a part of them, and all channels. A piece of work is some
strips that follow each other, and a group of panels of channels.
"""

from __future__ import annotations

import numpy as np

from .depthwise_kernel import OUTPUTS
from .depthwise_records import CALL, PART
from .intrinsics import entries, run_tile, take_next
from .window import GROUP


def depthwise(call_address, thread):
    """Take pieces of work until there are none left."""
    call = entries(call_address, CALL)[0]
    parts = entries(call.parts, PART)
    groups = entries(call.groups, GROUP)
    kernels = entries(call.kernels, np.int64)
    scratch = call.scratch + thread * call.scratch_nbytes
    window = entries(scratch, OUTPUTS)[0]
    source, result = call.source_strides, call.result_strides
    window.x_line = call.line_step * source[2]
    window.x_line_class = call.dilation[1] * source[2]
    window.x_step, window.x_class, window.c_step = call.x_step, call.x_class, call.c_step
    window.c_row = call.apart * result[2]
    window.taps_panel = call.kernel[1] * call.kernel[2] * call.tap
    window.activation = call.activation
    while True:
        unit = take_next(call.counter)
        if unit >= call.units:
            return
        # Threads begin far from each other, and each goes on where it has read before.
        unit, g = divmod(unit, call.group_count)
        unit, run = divmod(unit, call.runs)
        chunk = run * (call.units // (call.runs * call.group_count)) + unit
        group = groups[g]
        channels = group.first * call.tap
        for strip in range(chunk * call.chunk, min((chunk + 1) * call.chunk, call.strips)):
            rest, part = divmod(strip, call.part_count)
            here = parts[part]
            rest, rows = divmod(rest, call.row_groups)
            n, z = divmod(rest, call.output[0])
            rows, first = divmod(rows, call.apart)
            first += rows * call.apart * call.rows
            count = min(call.rows, (call.output[1] - 1 - first) // call.apart + 1)
            height = call.kernel[1]
            x_z = z * call.step[0] - call.low[0]
            if x_z < 0 or x_z >= call.size[0]:
                height = 0
            top = first * call.step[1] - call.low[1]
            bottom = (first + (count - 1) * call.apart) * call.step[1] - call.low[1]
            bottom += (height - 1) * call.dilation[1]
            several = count == call.rows and top >= 0 and bottom < call.size[1] and height > 0
            x_plane = call.source + n * source[0] + x_z * source[1] + here.x_offset + channels
            c_plane = n * result[0] + z * result[1] + here.c_offset + channels
            window.range = here.range
            for j in range(1 if several else count):
                y = first + j * call.apart
                top = y * call.step[1] - call.low[1]
                start = min(height, max(0, -(top // call.dilation[1])))
                stop = min(height, (call.size[1] - 1 - top) // call.dilation[1] + 1)
                stop = max(start, stop)
                x = x_plane + (top + start * call.dilation[1]) * source[2]
                c = c_plane + y * result[2]
                taps = call.packed + group.first * window.taps_panel
                taps += start * call.kernel[2] * call.tap
                which = 4 * (stop - start) + 2 * several
                for partial in range(2):
                    moved = partial * group.panels * call.tap
                    window.panels = group.lanes > 0 if partial else group.panels
                    if window.panels:
                        window.x, window.c = x + moved, call.out + c + moved
                        window.taps = taps + partial * group.panels * window.taps_panel
                        window.lanes = group.lanes
                        window.scale = window.bias = window.residual = 0
                        if call.scale:
                            window.scale = call.scale + channels + moved
                        if call.bias:
                            window.bias = call.bias + channels + moved
                        if call.residual:
                            window.residual = call.residual + c + moved
                        run_tile(kernels[which + partial], scratch)
