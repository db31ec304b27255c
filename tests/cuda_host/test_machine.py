"""The machine that kernels run on here: numbers, fragments, lanes, arguments."""

import numpy as np
import pytest

from . import build, host, seeded
from .host import HostDevice

ml_dtypes = pytest.importorskip("ml_dtypes")  # of the machines that run no CUDA, all have it
pytestmark = pytest.mark.sanitized

FRAGMENTS = {
    "f16": (np.float16, dict(ELEMENT="short", MMA="mma_f16_16816", TF32=0)),
    "bf16": (ml_dtypes.bfloat16, dict(ELEMENT="short", MMA="mma_bf16_16816", TF32=0)),
    "tf32": (np.float32, dict(ELEMENT="float", MMA="mma_tf32_1688", TF32=1)),
}


@pytest.mark.parametrize(
    ("dtype", "transposed"),
    [("f16", 0), ("bf16", 0), ("tf32", 0), ("f16", 1), ("bf16", 1)],
)
@pytest.mark.parametrize("cp_mode", [host.RANDOM, host.AT_ISSUE, host.AT_WAIT])
def test_fragments_are_what_a_product_takes(kernels, dtype, transposed, cp_mode):
    element, constants = FRAGMENTS[dtype]
    depth = 32 // np.dtype(element).itemsize
    rng = np.random.default_rng(cp_mode)
    # Whole numbers: sums are exact, whatever their order.
    a = rng.integers(-8, 9, (16, depth)).astype(element)
    b = rng.integers(-8, 9, (8, depth)).astype(element)
    expected = a.astype(np.float64) @ b.astype(np.float64).T
    if transposed:
        b = b.T.copy()
    d = np.full((16, 8), np.nan, np.float32)
    if dtype != "tf32":
        a, b = a.view(np.int16), b.view(np.int16)
    kernels.cp_mode = cp_mode
    kernels.kernel("fragments", TRANSPOSED=transposed, **constants)((1, 1, 1), 32, (a, b, d))
    np.testing.assert_array_equal(d, expected)


@pytest.mark.parametrize("cp_mode", [host.RANDOM, host.AT_ISSUE, host.AT_WAIT])
@pytest.mark.parametrize("count", [1, 15, 16, 17, 509, 1024])
def test_a_copy_of_fewer_bytes_leaves_zeros(kernels, count, cp_mode):
    x = np.random.default_rng(count).integers(1, 256, count).astype(np.uint8)
    y = np.full(1024, 7, np.uint8)
    kernels.cp_mode = cp_mode
    kernels.kernel("copies")((1, 1, 1), 64, (x, y, np.int32(count)), 1024)
    expected = np.pad(x, (0, 1024 - count))
    np.testing.assert_array_equal(y, np.roll(expected, -16 * 33))


def test_conversions_round_as_the_types_do(kernels):
    rng = np.random.default_rng(0)
    every_half = np.arange(2**16, dtype=np.uint32)
    near = np.float32([65504, 65519.99, 65520, 2**-14, 2**-24, 2**-25, 3 * 2**-25, np.inf, np.nan])
    halves = every_half.astype(np.uint16).view(np.float16).astype(np.float32)
    midway = (halves.view(np.uint32) & 0xFFFFE000) + 0x1000
    stride = 37 if build.SANITIZER else 1
    bits = np.concatenate(
        [
            rng.integers(0, 2**32, 4096, dtype=np.uint32),
            every_half[::stride],
            midway[::stride],
            near.view(np.uint32),
        ]
    )
    x, low = bits.view(np.float32), bits.astype(np.uint16)
    n = len(bits)
    half, bfloat = (np.zeros(n, np.uint16) for _ in range(2))
    tf32, from_half, from_bfloat = np.zeros(n, np.uint32), np.zeros(n, "f"), np.zeros(n, "f")
    kernel = kernels.kernel("conversions")
    arrays = (bits, half, bfloat, tf32, from_half, from_bfloat)
    kernel((-(-n // 128), 1, 1), 128, (*arrays, np.int32(n)))
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(half.view(np.float16), x.astype(np.float16))
        np.testing.assert_array_equal(
            bfloat.view(ml_dtypes.bfloat16).astype("f"), x.astype(ml_dtypes.bfloat16).astype("f")
        )
        np.testing.assert_array_equal(from_half, low.view(np.float16).astype("f"))
        np.testing.assert_array_equal(from_bfloat, low.view(ml_dtypes.bfloat16).astype("f"))
        finite = np.isfinite(x)
        step = np.exp2(np.floor(np.log2(np.abs(x[finite].astype(float)))) - 10)
        error = np.abs(tf32.view("f")[finite].astype(float) - x[finite])
        assert np.all((error <= step / 2) | (np.abs(x[finite]) < 2.0**-126))
    assert np.all(tf32[np.isfinite(x)] & 0x1FFF == 0)
    np.testing.assert_array_equal(tf32.view("f")[~finite], x[~finite])


def test_lanes_exchange_and_flags_rise(kernels):
    x = np.arange(64, dtype=np.float32) - 3
    flipped, moved, sums = np.zeros(64, "f"), np.zeros(64, "f"), np.zeros(2)
    flag = np.zeros(1, np.int32)
    offsets = np.array([(5, 3)], [("flip", "i4"), ("down", "i4")])
    kernel = kernels.kernel("lanes")
    kernel((1, 1, 1), 64, (x, flipped, moved, sums, flag, offsets))
    lane = np.arange(64) % 32
    np.testing.assert_array_equal(flipped, x[np.arange(64) ^ 5])
    np.testing.assert_array_equal(moved, np.where(lane + 3 < 32, x + 3, x))
    np.testing.assert_array_equal(sums, x.reshape(2, 32).sum(1))
    assert flag[0] == 1
    kernel((1, 1, 1), 64, (x, flipped, moved, sums, None, offsets))


@pytest.mark.parametrize("cp_mode", [host.RANDOM, host.AT_ISSUE, host.AT_WAIT])
@pytest.mark.parametrize("seed", range(3))
def test_a_right_pipeline_is_right(seed, cp_mode):
    rows = np.arange(seeded.ROWS * seeded.THREADS, dtype=np.float32).reshape(seeded.ROWS, -1)
    result = seeded.run("pipeline", seed=seed, cp_mode=cp_mode)
    np.testing.assert_array_equal(result, rows.sum(0)[np.arange(seeded.THREADS) ^ 33])


def test_arguments_are_what_the_kernel_declares(kernels):
    kernel = HostDevice(build.SHIM.parent / "broken").kernel("pipeline")
    x, y, n = np.zeros(64, np.float32), np.zeros(64, np.float32), np.int32(1)

    def call(*args, grid=(1, 1, 1), block=64, shared=768):
        kernel(grid, block, args, shared)

    with pytest.raises(TypeError, match=r"args\[0\]: .*float of 4 bytes, got an array of float64"):
        call(x.astype(float), y, n)
    with pytest.raises(TypeError, match=r"args\[2\]: .*integer of 4 bytes, got int 1"):
        call(x, y, 1)
    with pytest.raises(TypeError, match=r"args\[2\]: .*integer of 4 bytes, got int64"):
        call(x, y, np.int64(1))
    with pytest.raises(TypeError, match="takes 3 arguments, got 2"):
        call(x, y)
    with pytest.raises(ValueError, match=r"args\[0\]: .*contiguous"):
        call(np.zeros(128, np.float32)[::2], y, n)
    y.flags.writeable = False
    with pytest.raises(ValueError, match=r"args\[1\]: .*read-only"):
        call(x, y, n)
    with pytest.raises(ValueError, match="grid: "):
        call(x, y, n, grid=(0, 1, 1))
    with pytest.raises(ValueError, match="block: "):
        call(x, y, n, block=1025)
    with pytest.raises(ValueError, match="shared: "):
        call(x, y, n, shared=228 << 10)
    offsets = np.zeros(1, [("flip", "i4")])
    with pytest.raises(TypeError, match=r"args\[5\]: .*struct of 8 bytes, got ndarray of 4 bytes"):
        kernels.kernel("lanes")((1, 1, 1), 64, (x, x, x, np.zeros(2), None, offsets))
