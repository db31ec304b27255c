"""``python -m convarith.testing fuzz`` agrees, finds what is planted, refuses nonsense."""

import re
import subprocess
import sys

import numpy as np
import pytest

from convarith import ConvGeometry, backends
from convarith.testing import Trial, __main__, fuzz


class Planted:
    """A plan whose result is spoilt by a function."""

    def __init__(self, inner, spoil):
        self.inner, self.spoil = inner, spoil
        self.pack, self.nbytes = inner.pack, inner.nbytes

    def specialised(self, operand, *, reused):
        return self

    def __str__(self):
        return str(self.inner)

    def run(self, source, packed, out, epilogue):
        result = self.inner.run(source, packed, out, epilogue)
        self.spoil(source, result)
        return result


def forget_the_last_pixel(source, result):
    result[..., -1, :] = 0


def overwrite_the_source(source, result):
    source.flat[0] = 0


def write_past_the_end(source, result):
    np.lib.stride_tricks.as_strided(result, (*result.shape[:-1], result.shape[-1] + 1))[:] = 0


@pytest.fixture
def plant(monkeypatch):
    """Spoil the results of the products and geometries that a condition picks."""

    def plant(spoil, condition):
        plan = backends.plan

        def planted(backend, product, geometry, dtype, options):
            made = plan(backend, product, geometry, dtype, options)
            return Planted(made, spoil) if condition(product, geometry) else made

        monkeypatch.setattr(backends, "plan", planted)

    return plant


def run(*words):
    return __main__.main(["fuzz", *words])


@pytest.mark.parametrize("product", [None, "forward", "transpose", "kernel_gradient"])
def test_it_agrees(backend, product, capsys):
    words = () if product is None else ("--product", product)
    assert run("--minutes", "0.01", "--backend", backend, "--seed", "7", *words) == 0
    first, last = capsys.readouterr().out.splitlines()
    assert first == f"seed 7, backend {backend}"
    count = re.fullmatch(rf"(\d+) cases, seed 7, backend {backend}: all agreed", last)[1]
    assert int(count) > 0


def test_it_runs_as_a_command():
    command = [sys.executable, "-m", "convarith.testing", "fuzz", "--minutes", "0.005"]
    words = ["--backend", "reference", "--algorithm", "direct", "--verbose"]
    done = subprocess.run([*command, *words], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    seed = re.fullmatch(r"seed (\d+), backend reference", lines[0])[1]
    assert re.fullmatch(rf"[1-9]\d* cases, seed {seed}, backend reference: all agreed", lines[-1])
    assert all(line.startswith("Trial(") for line in lines[1:-1])
    assert not done.stderr


def test_it_finds_and_shrinks_what_is_planted(plant, capsys):
    plant(
        forget_the_last_pixel,
        lambda product, geometry: product == "forward" and geometry.output_size[-1] >= 5,
    )
    assert run("--minutes", "1", "--backend", "reference", "--seed", "3") == 1
    printed = capsys.readouterr().out
    assert re.search(r"\d+ cases, seed 3, backend reference, then one failed", printed)
    assert "AssertionError: forward of ConvGeometry" in printed
    assert "hypothesis" not in printed.lower() and "flaky" not in printed
    snippet = printed[printed.index("from convarith") : printed.index("\nAssertionError")]
    with pytest.raises(AssertionError, match="forward of"):
        exec(snippet, {})
    trial = eval(snippet[snippet.index("Trial(\n") : snippet.index(".check()")], vars(fuzz))
    assert trial.geometry.output_size[-1] == 5, "shrunk to the smallest that fails"
    assert (trial.dtype, trial.source_layout, trial.parts) == ("float32", "C", ())


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (overwrite_the_source, r"source: \d bytes in or around the array were changed"),
        (write_past_the_end, "bytes outside of the array were changed"),
    ],
)
def test_it_finds_what_writes_elsewhere(plant, spoil, message):
    plant(spoil, lambda *_: True)
    with pytest.raises(AssertionError, match=message):
        Trial("forward", ConvGeometry(9, 3), out="C").check()


def test_a_failure_that_does_not_repeat_is_called_flaky(plant, capsys):
    calls = []

    def spoil(source, result):
        calls.append(result)
        if len(calls) == 3:
            result[...] = np.nan if result.dtype.kind == "f" else 1

    plant(spoil, lambda product, geometry: product == "forward" and geometry.nnz > 0)
    words = ("--minutes", "1", "--backend", "reference", "--seed", "1", "--product", "forward")
    assert run(*words) == 1
    assert "flaky" in capsys.readouterr().out


def test_what_a_backend_raises_is_a_failure(plant, capsys):
    def spoil(source, result):
        raise ZeroDivisionError("in the kernel")

    plant(spoil, lambda product, geometry: product == "transpose")
    assert run("--minutes", "1", "--backend", "reference", "--seed", "1") == 1
    assert "ZeroDivisionError: in the kernel" in capsys.readouterr().out


def test_the_same_seed_fails_at_the_same_count(plant, capsys):
    plant(forget_the_last_pixel, lambda product, geometry: geometry.strides[-1] == 3)
    counts = set()
    for _ in range(2):
        assert run("--minutes", "1", "--backend", "reference", "--seed", "11") == 1
        counts.add(re.search(r"(\d+) cases", capsys.readouterr().out)[1])
    assert len(counts) == 1


def test_an_interruption_says_how_far_it_came(plant, capsys):
    calls = []

    def interrupt(source, result):
        calls.append(1)
        if len(calls) > 20:
            raise KeyboardInterrupt

    plant(interrupt, lambda *_: True)
    assert run("--minutes", "1", "--backend", "reference", "--seed", "5") == 130
    assert re.search(
        r"interrupted: \d+ cases, seed 5, backend reference: all agreed so far",
        capsys.readouterr().out,
    )


@pytest.mark.parametrize(
    "words",
    [
        ["--minutes", "0"],
        ["--minutes", "-1"],
        ["--minutes", "nan"],
        ["--minutes", "inf"],
        ["--minutes", "soon"],
        ["--seed", "-1"],
        ["--seed", "1.5"],
        ["--seed", str(2**64)],
        ["--backend", "nowhere"],
        ["--product", "sideways"],
        ["--algorithm", "fft"],
        ["--algorithm", "winograd", "--backend", "reference"],
        ["--nonsense"],
        ["more"],
    ],
    ids=" ".join,
)
def test_bad_arguments_end_with_2(words, capsys):
    try:
        code = run("--minutes", "0.001", *words)
    except SystemExit as ended:
        code = ended.code
    assert code == 2
    captured = capsys.readouterr()
    assert len(captured.err.splitlines()) == 1 and not captured.out


def test_cuda_without_a_device_ends_with_2(monkeypatch, capsys):
    pytest.importorskip("cupy")
    monkeypatch.setattr(fuzz, "missing", lambda: "needs a CUDA device: there is none")
    assert run("--backend", "cuda") == 2
    captured = capsys.readouterr()
    assert captured.err == (
        "convarith.testing fuzz: backend: 'cuda' needs a CUDA device: there is none\n"
    )
    assert not captured.out


def test_no_command_is_an_error(capsys):
    with pytest.raises(SystemExit) as ended:
        __main__.main([])
    assert ended.value.code == 2
