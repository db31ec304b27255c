"""What a transform of Winograd's algorithm reads: a square of pixels, also past the edges."""

from __future__ import annotations

from .intrinsics import clear, copy, inlined

#: Pixels that are neighbours.
ONE_STEP = (1, 1)


@inlined
def point_at_window(transform, image, y, x, length, size, strides, step, copied):
    """Let a transform read ``length x length`` pixels of an image, from (y, x) on in steps.

    Where some of them are not in the image, they are copied with zeros in their place.
    """
    line, pixel = strides[1], strides[2]
    at = image + y * line + x * pixel
    transform.window = at
    transform.row = step[0] * line
    transform.pixel = step[1] * pixel
    reach = length - 1
    if y >= 0 and y + reach * step[0] < size[0] and x >= 0 and x + reach * step[1] < size[1]:
        return
    before = min(max(-(x // step[1]), 0), length)
    stop = min(max(-((x - size[1]) // step[1]), before), length)
    inside = (stop - before) * pixel
    target = copied
    for row in range(length):
        line_y = y + row * step[0]
        if line_y < 0 or line_y >= size[0] or inside == 0:
            clear(target, length * pixel)
        else:
            clear(target, before * pixel)
            clear(target + stop * pixel, (length - stop) * pixel)
            at = image + line_y * line + x * pixel
            if step[1] == 1:
                copy(target + before * pixel, at + before * pixel, inside)
            else:
                for place in range(before, stop):
                    copy(target + place * pixel, at + place * step[1] * pixel, pixel)
        target += length * pixel
    transform.window = copied
    transform.row = length * pixel
    transform.pixel = pixel
