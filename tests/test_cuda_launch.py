"""How a kernel's arguments lie in memory, against ctypes' own layout of the same struct."""

import ctypes
import threading

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from convarith import ConvGeometry
from convarith.backends.cuda.launch import POINTERS, Arguments, Launch
from convarith.backends.cuda.law import Law

ADDRESS = 0x7F00_1234_5678
SCALARS = {np.int32: ctypes.c_int32, np.int64: ctypes.c_int64, np.uint64: ctypes.c_uint64}


class Array:
    """What there is of a CuPy array for a launch."""

    class data:
        ptr = ADDRESS


def struct(size):
    return Law(ConvGeometry((size, 8), 3), transposed=False).map_struct(4, 4)


def bytes_of(arguments):
    """Return the memory that the driver is given, by way of what it is given."""
    extra = (ctypes.c_void_p * 5).from_address(arguments.address)
    assert (extra[0], extra[2], extra[4]) == (1, 2, None)
    return ctypes.string_at(extra[1], ctypes.c_size_t.from_address(extra[3]).value)


@given(
    st.lists(
        st.one_of(
            st.just(Array()),
            st.none(),
            st.integers(0, 2**31 - 1).map(np.int32),
            st.integers(-(2**63), 2**63 - 1).map(np.int64),
            st.integers(0, 2**64 - 1).map(np.uint64),
            st.integers(5, 50).map(struct),
        ),
        min_size=1,
        max_size=20,
    )
)
def test_arguments_lie_as_c_lays_them_out(values):
    fields, kinds = [], []
    for i, value in enumerate(values):
        if isinstance(value, np.ndarray):  # a struct of alignment 8
            kind = ctypes.c_uint64 * (value.itemsize // 8)
            number = kind.from_buffer_copy(value.tobytes())
        elif value is None or isinstance(value, Array):
            kind, number = ctypes.c_void_p, ADDRESS if value is not None else None
        else:
            kind, number = SCALARS[type(value)], int(value)
        fields.append((f"_{i}", kind))
        kinds.append((f"_{i}", number))
    expected = type("Expected", (ctypes.Structure,), {"_fields_": fields})()
    for name, number in kinds:
        setattr(expected, name, number)
    dtypes = [v.dtype if isinstance(v, (np.ndarray, np.generic)) else POINTERS for v in values]
    arguments = Arguments(*dtypes)
    arguments.fill(tuple(values))
    last = fields[-1]
    used = getattr(type(expected), last[0]).offset + ctypes.sizeof(last[1])
    assert bytes_of(arguments) == bytes(expected)[:used]  # a struct ends in padding


def test_every_thread_has_its_own_memory():
    arguments = Arguments(np.dtype(np.int64))
    arguments.fill((np.int64(1),))
    found = {}

    def other():
        arguments.fill((np.int64(2),))
        found["address"], found["bytes"] = arguments.address, bytes_of(arguments)

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert found["address"] != arguments.address
    assert int.from_bytes(found["bytes"], "little") == 2
    assert int.from_bytes(bytes_of(arguments), "little") == 1


class Cuda:
    """The part of ``cupy.cuda`` that a launch calls, with a list of the calls."""

    class driver:
        CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES = 8
        calls: list = []

        @classmethod
        def funcSetAttribute(cls, *arguments):
            cls.calls.append(arguments)

        @classmethod
        def launchKernel(cls, *arguments):
            cls.calls.append(arguments)

    class get_current_stream:
        ptr = 7


class Function:
    ptr = 5


def test_shared_memory_grows_once():
    launch = Launch(Cuda, Function)
    for shared in (0, 50_000, 50_000, 60_000):
        launch((3, 2, 1), 128, (np.int32(9),), shared)
    kinds = [(call[:3] if len(call) == 3 else call[:9]) for call in Cuda.driver.calls]
    blocks = (5, 3, 2, 1, 128, 1, 1)
    assert kinds == [
        (*blocks, 0, 7),
        (5, 8, 50_000),
        (*blocks, 50_000, 7),
        (*blocks, 50_000, 7),
        (5, 8, 60_000),
        (*blocks, 60_000, 7),
    ]
