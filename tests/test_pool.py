"""Results may lie in memory that is used again; nobody may be able to tell."""

import os
import sys
import threading
import weakref

import numpy as np
import pytest

from convarith import ConvOperator, conv, conv_kernel_gradient, conv_transpose

KERNEL = np.full((1, 1, 1, 64), 2, np.float32)
#: From what a pool leaves to NumPy to what it may keep: 64 B, 64 KB and 1 MB of a result.
SIDES = (1, 16, 64)


def image(side, value=1):
    return np.full((1, side, side, 1), value, np.float32)


def resident():
    """Return the bytes of memory that this process holds, or held at its peak."""
    if sys.platform == "linux":
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    resource = pytest.importorskip("resource")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


@pytest.mark.parametrize("side", SIDES)
def test_results_that_are_held_never_change(backend, side):
    held = [conv(image(side, n), KERNEL, backend=backend) for n in range(50)]
    for n, result in enumerate(held):
        assert (result == 2 * n).all()
    addresses = {result.__array_interface__["data"][0] for result in held}
    assert len(addresses) == 50


@pytest.mark.parametrize("product", ["forward", "transpose", "kernel_gradient"])
def test_every_product_leaves_what_is_held_alone(backend, product):
    rng = np.random.default_rng(0)
    x, y = (rng.standard_normal((2, 24, 24, c)).astype(np.float32) for c in (8, 64))
    kernel = rng.standard_normal((3, 3, 8, 64)).astype(np.float32)
    options = {"padding": "SAME", "backend": backend}

    def call(n):
        return {
            "forward": lambda: conv(n * x, kernel, **options),
            "transpose": lambda: conv_transpose(n * y, kernel, **options),
            "kernel_gradient": lambda: conv_kernel_gradient(n * x, y, 3, **options),
        }[product]()

    held = [(call(np.float32(n)), call(np.float32(n)).copy()) for n in range(12)]
    for result, copy in held:
        np.testing.assert_array_equal(result, copy)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize(
    "part",
    [
        lambda result: result[0, 0, 0, :1],
        lambda result: result[..., ::-7].T,
        lambda result: result.view(np.uint8)[..., :1],
        lambda result: result.reshape(-1)[3:4].reshape(1, 1),
        memoryview,
        lambda result: np.asarray(memoryview(result.reshape(-1))[5:6]),
        lambda result: np.frombuffer(result, np.float32, 2, 4),
        lambda result: np.broadcast_to(result, (2, *result.shape)),
        lambda result: np.lib.stride_tricks.as_strided(result, (1,)),
        lambda result: np.from_dlpack(result)[..., 2:3],
        lambda result: result.real[..., :1],
        lambda result: next(iter(result)),
        lambda result: result.flat,
        lambda result: np.asmatrix(result[0, 0]),
    ],
    ids=[
        *("element", "reversed", "bytes", "reshaped", "memoryview", "array of a memoryview"),
        *("frombuffer", "broadcast", "strided", "dlpack", "real", "row", "flat", "subclass"),
    ],
)
@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
def test_a_view_of_a_dropped_result_keeps_its_memory(backend, side, part):
    view = part(conv(image(side, 21), KERNEL, backend=backend))
    before = bytes(view) if isinstance(view, memoryview) else np.array(view)
    for n in range(20):
        conv(image(side, n), KERNEL, backend=backend)
    after = bytes(view) if isinstance(view, memoryview) else np.array(view)
    np.testing.assert_array_equal(after, before)


def test_a_result_that_is_an_operand_of_the_next(backend):
    """As in a network: the memory of one layer's result must not become the next one's."""
    kernel = np.full((1, 1, 64, 64), 1 / 64, np.float32)
    result = conv(image(32, 5), KERNEL, backend=backend)
    for _ in range(10):
        result = conv(result, kernel, residual=result, backend=backend)
        result -= 10 * (result[0, 0, 0, 0] > 10)
    np.testing.assert_array_equal(result, 10)


def test_results_are_arrays_like_any_other(backend):
    result = conv(image(64), KERNEL, backend=backend)
    assert result.flags.c_contiguous and result.flags.writeable and result.flags.aligned
    assert type(result) is np.ndarray and weakref.ref(result)() is result
    result[...] = 3  # the caller's own now
    assert (conv(image(64), KERNEL, backend=backend) == 2).all() and (result == 3).all()


@pytest.mark.parametrize(("side", "calls"), [(1, 20_000), (64, 500)])
def test_dropped_results_take_no_more_memory(backend, side, calls):
    op = ConvOperator(KERNEL, (side, side), backend=backend)
    x = image(side)
    for _ in range(50):
        op(x)
    before = resident()
    for _ in range(calls):
        op(x)
    assert resident() - before < 20e6


def test_sizes_that_never_recur_take_no_more_than_the_pool_may(backend):
    """Some 500 MB of results, one at a time."""
    kernel = np.ones((1, 1, 1, 1024), np.float32)
    before = resident()
    for n in range(150):
        conv(np.ones((1, 250 + 8 * n, 1, 1), np.float32), kernel, backend=backend)
    assert resident() - before < 300e6


def test_threads_share_the_pool(backend):
    """Eight threads hold, drop and check results of their own."""
    errors = []

    def work(number):
        held = []
        for n in range(60):
            value = 100 * number + n
            held.append((value, conv(image(16 + n % 3, value), KERNEL, backend=backend)))
            if len(held) > 5:
                value, result = held.pop(n % 5)
                if not (result == 2 * value).all():
                    errors.append((number, value, result.flat[0]))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors


def test_a_result_may_be_dropped_by_another_thread(backend):
    for n in range(20):
        held = [conv(image(64, n), KERNEL, backend=backend)]
        thread = threading.Thread(target=held.clear)
        other = conv(image(64, n + 1), KERNEL, backend=backend)
        thread.start()
        third = conv(image(64, n + 2), KERNEL, backend=backend)
        thread.join()
        assert (other == 2 * n + 2).all() and (third == 2 * n + 4).all()
