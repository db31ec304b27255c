"""What is planned on the CPU: always something, and the same on any number of threads."""

import numpy as np
import pytest
from hypothesis import given, settings

from convarith import ConvGeometry, set_num_threads
from convarith.backends import Options
from convarith.backends.cpu import phases, vector
from convarith.backends.cpu.direct import DirectPlan
from convarith.backends.cpu.gradient import GradientPlan
from convarith.backends.cpu.plan import plan
from convarith.testing.strategies import tile_geometries


@pytest.mark.parametrize("path", vector.PATHS)
@pytest.mark.parametrize("c_in", range(1, 9))
def test_a_kernel_gradient_of_any_channels_has_a_tile(path, c_in):
    for c_out in (1, 2, 3, 5, 8, 9, 31, 32, 33, 63, 64, 65, 130):
        for kernel, element in ((1, 0), (3, 0), (3, 1), (7, 0)):
            geometry = ConvGeometry((9, 9), kernel, in_channels=c_in, out_channels=c_out)
            made = GradientPlan(vector.PATHS[path], vector.ELEMENTS[element], geometry)
            assert made.rows >= 1 and made.vectors >= 1


#: Large ones: what threads share of them is more than a thread has for itself.
LARGE = {
    "parts": ConvGeometry((182, 182), 1, in_channels=1024, out_channels=1024),
    "parts of taps": ConvGeometry((512, 512), 5, padding=2, in_channels=208, out_channels=208),
    "channels": ConvGeometry((32, 32), 3, padding=1, in_channels=4096, out_channels=4096),
    "phases": ConvGeometry(
        (128, 128), 12, strides=4, padding="SAME", in_channels=512, out_channels=512
    ),
    "more phases": ConvGeometry(
        (96, 96), 30, strides=10, padding="SAME", in_channels=512, out_channels=512
    ),
}


@pytest.mark.parametrize("name", LARGE)
def test_threads_do_not_change_the_plan(name):
    kinds = []
    try:
        for threads in (1, 2, 7):
            set_num_threads(threads)
            made = plan("kernel_gradient", LARGE[name], np.dtype(np.float32), Options())
            assert made is not None
            kinds.append(type(made.inner))
    finally:
        set_num_threads(None)
    assert len(set(kinds)) == 1


def test_winograd_is_refused_where_its_operands_would_be_too_large():
    with pytest.raises(ValueError, match="^algorithm: expected None or 'direct' here"):
        plan("kernel_gradient", LARGE["more phases"], np.dtype("f4"), Options("winograd"))


@settings(max_examples=200)
@given(tile_geometries(ranks=(1,)))
def test_phases_within_have_the_results_that_lie_in_the_array(geometry):
    (axis,) = geometry.axes

    def results(phase):
        """Return what is read for each result, by its place."""
        return {
            phase.start + m + u * axis.stride: [
                (k, phase.first + u + t * phase.space) for t, k in enumerate(taps)
            ]
            for u in range(phase.length)
            for m, taps in enumerate(phase.taps)
        }

    for merged in phases.transposed(axis, merge=True):
        inside = [results(part) for part in phases.within(merged, axis)]
        every = {at: read for part in inside for at, read in part.items()}
        assert len(every) == sum(map(len, inside))  # none twice
        assert every == {at: r for at, r in results(merged).items() if 0 <= at < axis.size}


def test_a_transposed_convolution_keeps_its_tiles_inside_where_that_is_faster():
    axes = {}
    for name, size, c in (("few", (64, 64), 3), ("many", (320, 480), 21)):
        k = 4 if name == "few" else 64
        geometry = ConvGeometry(
            size, k, strides=k // 2, padding=k // 4, in_channels=c, out_channels=c
        )
        made = DirectPlan(vector.PATHS["avx2"], vector.ELEMENTS[0], geometry, "transpose")
        axes[name] = [(phase.start, len(phase.taps)) for phase in made.phases[2]]
    assert axes == {"few": [(-1, 2)], "many": [(16, 16), (0, 16)]}
