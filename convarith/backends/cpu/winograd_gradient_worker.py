"""The worker of the kernel gradient by Winograd's algorithm: two parts, one after the other.

First the sources of a chunk of squares are transformed to V, and the gradients of their results
to U, laid out ``[product][block or panel][square][channel]``. A piece is some squares of one
operand: g, or x as one job, a residue of the taps modulo the strides, sees it.

Then a piece is a block of the source's channels times a span of panels of the result's. Each of
the n*n products is summed over the squares of the chunk by tiles whose rows are channels of the
block; the sums M, laid out ``[product][channel][lane]``, are the thread's own, and are transformed
to the taps of one channel after the other: written by the first chunk, added to by the others.
Taps are far apart, and each is written in pieces as long as a span.

The last block and the last panel may overlap the one before. What would then be added twice is
left out: such channels of a block are skipped, and a panel that has any goes through scratch, a
span by itself.
"""

from __future__ import annotations

from .intrinsics import copy, entries, inlined, run_tile, take_next
from .tile import SEGMENT, SEGMENT_NBYTES, TILE, TILE_NBYTES
from .winograd_gradient_records import CALL, JOB, OPERAND, PART, SPAN, TRANSFORMS
from .winograd_records import HEAD
from .winograd_transforms import TRANSFORM
from .winograd_window import point_at_window


@inlined
def _transform(call, operand, start, stop, transform, transform_address, copied):
    """Transform squares `start` to `stop` of the chunk."""
    parts = entries(operand.parts, PART)
    array = call.g if operand.of_g else call.x
    transform.product = operand.product
    for place in range(start, stop):
        rest, square_x = divmod(call.first + place, call.squares[1])
        image, square_y = divmod(rest, call.squares[0])
        point_at_window(
            transform,
            array + image * operand.strides[0],
            operand.first[0] + square_y * operand.advance[0],
            operand.first[1] + square_x * operand.advance[1],
            operand.length,
            operand.size,
            operand.strides,
            operand.step,
            copied,
        )
        window = transform.window
        for p in range(operand.part_count):
            part = parts[p]
            transform.window = window + part.start
            transform.products = call.shared + operand.offset
            transform.products += call.chunk * part.before + place * part.nbytes
            transform.last = part.nbytes - call.vector
            run_tile(operand.transform, transform_address)


@inlined
def _sum_products(call, job, block, span, panels, products, tile, tile_address):
    """Sum each product over the squares, for all channels of a block and a span."""
    tile.a_step = block.nbytes
    tile.c_row = span.nbytes
    v = call.shared + job.v_offset + call.chunk * block.before
    u = call.shared + call.u_offset
    for _ in range(call.n * call.n):
        for run in range(call.runs):
            first = call.count * run // call.runs
            tile.length = call.count * (run + 1) // call.runs - first
            tile.accumulate = run
            for p in range(span.first, span.stop):
                panel = panels[p]
                tile.b_step = panel.nbytes
                tile.b = u + call.chunk * panel.before + first * panel.nbytes
                sums = products + panel.start - span.start
                for row in range(0, block.count, call.rows):
                    at = min(row, block.count - call.rows)  # the last tile reads what others do
                    tile.a = v + first * block.nbytes + at * call.itemsize
                    tile.c = sums + row * span.nbytes
                    run_tile(panel.kernel, tile_address)
        v += call.v_product
        u += call.u_product
        products += call.m_product


@inlined
def _transform_sums(call, job, block, span, products, transform, transform_address, staged):
    """Transform the sums of a block and a span to taps."""
    r, nbytes = call.r, span.nbytes
    skipped = span.another * call.itemsize
    last = (block.count - 1) // call.rows * call.rows  # the last tile's first row of M
    transform.product = call.m_product
    transform.last = nbytes - call.vector
    for channel in range(block.another, block.count):
        row = channel if channel < last else channel + last + call.rows - block.count
        transform.products = products + row * nbytes
        at = call.out + job.c_offset + (block.first + channel) * call.c_row + span.start
        transform.residual = 0
        if skipped == 0:
            transform.window = at
            transform.row = call.tap_row
            transform.pixel = call.tap_pixel
            if call.first:
                transform.residual = at
            run_tile(call.of_sums, transform_address)
            continue
        transform.window = staged
        transform.row = r * nbytes
        transform.pixel = nbytes
        if call.first:
            transform.residual = staged + r * r * nbytes
            for y in range(r):
                for x in range(r):
                    target = transform.residual + (y * r + x) * nbytes + skipped
                    source = at + y * call.tap_row + x * call.tap_pixel + skipped
                    copy(target, source, nbytes - skipped)
        run_tile(call.of_sums, transform_address)
        for y in range(r):
            for x in range(r):
                target = at + y * call.tap_row + x * call.tap_pixel + skipped
                copy(target, staged + (y * r + x) * nbytes + skipped, nbytes - skipped)


def winograd_gradient(call_address, thread):
    """Take pieces of work of one part until there are none left."""
    call = entries(call_address, CALL)[0]
    operands = entries(call.operands, OPERAND)
    jobs = entries(call.jobs, JOB)
    blocks = entries(call.blocks, PART)
    panels = entries(call.panels, PART)
    spans = entries(call.spans, SPAN)
    scratch = call.scratch + thread * call.scratch_nbytes
    tile = entries(scratch, TILE)[0]
    segment = entries(scratch + TILE_NBYTES, SEGMENT)[0]
    transform_address = scratch + TILE_NBYTES + SEGMENT_NBYTES
    transform = entries(transform_address, TRANSFORM)[0]
    segment.a_offset = 0
    segment.b_offset = 0
    tile.a_row = call.itemsize
    tile.segments = scratch + TILE_NBYTES
    tile.count = 1
    tile.lanes = call.vector // call.itemsize
    tile.scale = 0
    tile.bias = 0
    tile.residual = 0
    tile.activation = 0
    transform.scale = 0
    transform.bias = 0
    transform.activation = 0
    while True:
        unit = take_next(call.counter)
        if call.part == TRANSFORMS:
            place, piece = divmod(unit, call.pieces)
            if place >= call.operand_count:
                return
            start = call.count * piece // call.pieces
            stop = call.count * (piece + 1) // call.pieces
            _transform(
                call, operands[place], start, stop, transform, transform_address, scratch + HEAD
            )
            continue
        rest, s = divmod(unit, call.span_count)  # one block side by side with all spans
        place, b = divmod(rest, call.block_count)
        if place >= call.job_count:
            return
        products = scratch + call.products
        _sum_products(call, jobs[place], blocks[b], spans[s], panels, products, tile, scratch)
        _transform_sums(
            call,
            jobs[place],
            blocks[b],
            spans[s],
            products,
            transform,
            transform_address,
            scratch + call.staged,
        )
