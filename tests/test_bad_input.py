"""What cannot be: each refused with the argument's name, before anything is allocated."""

import math

import numpy as np
import pytest

from convarith import (
    ConvGeometry,
    ConvOperator,
    bilinear_kernel,
    conv,
    conv_as_matmul,
    conv_kernel_gradient,
    conv_transpose,
    upsample_bilinear,
)

IMAGE, KERNEL = np.ones((2, 6, 5, 4)), np.ones((3, 3, 4, 6))
Y = np.ones((2, 4, 3, 6))
HUGE = 2**62


def calls(**arguments):
    """Every way to ask for a convolution, with the same arguments."""
    return [
        lambda: ConvGeometry((6, 5), 3, in_channels=4, out_channels=6, **arguments),
        lambda: ConvGeometry.of_transpose((4, 3), 3, in_channels=6, out_channels=4, **arguments),
        lambda: conv(IMAGE, KERNEL, **arguments),
        lambda: conv_transpose(Y, KERNEL, **arguments),
        lambda: conv_kernel_gradient(IMAGE, Y, 3, **arguments),
        lambda: conv_as_matmul(KERNEL, (6, 5, 4), **arguments),
        lambda: ConvOperator(KERNEL, (6, 5), **arguments),
    ]


@pytest.mark.parametrize("way", range(7))
@pytest.mark.parametrize("name", ["strides", "dilations"])
@pytest.mark.parametrize(
    "value",
    [0, -1, (1, 0), (1, 2, 3), (), 1.0, math.nan, np.nan, math.inf, "2", None, True, (1, "1"),
     [[1, 1]], {1, 2}, np.float64(1), np.array([1.0, 2.0]), 1j, object],
    ids=repr,
)  # fmt: skip
def test_strides_and_dilations(name, value, way):
    with pytest.raises((TypeError, ValueError), match=f"^{name}"):
        calls(**{name: value})[way]()


@pytest.mark.parametrize("way", range(7))
@pytest.mark.parametrize(
    "value",
    ["same", "FULL", "", (1, 2, 3), (), ((1, 2, 3), 1), ((1,), (1,)), 1.5, math.nan, None, True,
     (True, 1), ((1, "1"), 1), b"SAME", {"a": 1}],
    ids=repr,
)  # fmt: skip
def test_padding(value, way):
    with pytest.raises((TypeError, ValueError), match="^padding"):
        calls(padding=value)[way]()


@pytest.mark.parametrize("value", [0, -1, 1.0, math.nan, "1", None, True, (1,)], ids=repr)
def test_groups(value):
    for call in calls(groups=value):
        with pytest.raises((TypeError, ValueError), match="^groups"):
            call()


def test_groups_that_do_not_divide():
    for call in (
        lambda: ConvGeometry(6, 3, in_channels=4, out_channels=6, groups=4),
        lambda: ConvGeometry(6, 3, in_channels=4, out_channels=6, groups=3),
        lambda: conv(np.ones((1, 6, 5, 16)), KERNEL, groups=4),
        lambda: conv_transpose(Y, KERNEL, groups=4),
        lambda: conv_kernel_gradient(IMAGE, Y, 3, groups=3),
        lambda: conv_as_matmul(KERNEL, (6, 5, 16), groups=4),
        lambda: ConvOperator(KERNEL, (6, 5), groups=4),
        lambda: conv(np.ones(4), np.ones(2), groups=2),
    ):
        with pytest.raises(ValueError, match="^groups: expected"):
            call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: conv(IMAGE[0], KERNEL), r"^x: expected \(n, \*spatial, c\) of 4 .*\(6, 5, 4\)"),
        (lambda: conv(IMAGE, KERNEL[0]), "^x: expected"),
        (lambda: conv(IMAGE, np.float64(3)), "^kernel: expected 1 to 62 axes, got 0"),
        (lambda: conv(np.ones(3), np.ones((3, 3))), "^x: expected 2 axes"),
        (lambda: conv(IMAGE[..., :3], KERNEL), "^x: expected 4 channels on axis 3, got 3"),
        (lambda: conv(IMAGE[..., :0], KERNEL), "^x: expected 4 channels on axis 3, got 0"),
        (lambda: conv_transpose(Y[..., :3], KERNEL), "^y: expected 6 channels on axis 3, got 3"),
        (lambda: conv(IMAGE, KERNEL[:0]), r"^kernel: expected every axis >= 1, got shape \(0, "),
        (lambda: conv(IMAGE, KERNEL[..., :0]), "^kernel: expected every axis >= 1"),
        (lambda: conv_transpose(Y, KERNEL[:, :, :0]), "^kernel: expected every axis >= 1"),
        (lambda: conv_as_matmul(KERNEL[:0], (6, 5, 4)), "^kernel: expected every axis >= 1"),
        (lambda: ConvOperator(KERNEL[:0], (6, 5)), "^kernel: expected every axis >= 1"),
        (lambda: conv_kernel_gradient(IMAGE, Y[:1], 3), r"^g: expected .* shape \(2, 4, 3, 6\)"),
        (lambda: conv_kernel_gradient(IMAGE, Y[0], 3), "^g: expected as many axes as x"),
        (lambda: conv_kernel_gradient(IMAGE[..., :0], Y, 3), "^x: expected channels"),
        (lambda: conv_kernel_gradient(IMAGE, Y, (3, 0)), r"^kernel_size\[1\]: expected"),
        (lambda: conv_kernel_gradient(IMAGE, Y, (3, 3, 3)), "^kernel_size: expected"),
        (lambda: conv_kernel_gradient(np.ones((4, 4)), np.ones((3, 3)), 3), r"^g: .* \(2, 2\)"),
        (lambda: conv_as_matmul(KERNEL, (6, 5)), "^input_shape: expected"),
        (lambda: conv_as_matmul(KERNEL, (6, 5, 3)), "^input_shape: expected 4 channels"),
        (lambda: conv_as_matmul(np.ones((3, 3, 3)), (6, 5, 4)), "^input_shape: expected"),
        (lambda: conv_as_matmul(np.ones((3, 3)), 4), "^input_shape: expected"),
        (lambda: conv_as_matmul(KERNEL, (6, -5, 4)), r"^input_shape\[1\]: expected"),
        (lambda: ConvOperator(KERNEL, (6, 5, 4)), "^input_size: expected"),
        (lambda: ConvOperator(KERNEL, (6, math.nan)), r"^input_size\[1\]: expected"),
        (lambda: ConvOperator(KERNEL, (6, 5))(IMAGE[0]), r"^x: expected shape \(n, 6, 5, c\)"),
        (lambda: ConvOperator(KERNEL, (6, 5))(IMAGE[:, :5]), "^x: expected shape"),
        (lambda: ConvOperator(KERNEL, (6, 5))(IMAGE[..., :3]), "^x: expected 4 channels"),
        (lambda: ConvOperator(np.ones(2), 5)(np.ones(4)), r"^x: expected shape \(5,\), got \(4,\)"),
        (lambda: ConvOperator(KERNEL, (6, 5)).with_kernel(KERNEL[:2]), "^kernel: expected shape"),
        (lambda: ConvOperator(np.ones(2), 5).norm(rtol=0), "^rtol: expected"),
        (lambda: ConvOperator(np.full(2, np.nan), 5).norm(), "^kernel: expected finite"),
        (lambda: ConvGeometry((), 3), "^input_size: expected at least one spatial axis"),
        (lambda: ConvGeometry((3, 3), (3,)), "^kernel_size: expected an integer or 2"),
        (lambda: ConvGeometry(-1, 3), "^input_size: expected an integer >= 0, got -1"),
        (lambda: ConvGeometry(3, 0), "^kernel_size: expected an integer >= 1, got 0"),
        (lambda: ConvGeometry(3, 3, in_channels=0), "^in_channels: expected"),
        (lambda: conv_transpose(Y, KERNEL, output_size=(6, 6)), r"^output_size\[1\].* 5 to 5"),
        (lambda: conv_transpose(Y, KERNEL, output_size=(5, 5)), r"^output_size\[0\].* 6 to 6"),
        (lambda: conv_transpose(Y, KERNEL, strides=3, output_size=(15, 9)), r"12 to 14.*got 15"),
        (lambda: conv_transpose(Y, KERNEL, padding="SAME", output_size=6), r"4 to 4"),
        (lambda: conv_transpose(Y, KERNEL, output_size=-1), "^output_size: expected an integer"),
        (lambda: conv_transpose(Y, KERNEL, output_size="6"), "^output_size: expected"),
        (lambda: conv_transpose(Y, KERNEL, padding=9), "^padding: .* axis 0, leaving -12"),
        (lambda: bilinear_kernel(2, 3, 4), "^out_channels: expected in_channels = 2, got 3"),
        (lambda: bilinear_kernel(2, 2, 0), "^kernel_size: expected"),
        (lambda: bilinear_kernel(2.0, 2, 4), "^in_channels: expected"),
        (lambda: upsample_bilinear(np.ones(3), 2), "^x: expected"),
        (lambda: upsample_bilinear(np.ones((1, 2, 2, 0)), 2), "^x: expected"),
        (lambda: upsample_bilinear(np.ones((3, 3)), 0), "^factor: expected"),
        (lambda: upsample_bilinear(np.ones((3, 3)), 2, border="wrap"), "^border: expected"),
        (lambda: conv_as_matmul(KERNEL, (6, 5, 4), rows=slice(0, 9, 2)), "^rows: expected"),
        (lambda: conv_as_matmul(KERNEL, (6, 5, 4), rows=[0, 1]), "^rows: expected"),
        (lambda: conv_as_matmul(KERNEL, (6, 5, 4), rows=slice("a")), "^rows: expected"),
        (lambda: conv_as_matmul(KERNEL, (6, 5, 4), rows=slice(0, 2, 0)), "^rows: expected"),
        (lambda: ConvOperator(KERNEL, (6, 5)).T.as_matmul(rows=slice(2)), "^rows: expected None"),
        (lambda: conv_as_matmul(1.0, ()), "^kernel: expected 1 to 62 axes, got 0"),
        (lambda: conv(np.ones((1,) * 64), np.ones((1,) * 64)), "^kernel: expected 1 to 62 axes"),
        (lambda: ConvGeometry.of_transpose(1, 1, padding=5, output_size=0), "^padding: .* -9"),
        (lambda: conv_as_matmul(KERNEL, (6, 5, 4), max_bytes=-1), "^max_bytes: expected"),
    ],
)  # fmt: skip
def test_shapes_and_sizes(call, message):
    with pytest.raises((TypeError, ValueError), match=message):
        call()


BAD_ARRAYS = [
    "a string",
    None,
    np.ones((2, 6, 5, 4), bool),
    np.ones((2, 6, 5, 4), object),
    np.full((2, 6, 5, 4), "1"),
    np.zeros((2, 6, 5, 4), "datetime64[s]"),
    np.zeros((2, 6, 5, 4), [("a", float)]),
    np.ma.ones((2, 6, 5, 4)),
    {"a": 1},
    memoryview(b"1234"),
]


@pytest.mark.parametrize("value", BAD_ARRAYS, ids=lambda v: str(getattr(v, "dtype", type(v))))
def test_arrays_of_no_number(value):
    for name, call in [
        ("x", lambda: conv(value, KERNEL)),
        ("kernel", lambda: conv(IMAGE, value)),
        ("y", lambda: conv_transpose(value, KERNEL)),
        ("kernel", lambda: conv_transpose(Y, value)),
        ("x", lambda: conv_kernel_gradient(value, Y, 3)),
        ("g", lambda: conv_kernel_gradient(IMAGE, value, 3)),
        ("kernel", lambda: conv_as_matmul(value, (6, 5, 4))),
        ("kernel", lambda: ConvOperator(value, (6, 5))),
        ("x", lambda: ConvOperator(KERNEL, (6, 5))(value)),
        ("x", lambda: upsample_bilinear(value, 2)),
        ("bias", lambda: conv(IMAGE, KERNEL, bias=[value] if value is None else value)),
    ]:
        with pytest.raises((TypeError, ValueError), match=f"^{name}: expected"):
            call()


def test_numbers_of_other_packages():
    """float8 calls itself a float, but no sum of theirs is computed in it."""
    ml_dtypes = pytest.importorskip("ml_dtypes")
    for dtype in (ml_dtypes.float8_e5m2, ml_dtypes.float8_e4m3fn, ml_dtypes.int4):
        with pytest.raises(TypeError, match="^x: expected integers, floats or complex"):
            conv(np.ones(3, dtype), np.ones(2, dtype))


def test_a_padding_is_read_alike_everywhere():
    """A generator would be empty when it is read again: it is refused, by every call."""
    for call in (
        lambda padding: conv(np.ones((5, 5)), np.ones((3, 3)), padding=padding),
        lambda padding: conv_transpose(np.ones((5, 5)), np.ones((3, 3)), padding=padding),
    ):
        assert call(np.array([1, 1])).shape in ((5, 5), (5, 5))
        with pytest.raises(TypeError, match="^padding: expected"):
            call(p for p in (1, 1))


def test_ragged_lists():
    with pytest.raises(ValueError, match="^x: expected an array, got a ragged list"):
        conv([[1, 2], [3]], [[1]])
    np.testing.assert_array_equal(conv([[1, 2], [3, 4]], [[2]]), [[2, 4], [6, 8]])


def test_nothing_is_cast_down():
    x, kernel = np.ones((1, 4, 2), np.float32), np.ones((2, 2, 3), np.float32)
    for name in ("scale", "bias"):
        with pytest.raises(
            TypeError, match=f"^{name}: expected a dtype that casts safely to float32"
        ):
            conv(x, kernel, **{name: np.ones(3)})
    with pytest.raises(TypeError, match="^residual: expected a dtype"):
        conv(x, kernel, residual=np.ones((1, 3, 3)))
    half = conv(x.astype(np.float16), kernel.astype(np.float16), bias=np.ones(3, np.float32))
    assert half.dtype == np.float16 and (half == 5).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scale": np.ones(5)}, r"^scale: expected shape \(6,\), got \(5,\)"),
        ({"bias": np.ones((1, 6))}, r"^bias: expected shape \(6,\), got \(1, 6\)"),
        ({"bias": 1.0}, r"^bias: expected shape \(6,\), got \(\)"),
        ({"residual": np.ones((2, 4, 3, 5))}, "^residual: expected shape"),
        ({"bias": np.ones(6, np.longdouble)}, "^bias: expected a dtype that casts safely"),
        ({"bias": np.ones(6, complex)}, "^bias: expected a dtype that casts safely to float64"),
        ({"activation": "gelu"}, "^activation: expected one of None, 'relu', 'relu6', got 'gelu'"),
        ({"out": np.ones((2, 4, 3, 5))}, "^out: expected shape"),
        ({"out": np.ones((2, 4, 3, 6), np.float32)}, "^out: expected shape .* dtype float64"),
        ({"out": np.ma.ones((2, 4, 3, 6))}, "^out: expected a NumPy or CuPy .*, got MaskedArray"),
        ({"out": [1.0]}, "^out: expected a NumPy or CuPy array"),
        ({"out": np.broadcast_to(1.0, (2, 4, 3, 6))}, "^out: expected a writeable array"),
        ({"algorithm": "fft"}, "^algorithm: expected one of"),
        ({"algorithm": "winograd"}, "^algorithm: expected None or 'direct' on the reference"),
        ({"precision": "tf32"}, "^precision: expected 'float32' on the reference"),
        ({"precision": "half"}, "^precision: expected one of"),
        ({"backend": "mkl"}, "^backend: expected one of None, 'cpu', 'reference', 'cuda', got"),
        ({"backend": "cpu", "precision": "tf32"}, "^precision: expected 'float32' on the CPU"),
        (
            {"backend": "cpu", "algorithm": "winograd", "dilations": 2},
            "^algorithm: expected None or 'direct' ",
        ),
        ({"backend": ["reference"]}, "^backend: expected one of"),
    ],
)
def test_options(arguments, message):
    arguments = {"backend": "reference", **arguments}
    with pytest.raises((TypeError, ValueError), match=message):
        conv(IMAGE, KERNEL, **arguments)


def test_complex_has_no_order():
    with pytest.raises(TypeError, match="^activation: expected None for a complex result"):
        conv(np.ones(3, complex), np.ones(2), activation="relu")


def test_dtypes_without_a_common_one():
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    with pytest.raises(TypeError, match="^x, kernel: expected dtypes with a common one"):
        conv(np.ones(3, bfloat16), np.ones(2, np.float16))


@pytest.mark.parametrize(
    "call",
    [
        lambda: conv(np.ones(3), np.ones(2), padding=HUGE),
        lambda: conv(np.ones((0, 3, 1)), np.ones((2, 1, 1)), padding=HUGE),
        lambda: conv_transpose(np.ones(3), np.ones(2), strides=HUGE),
        lambda: conv_transpose(np.ones(0), np.ones(2), dilations=HUGE),
        lambda: conv_kernel_gradient(np.ones(0), np.ones(0), HUGE),
        lambda: conv_as_matmul(np.ones(3), HUGE),
        lambda: conv_as_matmul(np.ones((3, 3)), (HUGE, HUGE)),
        lambda: conv_as_matmul(np.ones(1), (2**70,), strides=2**69),
        lambda: ConvOperator(np.ones(3), HUGE).norm(),
        lambda: ConvOperator(np.broadcast_to(1.0, 2**42), 5),
        lambda: ConvOperator(np.ones(3), 2**40).T.as_matmul(),
        # A view of one number, of which only a copy in another dtype would be large.
        lambda: conv(np.broadcast_to(np.float16(1), 2**42), np.ones(1, np.float32), strides=2**41),
        lambda: conv_transpose(np.ones(1, np.float32), np.broadcast_to(np.float16(1), 2**42)),
        lambda: upsample_bilinear(np.broadcast_to(np.uint8(1), (2**21, 2**21)), 1),
        lambda: conv_as_matmul(np.broadcast_to(np.int8(1), 2**40), 5, padding=2**40),
        lambda: conv_as_matmul(np.broadcast_to(np.int8(1), 2**40), 5, padding=2**40, max_bytes=9),
        lambda: upsample_bilinear(np.ones((3, 3)), 2**31),
        lambda: bilinear_kernel(1, 1, HUGE),
        lambda: bilinear_kernel(HUGE, HUGE, 1),
    ],
)
def test_absurd_sizes_are_refused_before_allocation(call):
    with pytest.raises(ValueError, match="would take [0-9]+ bytes, more than|fewer than 2"):
        call()


def test_absurd_sizes_that_need_no_memory_work():
    y = conv(np.ones(3), np.ones(2), strides=HUGE, dilations=1)
    np.testing.assert_array_equal(y, [2.0])
    assert conv(np.ones(3), np.ones(2), dilations=HUGE).shape == (0,)
    W = conv_as_matmul(np.ones(2), 5, strides=HUGE, padding=(HUGE,))
    assert W.shape == (3, 5) and W.nnz == 2
    assert conv(np.ones(5), np.ones(2), strides=HUGE, padding=HUGE).tolist() == [0, 2, 0]


@pytest.mark.parametrize(
    "shape", [(0, 6, 5, 4), (2, 0, 5, 4), (2, 6, 0, 4), (0, 0, 0, 4), (2, 2, 2, 4)]
)
def test_empty_is_not_bad(shape):
    x = np.ones(shape)
    y = conv(x, KERNEL)
    assert y.shape == (shape[0], max(0, shape[1] - 2), max(0, shape[2] - 2), 6)
    gradient = conv_kernel_gradient(x, y, 3)
    assert gradient.shape == KERNEL.shape and not gradient.any()
    back = conv_transpose(y, KERNEL, output_size=shape[1:3])
    assert back.shape == shape and not back.any()
    W = conv_as_matmul(KERNEL, shape[1:])
    assert W.shape == (math.prod(y.shape[1:]), math.prod(shape[1:]))
    op = ConvOperator(KERNEL, shape[1:3])
    assert op(x).shape == y.shape and (op.norm() == 0) == (W.nnz == 0)
