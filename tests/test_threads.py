"""Several threads, pools, forked and spawned children: the same bits, and none of them hangs."""

import concurrent.futures
import functools
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest

import convarith
from convarith import ConvGeometry, ConvOperator, conv, conv_kernel_gradient, conv_transpose
from convarith.testing import random_array, structured_kernel, window

GEOMETRIES = {
    "small": ConvGeometry((5, 6), 3, padding="SAME", in_channels=3, out_channels=5),
    "3x3": ConvGeometry((33, 46), 3, padding="SAME", in_channels=32, out_channels=48),
    "strided": ConvGeometry((63, 64), 7, strides=2, padding=3, in_channels=3, out_channels=64),
    "upsampling": ConvGeometry(
        (160, 240), 16, strides=8, padding="SAME", in_channels=5, out_channels=5
    ),
    "depthwise": ConvGeometry(
        (40, 61), 3, padding="SAME", groups=24, in_channels=24, out_channels=24
    ),
    "one axis": ConvGeometry((4001,), 5, dilations=2, in_channels=7, out_channels=17),
}
FORKS = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


@pytest.fixture
def threads():
    """Set the number of threads; the default comes back."""
    yield convarith.set_num_threads
    convarith.set_num_threads(None)


@functools.cache
def operands(name, dtype="float32"):
    """Return x, kernel and y."""
    geometry, rng = GEOMETRIES[name], np.random.default_rng(0)
    structure = "bilinear" if name == "upsampling" else "random"
    return (
        random_array(rng, (1, *geometry.input_shape), dtype),
        structured_kernel(rng, geometry, dtype, structure),
        random_array(rng, (1, *geometry.output_shape), dtype),
    )


def products(name, backend, dtype="float32"):
    """Return the three products of a geometry."""
    geometry, (x, kernel, y) = GEOMETRIES[name], operands(name, dtype)
    options = window(geometry) | {"backend": backend}
    return (
        conv(x, kernel, bias=np.arange(geometry.out_channels, dtype=dtype), **options),
        conv_transpose(y, kernel, output_size=geometry.input_size, **options),
        conv_kernel_gradient(x, y, geometry.kernel_size, **options),
    )


def assert_same(results, expected):
    for result, other in zip(results, expected, strict=True):
        np.testing.assert_array_equal(result, other)


def in_threads(count, work):
    """Run `work` on as many threads at once, each with its number; raise what one raises."""
    start, errors = threading.Barrier(count), []

    def run(number):
        try:
            start.wait()
            work(number)
        except BaseException as error:
            errors.append(error)

    workers = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(count)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert not worker.is_alive(), "a thread hangs"
    if errors:
        raise errors[0]


def test_eight_threads_on_one_operator(backend):
    geometry, (x, kernel, y) = GEOMETRIES["3x3"], operands("3x3")
    single = ConvOperator(kernel, geometry.input_size, padding="SAME", backend=backend)
    expected = single(x), single.T(y)
    op = ConvOperator(kernel, geometry.input_size, padding="SAME", backend=backend)  # unpacked T

    def work(number):
        for _ in range(4):
            assert_same((op(x), op.T(y)), expected)

    in_threads(8, work)


def test_eight_threads_on_distinct_operators(backend):
    expected = {name: products(name, backend) for name in GEOMETRIES}

    def work(number):
        name = list(GEOMETRIES)[number % len(GEOMETRIES)]
        geometry, (x, kernel, y) = GEOMETRIES[name], operands(name)
        bias = np.arange(geometry.out_channels, dtype="float32")
        for _ in range(2):
            op = ConvOperator(kernel, geometry.input_size, **window(geometry), backend=backend)
            assert_same((op(x, bias=bias), op.T(y)), expected[name][:2])

    in_threads(8, work)


def test_threads_that_plan_at_once(backend):
    """Eight threads meet geometries and dtypes that none has planned or compiled for yet."""
    rng = np.random.default_rng(0)
    kernel = random_array(rng, (2, 3, 3, 5), "float64")
    inputs = [random_array(rng, (1, 9, 20 + more, 3), "float64") for more in range(8)]
    results = [[None] * 8 for _ in range(8)]

    def work(number):
        for place in range(8):
            at = (number + place) % 8
            results[number][at] = conv(inputs[at], kernel, padding=5, backend=backend)

    in_threads(8, work)
    for result in results:
        assert_same(result, results[0])


def test_an_executor(backend):
    expected = {name: products(name, backend) for name in GEOMETRIES}
    with concurrent.futures.ThreadPoolExecutor(4) as executor:
        names = list(GEOMETRIES) * 3
        computed = executor.map(lambda name: products(name, backend), names)
        for name, results in zip(names, computed, strict=True):
            assert_same(results, expected[name])


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32"])
@pytest.mark.parametrize("name", GEOMETRIES)
def test_the_number_of_threads_changes_no_bit(backend, threads, name, dtype):
    expected = None
    for count in (1, 2, 3, 8):
        threads(count)
        assert convarith.get_num_threads() == count
        results = products(name, backend, dtype)
        expected = expected or results
        assert_same(results, expected)


def test_numbas_team_changes_no_bit(monkeypatch, threads):
    """It is there for systems without GNU's OpenMP."""
    pytest.importorskip("numba")
    from convarith.backends.cpu import launch, team

    threads(3)
    expected = {name: products(name, "cpu") for name in GEOMETRIES}
    numbas = team.numbas()
    monkeypatch.setattr(launch, "team", lambda: numbas)

    def work(number):
        for name in list(GEOMETRIES)[number % 2 :: 2]:
            assert_same(products(name, "cpu"), expected[name])

    in_threads(4, work)


def test_threads_are_the_processes(threads):
    """Set on one thread, the number holds on all."""
    threads(3)
    seen = []
    in_threads(2, lambda number: seen.append(convarith.get_num_threads()))
    assert seen == [3, 3]


@pytest.mark.parametrize("count", [0, -1, 1.5, "2", True])
def test_an_odd_number_of_threads_is_refused(threads, count):
    before = convarith.get_num_threads()
    with pytest.raises((TypeError, ValueError), match="count: expected an integer"):
        threads(count)
    assert convarith.get_num_threads() == before


def script(code, timeout=90, **environment):
    """Run Python code in a process group of its own; kill all of it when the time is over."""
    path = os.pathsep.join([os.path.dirname(__file__), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, **environment}
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", textwrap.dedent(code)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )
    try:
        out, errors = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        kill = getattr(os, "killpg", os.kill)
        kill(process.pid, getattr(signal, "SIGKILL", signal.SIGTERM))
        pytest.fail(f"hangs; so far: {process.communicate()}")
    assert process.returncode == 0, errors
    return out


def test_the_environment_sets_the_number_of_threads(backend):
    code = f"""
        import hashlib, convarith, test_threads
        bits = hashlib.sha256()
        for name in test_threads.GEOMETRIES:
            for result in test_threads.products(name, {backend!r}):
                bits.update(result.tobytes())
        print(convarith.get_num_threads(), bits.hexdigest())
    """
    told = [script(code, CONVARITH_NUM_THREADS=str(count)).split() for count in (1, 3, 8)]
    assert [count for count, _ in told] == ["1", "3", "8"]
    assert len({bits for _, bits in told}) == 1


def test_an_odd_environment_is_named():
    code = """
        import convarith
        try:
            convarith.get_num_threads()
        except ValueError as error:
            print(error)
    """
    for odd in ("0", "-2", "many", "1.5"):
        assert script(code, CONVARITH_NUM_THREADS=odd).startswith(
            "CONVARITH_NUM_THREADS: expected an integer >= 1, got"
        )


@FORKS
def test_a_child_forked_before_the_first_product(backend):
    """OpenMP hangs in it where anything in the parent had threads of it."""
    code = f"""
        import contextlib, ctypes, os, convarith, test_threads
        convarith.set_num_threads(2)
        with contextlib.suppress(OSError):  # where it is missing, nothing had threads of it
            parallel = ctypes.CDLL("libgomp.so.1").GOMP_parallel
            nothing = ctypes.cast(ctypes.CDLL(None).sched_yield, ctypes.c_void_p)
            parallel(nothing, None, 2, 0)
        child = os.fork()
        if child == 0:
            test_threads.products("3x3", {backend!r})
            os._exit(7)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """
    assert script(code) == "7\n"


@FORKS
def test_a_forked_child_computes(backend):
    """After the parent has computed, on threads; what the parent has not met yet, too."""
    code = f"""
        import os, numpy as np, convarith, test_threads
        from test_threads import GEOMETRIES, products
        backend, names = {backend!r}, list(GEOMETRIES)
        expected = {{name: products(name, backend) for name in names}}

        def child():
            convarith.set_num_threads(2)
            for name in names:
                test_threads.assert_same(products(name, backend), expected[name])
            x = np.arange(6000.0).reshape(1, 30, 40, 5)
            ours = convarith.conv(x, np.ones((4, 2, 5, 3)), backend=backend)
            assert (ours == convarith.conv(x, np.ones((4, 2, 5, 3)), backend="reference")).all()
            test_threads.test_an_executor(backend)

        for _ in range(2):
            pid = os.fork()
            if pid == 0:
                try:
                    child()
                except BaseException:
                    import traceback
                    traceback.print_exc()
                    os._exit(1)
                os._exit(0)
            _, status = os.waitpid(pid, 0)
            assert status == 0, status
            test_threads.assert_same(products("3x3", backend), expected["3x3"])
    """
    script(code)


@FORKS
def test_a_child_forked_amid_calls_computes(backend):
    """Other threads may hold any lock at that time; the child has no such threads."""
    code = f"""
        import os, threading, test_threads
        backend, names = {backend!r}, ["small", "depthwise", "one axis"]
        expected = {{name: test_threads.products(name, backend) for name in names}}
        stop = threading.Event()

        def keep_busy(name):
            while not stop.wait(1e-3):  # or the main thread waits long for its turn
                test_threads.products(name, backend)

        busy = [threading.Thread(target=keep_busy, args=(name,)) for name in names]
        for thread in busy:
            thread.start()
        codes = []
        for _ in range(8):
            pid = os.fork()
            if pid == 0:
                try:
                    for name in names:
                        test_threads.assert_same(
                            test_threads.products(name, backend), expected[name]
                        )
                except BaseException:
                    os._exit(1)
                os._exit(0)
            codes.append(os.waitpid(pid, 0)[1])
        stop.set()
        for thread in busy:
            thread.join()
        assert codes == [0] * 8, codes
    """
    script(code)


@FORKS
def test_a_pool_of_forked_workers(backend):
    code = f"""
        import multiprocessing, test_threads
        backend, names = {backend!r}, list(test_threads.GEOMETRIES)
        expected = [test_threads.products(name, backend) for name in names]
        with multiprocessing.get_context("fork").Pool(2) as pool:
            computed = pool.starmap(test_threads.products, [(name, backend) for name in names])
        for results, others in zip(computed, expected, strict=True):
            test_threads.assert_same(results, others)
    """
    script(code)


def test_a_spawned_child_computes(backend):
    """It gets the operator itself, which plans and packs anew there."""
    x, kernel, y = operands("strided")
    geometry = GEOMETRIES["strided"]
    op = ConvOperator(kernel, geometry.input_size, **window(geometry), backend=backend)
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as executor:
        jobs = executor.submit(op, x), executor.submit(op.T, y)
        assert_same([job.result(timeout=90) for job in jobs], (op(x), op.T(y)))
