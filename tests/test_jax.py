"""Against JAX itself: forward, transpose and kernel gradient, with dilations and groups.

Without negative padding: there JAX's kernel gradient is wrong on the CPU (0.10.2: 1x1 kernel,
padding (-1, 1), batch and channels 2), while its batch of 1 agrees with the index law.
"""

import numpy as np
from hypothesis import assume, given, settings

from convarith import conv, conv_kernel_gradient, conv_transpose
from convarith.testing import assert_close, geometries, kernels_and_inputs

LAYOUTS = {1: ("NHC", "HIO", "NHC"), 2: ("NHWC", "HWIO", "NHWC"), 3: ("NDHWC", "DHWIO", "NDHWC")}


@settings(max_examples=60)  # JAX compiles each shape anew
@given(case=kernels_and_inputs(geometries(min_padding=0), dtypes=("float32", "int32")))
def test_every_product(backend, case):
    import jax

    geometry = case.geometry
    assume(len(case.x) and 0 not in geometry.input_size and 0 not in geometry.output_size)

    def theirs(x, kernel):
        return jax.lax.conv_general_dilated(
            x,
            kernel,
            geometry.strides,
            geometry.padding,
            rhs_dilation=geometry.dilations,
            dimension_numbers=LAYOUTS[geometry.rank],
            feature_group_count=geometry.groups,
        )

    options = {**case.arguments, "backend": backend}
    y = np.asarray(theirs(case.x, case.kernel))
    assert_close(y, "forward", case)
    assert_close(conv(case.x, case.kernel, **options), "forward", case)
    if case.x.dtype.kind == "f":
        _, gradients = jax.vjp(theirs, case.x, case.kernel)
        in_x, in_kernel = map(np.asarray, gradients(case.y))
        assert_close(in_x, "transpose", case)
        assert_close(in_kernel, "kernel_gradient", case)
    size = geometry.input_size
    ours = conv_transpose(case.y, case.kernel, output_size=size, **options)
    assert_close(ours, "transpose", case)
    ours = conv_kernel_gradient(case.x, case.y, geometry.kernel_size, **options)
    assert_close(ours, "kernel_gradient", case)
