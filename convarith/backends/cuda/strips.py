"""How many rows of results the blocks make that walk down through images."""

from __future__ import annotations

from .law import MOST, MOST_GRID

#: Rows of all images of a launch, at most.
MOST_ROWS = MOST // 2
#: Rows of a strip from which it is worth that strips begin where images do.
LONG = 12


def strips(
    batch: int, of_image: int, across: int, wanted: int, least: int, multiprocessors: int
) -> tuple[int, int]:
    """Return the rows of a block, and how many blocks that makes of the rows of all images.

    Each block begins by waiting, and reads rows of sources that the one above has read, too. A
    strip that ends in another image than its first begins anew there.

    Parameters
    ----------
    batch, of_image : int
        Images, and rows of results of one.
    across : int
        Blocks beside each other.
    wanted : int
        Blocks in all that keep the multiprocessors busy.
    least : int
        Rows that make up for a beginning: no strip is shorter, unless it takes shorter ones for
        two blocks a multiprocessor.
    multiprocessors : int
        How many the device has.

    Examples
    --------
    >>> strips(batch=16, of_image=320, across=10, wanted=2640, least=16, multiprocessors=132)
    (20, 256)
    >>> strips(batch=1, of_image=40, across=3, wanted=7920, least=16, multiprocessors=132)
    (1, 40)
    """
    rows = batch * of_image
    strip = -(-rows // max(1, wanted // across))
    strip = max(strip, min(least, -(-rows * across // (2 * multiprocessors))))
    if strip >= LONG:
        near = range(-(-3 * strip // 4), 5 * strip // 4 + 1)
        even = [n for n in near if of_image % n == 0 or n % of_image == 0]
        strip = min(even, key=lambda n: (abs(n - strip), -n), default=strip)
    strip = max(strip, -(-rows // MOST_GRID))
    return strip, -(-rows // strip)
