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

import functools

import numpy as np
from numba import carray, njit

from . import compiled
from .native import copy, pointer, run_tile, take_next
from .tile import SEGMENT, TILE
from .winograd_transforms import TRANSFORM
from .winograd_window import point_at_window

_int = np.int64

#: What is transformed in the first part.
OPERAND = np.dtype(
    [
        *((name, _int) for name in ("of_g", "transform", "length")),  # of g or of x; n or m pixels
        *((name, _int, 2) for name in ("first", "step", "advance", "size")),  # of windows (y, x)
        ("strides", _int, 3),  # in bytes, over (n, y, x)
        *((name, _int) for name in ("parts", "part_count")),  # blocks or panels
        *((name, _int) for name in ("offset", "product")),  # bytes in V and U
    ]
)
#: Taps of one residue of each axis: a product with V and U of its own.
JOB = np.dtype([("v_offset", _int), ("c_offset", _int)])  # in bytes; of the first tap
#: Channels of x (a block) or of g (a panel) in whole vectors, the first ones perhaps another's.
PART = np.dtype(
    [
        (name, _int)
        for name in (
            *("first", "another", "count"),  # channels
            *("start", "nbytes"),  # bytes of a pixel
            "before",  # bytes that a square's parts before this one take in V or U
            "kernel",  # address of the tile kernel of a panel
        )
    ]
)
#: Panels side by side, whose sums are transformed together; as PART has the names.
SPAN = np.dtype([(name, _int) for name in ("first", "stop", "another", "start", "nbytes")])
#: What the worker is called with.
CALL = np.dtype(
    [
        *((name, _int) for name in ("counter", "x", "g", "out", "shared")),
        *((name, _int) for name in ("part", "first", "count", "chunk", "runs")),  # squares
        ("squares", _int, 2),
        *((name, _int) for name in ("n", "r", "itemsize", "vector", "rows")),
        *((name, _int) for name in ("operands", "operand_count", "pieces")),
        *((name, _int) for name in ("jobs", "job_count", "blocks", "block_count")),
        *((name, _int) for name in ("panels", "panel_count", "spans", "span_count", "of_sums")),
        *((name, _int) for name in ("u_offset", "v_product", "u_product", "m_product")),
        *((name, _int) for name in ("tap_row", "tap_pixel", "c_row")),  # bytes of the result
        *((name, _int) for name in ("staged", "products")),  # where they lie in scratch
        *((name, _int) for name in ("scratch", "scratch_nbytes")),
    ]
)
#: The parts.
TRANSFORMS, SUMS = 0, 1
_TILE, _SEGMENT, _TRANSFORM = TILE.itemsize, SEGMENT.itemsize, TRANSFORM.itemsize
#: Scratch that the records take; a copied window follows.
HEAD = -(-(_TILE + _SEGMENT + _TRANSFORM) // 64) * 64


@functools.cache
def worker() -> int:
    """Return the address of the worker, compiled on first use."""
    return compiled.address(compiled.WORKER, winograd_gradient)


@njit
def _transform(call, operand, start, stop, transform, transform_address, copied):
    """Transform squares `start` to `stop` of the chunk."""
    parts = carray(pointer(operand.parts), operand.part_count, PART)
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


@njit
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


@njit
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
    call = carray(pointer(call_address), 1, CALL)[0]
    operands = carray(pointer(call.operands), call.operand_count, OPERAND)
    jobs = carray(pointer(call.jobs), call.job_count, JOB)
    blocks = carray(pointer(call.blocks), call.block_count, PART)
    panels = carray(pointer(call.panels), call.panel_count, PART)
    spans = carray(pointer(call.spans), call.span_count, SPAN)
    scratch = call.scratch + thread * call.scratch_nbytes
    tile = carray(pointer(scratch), 1, TILE)[0]
    segment = carray(pointer(scratch + _TILE), 1, SEGMENT)[0]
    transform_address = scratch + _TILE + _SEGMENT
    transform = carray(pointer(transform_address), 1, TRANSFORM)[0]
    segment.a_offset = 0
    segment.b_offset = 0
    tile.a_row = call.itemsize
    tile.segments = scratch + _TILE
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
