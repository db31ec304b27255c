"""The benchmarks on a GPU, as far as they can be seen without one. No time counts."""

import importlib
import importlib.machinery
import json
import sys
import time
import types
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture
def benchmark(monkeypatch):
    """Return a function that imports a module of the benchmarks, which are no package."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module


class StandInError(RuntimeError):
    """What the stand-in's runtime raises."""


class StandInEvent:
    """An event by the host's clock."""

    done = True

    def record(self):
        self.at = time.perf_counter()

    def synchronize(self):
        pass


def stand_in():
    """Return a module that looks like CuPy as far as the benchmarks look; its arrays are NumPy's.

    It says nothing of a GPU: it shows that a run's parts fit together where there is none.
    """
    cupy = types.ModuleType("cupy")
    vars(cupy).update({name: getattr(np, name) for name in dir(np) if name[0] != "_"})
    cupy.__spec__, cupy.__version__ = importlib.machinery.ModuleSpec("cupy", None), "0"
    properties = {"name": b"Card", "major": 9, "minor": 0, "multiProcessorCount": 2}
    runtime = types.SimpleNamespace(
        CUDARuntimeError=StandInError,
        getDeviceCount=lambda: 1,
        deviceSynchronize=lambda: None,
        getDeviceProperties=lambda device: {**properties, "totalGlobalMem": 2**30},
        memGetInfo=lambda: (1, 1),
        driverGetVersion=lambda: 13000,
        runtimeGetVersion=lambda: 12080,
    )
    cupy.cuda = types.SimpleNamespace(
        runtime=runtime,
        Event=StandInEvent,
        Device=lambda: types.SimpleNamespace(id=0, attributes={"L2CacheSize": 2**16}),
        get_elapsed_time=lambda start, end: (end.at - start.at) * 1e3,
    )
    cupy.RawKernel = lambda source, name: lambda grid, block, arguments: None
    return cupy


@pytest.fixture
def cuda(benchmark, monkeypatch):
    """Return `benchmark`, for the modules that import CuPy, which is a stand-in; no peer is there.

    The modules are imported anew, and forgotten, since another test may have the real one.
    """
    for name in [name for name in sys.modules if name == "gpu" or name.startswith("gpu.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "cupy", stand_in())
    for peer in ("torch", "jax"):
        monkeypatch.setitem(sys.modules, peer, None)
    limits = benchmark("gpu.limits")
    monkeypatch.setattr(limits, "COPY_BYTES", 2**16)
    monkeypatch.setattr(limits, "SIDE", 16)
    yield benchmark
    for name in [name for name in sys.modules if name == "gpu" or name.startswith("gpu.")]:
        del sys.modules[name]


def run_cuda(cuda, *arguments):
    return cuda("run").main(["--device", "cuda", "--seconds", "0", *map(str, arguments)])


def test_a_run_on_a_gpu(cuda, tmp_path, capsys):
    path = tmp_path / "result.json"
    arguments = ["--cases", "seed", "fcn2x_up_bilinear", "calls", "--precisions", "float32"]
    assert run_cuda(cuda, *arguments, "--json", path) == 0
    printed = capsys.readouterr().out
    result = json.loads(path.read_text(encoding="utf-8"))
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]
    assert result["left_out"] == [] and result["machine"]["card"] == "Card"
    assert result["machine"]["runtime_cuda"] == "12.8" and result["limits"]["tflops"]["float32"] > 0
    named = [(case["group"], case["name"], case["batch"]) for case in result["cases"]]
    assert named == [
        ("transposed", "seed", 1),
        ("transposed", "fcn2x_up_bilinear", 1),
        ("transposed", "seed", 16),
        ("transposed", "fcn2x_up_bilinear", 16),
        ("kernel_gradient", "seed", 1),
        ("kernel_gradient", "seed", 16),
        ("calls", "operator_overhead", 1),
        ("calls", "conv_overhead", 1),
    ]
    for case in result["cases"]:
        ours = case["candidates"]["convarith"]
        assert ours["low"] <= ours["median"] <= ours["high"]
        if case["group"] != "calls":
            assert 0 < ours["error"] < 1e-5 and ours["clock"] == "events"
            assert (case["copies"] > 1) == (case["memory_bound"] and case["batch"] == 16)
            assert case["candidates"]["JAX"] == {"skipped": "not installed"}
    assert "F.interpolate NCHW" in result["cases"][1]["candidates"]
    assert "| not installed |" in printed and "driver" in printed


def test_ours_failing_is_told_and_no_end(cuda, tmp_path, capsys):
    path = tmp_path / "result.json"
    arguments = ["--cases", "transposed/seed", "--precisions", "tf32", "float16", "--batch", 1]
    assert run_cuda(cuda, *arguments, "--peers", "--json", path) == 1
    printed, told = capsys.readouterr()
    tf32, half = json.loads(path.read_text(encoding="utf-8"))["cases"]
    assert tf32["candidates"] == {
        "convarith": {"failed": tf32["candidates"]["convarith"]["failed"]}
    }
    assert "median" in half["candidates"]["convarith"]
    assert "| failed: ValueError: precision" in printed
    assert "transposed/seed tf32 n1 failed: ValueError: precision" in told


def test_a_lost_gpu_ends_the_run(cuda, tmp_path, monkeypatch):
    session = cuda("gpu.session")
    monkeypatch.setattr(session, "context_lost", lambda: "an illegal access")
    path = tmp_path / "result.json"
    assert run_cuda(cuda, "--cases", "seed", "--peers", "--json", path) == 1
    result = json.loads(path.read_text(encoding="utf-8"))
    assert len(result["cases"]) == 1 and len(result["left_out"]) == 15
    assert session.failures(result) == ["the GPU cannot go on: an illegal access"]


def test_what_there_is_no_time_for_is_named(cuda, capsys):
    assert run_cuda(cuda, "--cases", "seed", "--minutes", "1e-9") == 0
    assert "Left out, 16: transposed/seed float32 n1, " in capsys.readouterr().out


def test_without_a_gpu(benchmark, monkeypatch, capsys):
    cupy = stand_in()

    def line():
        assert benchmark("run").main(["--device", "cuda"]) == 2
        printed, told = capsys.readouterr()
        assert printed == ""
        return told

    def fail(*arguments):
        raise StandInError("no driver\nsecond line")

    begin = "benchmarks/run.py: --device cuda: "
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setattr(cupy.cuda.runtime, "getDeviceCount", lambda: 0)
    assert line() == f"{begin}no CUDA device\n"
    monkeypatch.setattr(cupy.cuda.runtime, "getDeviceCount", fail)
    assert line() == f"{begin}no CUDA device: no driver\n"
    with monkeypatch.context() as patch:
        patch.setattr(benchmark("gpu").importlib, "import_module", fail)
        reason = benchmark("gpu").missing()
    assert reason == "CuPy cannot be loaded: no driver"
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert line() == f"{begin}CuPy is not installed\n"


@pytest.mark.parametrize("option", ["--precisions=tf32", "--batch=1", "--minutes=1"])
def test_options_of_a_gpu_alone(benchmark, capsys, option):
    with pytest.raises(SystemExit):
        benchmark("run").main([option])
    assert (
        f"{option.partition('=')[0]}: expected with --device cuda only" in capsys.readouterr().err
    )


def test_the_most_important_first(benchmark):
    module = benchmark("gpu.trials")
    trials = module.trials(None)
    assert len({trial.path for trial in trials}) == len(trials)
    groups = list(dict.fromkeys(trial.case.group for trial in trials))
    assert groups == ["transposed", "forward", "argmax", "kernel_gradient", "calls"]
    assert [trial.path for trial in module.trials(["argmax"])] == ["argmax/argmax float32 n16"]
    batches = [trial.case.batch for trial in module.trials(["forward/r64", "transposed/dcgan"])]
    assert batches == [8, 16] * 4 + [1, 16] * 4
    (tf32,) = module.trials(["forward/r64"], ["tf32"], [1])
    assert tf32.case.dtype == "float32" and tf32.precision == "tf32"
    bound = {trial.case.name for trial in trials if trial.memory_bound}
    channelwise = {"depthwise", "rgb3", "rgb7", "argmax"}
    assert bound == {name for name in bound if "bilinear" in name} | channelwise
    with pytest.raises(ValueError, match="no case 'matrix'"):
        module.trials(["matrix"])


def timing(median):
    return {"low": median, "median": median, "high": median, "rounds": 5, "error": 1e-7}


def synthetic_cuda():
    """Return a result of a GPU in which the bound is memory once, and ours fails once."""

    def case(group, name, precision, bound, **candidates):
        return {
            "group": group, "name": name, "batch": 16, "precision": precision,
            "memory_bound": bound, "flops": 10**12, "bytes": 10**9, "candidates": candidates,
        }  # fmt: skip

    bilinear = case("transposed", "up_bilinear", "float32", True, convarith=timing(2), a=timing(4))
    return {
        "machine": {
            "card": "Card", "multiprocessors": 2, "compute_capability": "9.0", "driver": "1.2",
            "driver_cuda": "13.0", "runtime_cuda": "13.0", "python": "3", "versions": {"cupy": "0"},
        },
        "device": "cuda",
        "date": "2026-01-01",
        "limits": {"gbytes_per_second": 1000.0, "tflops": {"float32": 100.0, "tf32": 1000.0}},
        "left_out": ["forward/r64 float16 n16"],
        "cases": [
            bilinear | {"copy": timing(1.5)},
            case("forward", "r64", "float32", False, convarith=timing(20), a=timing(10)),
            case("forward", "r64", "tf32", False, convarith={"failed": "E: why"}, a=timing(1)),
            case("forward", "r64", "bfloat16", False, convarith=timing(5), b={"skipped": "no way"}),
            case("calls", "conv_overhead", "float32", False, convarith=timing(0.02)),
        ],
    }  # fmt: skip


def test_the_tables_of_a_gpu(benchmark):
    tables, result = benchmark("gpu.tables"), synthetic_cuda()
    bilinear, plain, _, unmeasured, _ = result["cases"]
    limits = result["limits"]
    assert (tables.of_copy(bilinear), tables.of_roofline(bilinear, limits)) == ("75", "50")
    assert (tables.of_copy(plain), tables.of_roofline(plain, limits)) == ("", "50")
    assert tables.brief_cell(bilinear, limits) == "2 · 2.00 · 50 % (75 %)"
    assert tables.of_roofline(unmeasured, limits) == "–"
    printed = tables.tables(result)
    for part in ("failed: E: why", "no way", "20 µs", "Left out, 1: forward/r64", "TF32"):
        assert part in printed
    assert "Convolutions, float32: 0.50 times" in printed
    assert "Convolutions, TF32: " not in tables.means(result)


def test_the_readme_part_of_a_gpu(benchmark, tmp_path):
    report = benchmark("report")
    (tmp_path / "card.json").write_text(json.dumps(synthetic_cuda()), encoding="utf-8")
    begin, end = (mark.format(name="cuda") for mark in (report.BEGIN, report.END))
    text = report.with_tables(f"{begin}\n{end}\n", tmp_path)
    assert "](docs/card.png)" in text and "products of 8192 x 8192" in text
    assert "| 20 · 0.50 · 50 % | failed |" in text
    begin, end = (mark.format(name="cpu") for mark in (report.BEGIN, report.END))
    assert "card" not in report.with_tables(f"{begin}\n{end}\n", tmp_path)
    picture = tmp_path / "card.png"
    benchmark("gpu.plot").plot(synthetic_cuda(), picture)
    assert picture.stat().st_size > 1000
