"""Machine code on disk: loaded without Numba, and compiled again wherever it is not as written."""

import ctypes
import os
import subprocess
import sys

import pytest
from llvmlite import ir

from convarith.backends.cpu import compiled, team

#: Every kind of worker, on threads where there is work for them; prints the results' digest.
PRODUCTS = """
import sys
sys.path.insert(0, {tests!r})
import hashlib, convarith, test_threads
bits = hashlib.sha256()
convarith.set_num_threads(2)
for name in test_threads.GEOMETRIES:
    for result in test_threads.products(name, "cpu"):
        bits.update(result.tobytes())
print("numba" in sys.modules, bits.hexdigest())
"""
#: A kernel of our own: it writes a number to an address.
KERNEL = """
import ctypes
from llvmlite import ir
from convarith.backends.cpu import compiled
def writes(number, builder, address):
    pointer = builder.inttoptr(address, ir.IntType(64).as_pointer())
    builder.store(ir.IntType(64)(number), pointer)
word = ctypes.c_int64()
for number in (5, 7):
    kernel = compiled.kernel(writes, number)
    assert kernel == compiled.kernel(writes, number)
    ctypes.CFUNCTYPE(None, ctypes.c_int64)(kernel)(ctypes.addressof(word))
    print(word.value, end=" ")
"""


def run(code, **environment):
    told = {**os.environ, **environment}
    told = {name: value for name, value in told.items() if value is not None}
    done = subprocess.run([sys.executable, "-c", code], env=told, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(team.openmp() is None, reason="Numba starts the threads without libgomp")
def test_what_was_compiled_before_needs_no_numba():
    code = PRODUCTS.format(tests=os.path.dirname(__file__))
    _, first = run(code).split()
    numba, second = run(code).split()
    assert (numba, second) == ("False", first)


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:-1],
        lambda content: content[:40] + bytes([content[40] ^ 1]) + content[41:],
        lambda content: b"\0" * len(content),
    ],
    ids=["empty", "cut", "a bit", "zeros"],
)
def test_a_damaged_file_is_compiled_anew(tmp_path, damage):
    assert run(KERNEL, CONVARITH_CACHE=str(tmp_path)) == "5 7 "
    files = sorted((tmp_path / "cpu").iterdir())
    written = [file.read_bytes() for file in files]
    assert len(files) == 2
    for file, content in zip(files, written, strict=True):
        file.write_bytes(damage(content))
    assert run(KERNEL, CONVARITH_CACHE=str(tmp_path)) == "5 7 "
    assert sorted((tmp_path / "cpu").iterdir()) == files  # and nothing beside
    assert [file.read_bytes() for file in files] == written


def test_code_under_another_name_is_not_loaded(tmp_path):
    assert run(KERNEL, CONVARITH_CACHE=str(tmp_path)) == "5 7 "
    first, second = sorted((tmp_path / "cpu").iterdir())
    first.write_bytes(second.read_bytes())
    assert run(KERNEL, CONVARITH_CACHE=str(tmp_path)) == "5 7 "


@pytest.mark.parametrize("now", ["compiled._digest = lambda: 'other'", "compiled._SOURCES = ''"])
def test_no_code_is_kept_whose_text_is_not_known(tmp_path, now):
    """It was replaced since it was imported, or lies in an archive."""
    code = f"from convarith.backends.cpu import compiled; {now}\n{KERNEL}"
    assert run(code, CONVARITH_CACHE=str(tmp_path)) == "5 7 "
    assert not list(tmp_path.iterdir())


def test_numbas_settings_are_part_of_the_name(tmp_path):
    for level, files in (("3", 2), ("2", 4), ("2", 4)):
        run(KERNEL, CONVARITH_CACHE=str(tmp_path), NUMBA_OPT=level)
        assert len(list((tmp_path / "cpu").iterdir())) == files


def test_numba_that_compiles_nothing_is_named(tmp_path):
    code = "import convarith; convarith.conv([1.0, 2.0], [1.0], backend='cpu')"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "CONVARITH_CACHE": str(tmp_path), "NUMBA_DISABLE_JIT": "1"},
        capture_output=True,
        text=True,
    )
    assert "RuntimeError: NUMBA_DISABLE_JIT: expected 0, got 1" in done.stderr


def test_a_folder_that_cannot_be_written_is_not_fatal(tmp_path):
    file = tmp_path / "a file, not a folder"
    file.write_text("")
    assert run(KERNEL, CONVARITH_CACHE=str(file)) == "5 7 "
    assert file.read_text() == ""


def test_where_code_is_kept(tmp_path):
    """Numba's variable counts where ours is not set."""
    ours, numbas = tmp_path / "ours", tmp_path / "numba's"
    run(KERNEL, CONVARITH_CACHE=None, NUMBA_CACHE_DIR=str(numbas))
    assert len(list((numbas / "convarith").iterdir())) == 2
    run(KERNEL, CONVARITH_CACHE=str(ours), NUMBA_CACHE_DIR=str(numbas))
    assert len(list((ours / "cpu").iterdir())) == 2


@pytest.mark.parametrize("make", [team.openmp, team.numbas])
def test_a_team_calls_so_many_times(monkeypatch, tmp_path, make):
    monkeypatch.setenv("CONVARITH_CACHE", str(tmp_path))
    run_on = make()
    if run_on is None:
        pytest.skip("this system has no libgomp")
    counted = ctypes.c_int64()

    def counts(builder, address):
        pointer = builder.inttoptr(address, ir.IntType(64).as_pointer())
        builder.atomic_rmw("add", pointer, ir.IntType(64)(1), "monotonic")

    kernel = compiled.kernel(counts)
    for threads in (1, 2, 3, 2):
        run_on(kernel, ctypes.addressof(counted), threads)
    assert counted.value == 8
