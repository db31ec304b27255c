"""The workers of Winograd's algorithm: transformed sources times transformed taps, transformed.

A *square* is m x m results of one job (a phase of each axis) and the n x n sources that they
read. A block of squares is transformed to V, laid out ``[product][square][channel]``; each of the
n*n products is a multiplication by tiles, for a panel of the packed kernel M, laid out
``[product][square][lane]``; and M is transformed to results.

A piece of work is all of that for one block, V and M being the thread's own. Where there are few
squares, or the kernel is so large that it should be read once rather than once a block, two calls
share the work of some blocks, and V: in the first one a piece is some squares of a block, in the
second one a panel of it.

A kernel may also be given as its taps, which take less memory: who takes a panel in a second call
then transforms it first.

A window that leaves the source is copied with zeros around it first, and results of which some
lie outside are staged. The last panel may overlap the one before: what both write is the same.
"""

from __future__ import annotations

from .intrinsics import copy, entries, inlined, run_tile, take_next
from .tile import SEGMENT, SEGMENT_NBYTES, TILE, TILE_NBYTES
from .winograd_records import ALL, CALL, FIRST_HALF, HEAD, JOB, PACK, PANEL, SECOND_HALF
from .winograd_transforms import TRANSFORM
from .winograd_window import ONE_STEP, point_at_window


@inlined
def _transform_sources(call, job, first, stop, v, transform, transform_address, window):
    """Transform the sources of squares to V."""
    pixel = call.source_strides[2]
    transform.product = call.v_product
    transform.last = pixel - call.vector
    for square in range(first, stop):
        rest, square_x = divmod(square, job.squares[1])
        image, square_y = divmod(rest, job.squares[0])
        y = job.first[0] + square_y * call.m
        x = job.first[1] + square_x * call.m
        at = call.source + image * call.source_strides[0]
        point_at_window(
            transform, at, y, x, call.n, call.source_size, call.source_strides, ONE_STEP, window
        )
        transform.products = v
        run_tile(call.of_sources, transform_address)
        v += pixel


@inlined
def _multiply(call, b, b_product, panel, squares, v, products, tile, tile_address):
    """Multiply V by a panel of the kernel."""
    tile.a_row = call.source_strides[2]
    tile.ahead = b_product
    tile.b_step = panel.nbytes
    tile.c_row = panel.nbytes
    for _ in range(call.n * call.n):
        tile.b = b
        square = 0
        while square < squares:
            at = min(square, squares - call.rows)  # the last tile overlaps the one before
            tile.a = v + at * tile.a_row
            tile.c = products + at * tile.c_row
            square += call.rows
            run_tile(panel.kernel if square < squares else panel.kernel_last, tile_address)
        b += b_product
        v += call.v_product
        products += call.m_product


@inlined
def _transform_taps(call, panel, taps, b, b_product, transform, transform_address):
    """Transform the taps of a panel to products of the kernel."""
    transform.pixel = call.tap
    transform.row = call.r * call.tap
    transform.product = b_product
    transform.last = panel.nbytes - call.vector
    transform.window = taps
    transform.products = b
    for _ in range(call.depth):
        run_tile(call.of_taps, transform_address)
        transform.window += call.tap // call.depth
        transform.products += panel.nbytes


@inlined
def _transform_products(
    call, job, panel, first, stop, products, transform, transform_address, staged
):
    """Transform the products of squares and a panel to results."""
    m, nbytes = call.m, panel.nbytes
    line, pixel = call.result_strides[1], call.result_strides[2]
    row, step = line * call.result_step[0], pixel * call.result_step[1]
    transform.product = call.m_product
    transform.last = nbytes - call.vector
    transform.scale = call.scale + panel.c_offset if call.scale else 0
    transform.bias = call.bias + panel.c_offset if call.bias else 0
    for square in range(first, stop):
        rest, square_x = divmod(square, job.squares[1])
        image, square_y = divmod(rest, job.squares[0])
        height = min(m, job.count[0] - square_y * m)
        width = min(m, job.count[1] - square_x * m)
        at = image * call.result_strides[0] + panel.c_offset
        at += job.start[0] * line + square_y * m * row
        at += job.start[1] * pixel + square_x * m * step
        transform.products = products
        products += nbytes
        if height == m and width == m:
            transform.window = call.out + at
            transform.row = row
            transform.pixel = step
            transform.residual = call.residual + at if call.residual else 0
            run_tile(call.of_products, transform_address)
            continue
        transform.window = staged
        transform.row = m * nbytes
        transform.pixel = nbytes
        transform.residual = 0
        if call.residual:
            transform.residual = staged + m * m * nbytes
            for y in range(height):
                for x in range(width):
                    target = transform.residual + (y * m + x) * nbytes
                    copy(target, call.residual + at + y * row + x * step, nbytes)
        run_tile(call.of_products, transform_address)
        for y in range(height):
            for x in range(width):
                copy(call.out + at + y * row + x * step, staged + (y * m + x) * nbytes, nbytes)


def winograd(call_address, thread):
    """Take pieces of work until there are none left."""
    call = entries(call_address, CALL)[0]
    jobs = entries(call.jobs, JOB)
    panels = entries(call.panels, PANEL)
    scratch = call.scratch + thread * call.scratch_nbytes
    tile = entries(scratch, TILE)[0]
    segment = entries(scratch + TILE_NBYTES, SEGMENT)[0]
    transform_address = scratch + TILE_NBYTES + SEGMENT_NBYTES
    transform = entries(transform_address, TRANSFORM)[0]
    n2 = call.n * call.n
    window = scratch + HEAD
    staged = window + (n2 * call.source_strides[2] + 63) // 64 * 64
    products = staged + 2 * n2 * call.panel_nbytes
    own = products + n2 * call.m_product
    segment.a_offset = 0
    segment.b_offset = 0
    tile.a_step = call.itemsize
    tile.segments = scratch + TILE_NBYTES
    tile.count = 1
    tile.length = call.depth
    tile.lanes = call.vector // call.itemsize
    tile.accumulate = 0
    tile.scale = 0
    tile.bias = 0
    tile.residual = 0
    tile.activation = 0
    transform.activation = call.activation
    while True:
        unit = take_next(call.counter)
        piece, place = divmod(unit, call.block_count)  # pieces of one panel side by side
        if piece >= call.pieces:
            return
        job_index, block = divmod(call.first_block + place, call.blocks)
        job = jobs[job_index]
        squares = call.batch * job.squares[0] * job.squares[1]
        first = squares * block // call.blocks
        squares = squares * (block + 1) // call.blocks - first
        v = own if call.part == ALL else call.shared + place * call.shared_nbytes
        if call.part != SECOND_HALF:
            start = squares * piece // call.pieces
            stop = squares * (piece + 1) // call.pieces
            at = v + start * call.source_strides[2]
            _transform_sources(
                call, job, first + start, first + stop, at, transform, transform_address, window
            )
        if call.part == FIRST_HALF:
            continue
        panel_stop = call.panel_count if call.part == ALL else piece + 1
        for p in range(piece, panel_stop):
            panel = panels[p]
            b, b_product = call.packed + job.packed + panel.b_offset, call.depth * panel.nbytes
            if call.of_taps:
                taps, b, b_product = call.packed + panel.c_offset, own, call.b_product
                _transform_taps(call, panel, taps, b, b_product, transform, transform_address)
            _multiply(call, b, b_product, panel, squares, v, products, tile, scratch)
            _transform_products(
                call,
                job,
                panel,
                first,
                first + squares,
                products,
                transform,
                transform_address,
                staged,
            )


def pack(call_address, thread):
    """Transform the taps of one panel of one job after the other."""
    call = entries(call_address, PACK)[0]
    panels = entries(call.panels, PANEL)
    transform_address = call.scratch + thread * call.scratch_nbytes
    transform = entries(transform_address, TRANSFORM)[0]
    while True:
        unit = take_next(call.counter)
        if unit >= call.units:
            return
        job, p = divmod(unit, call.panel_count)
        panel = panels[p]
        taps = call.taps + job * call.r * call.r * call.tap + panel.c_offset
        b = call.packed + job * call.job_nbytes + panel.b_offset
        b_product = call.depth * panel.nbytes
        _transform_taps(call, panel, taps, b, b_product, transform, transform_address)
