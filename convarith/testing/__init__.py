"""Oracles and hypothesis strategies for anyone with a convolution of their own to check.

Needs hypothesis besides NumPy. A kernel is fuzzed over ranks, sizes, strides, dilations,
paddings, groups, dtypes and memory layouts in three lines::

    @given(kernels_and_inputs())
    def test_mine(case):
        assert_close(my_conv(case.x, case.kernel, case.geometry), "forward", case)

`geometries` draws small ones of every kind, `tile_geometries` those that hit the edges of a
fast kernel's register tiles, `Guarded` puts an array between guard bands. This library's own
backends are fuzzed for as long as one likes by ``python -m convarith.testing fuzz``.
"""

from .checks import assert_adjoint, assert_close, assert_product
from .guards import LAYOUTS, Guarded, fenced
from .oracles import naive, quick
from .strategies import (
    Case,
    geometries,
    kernels_and_inputs,
    tile_geometries,
    window,
    winograd_geometries,
)
from .trial import Trial, trials
from .values import DTYPES, STRUCTURES, random_array, small_integers, structured_kernel

__all__ = [
    "DTYPES",
    "LAYOUTS",
    "STRUCTURES",
    "Case",
    "Guarded",
    "Trial",
    "assert_adjoint",
    "assert_close",
    "assert_product",
    "fenced",
    "geometries",
    "kernels_and_inputs",
    "naive",
    "quick",
    "random_array",
    "small_integers",
    "structured_kernel",
    "tile_geometries",
    "trials",
    "window",
    "winograd_geometries",
]
