"""The benchmarks measure what they say: their cases, their floors, their tables. No time counts."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture
def benchmark(monkeypatch):
    """Return a function that imports a module of the benchmarks, which are no package."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    """Measure three small cases, as the command line does, with one peer that may be missing."""
    path = tmp_path_factory.mktemp("benchmarks")
    arguments = ["--cases", "fcn2x_up", "--peers", "cv2.resize", "--seconds", "0", "--rotate"]
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "run.py", *arguments]
        + ["--threads", "1", "--json", path / "result.json", "--plot", path / "plot.png"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert (path / "plot.png").stat().st_size > 1000
    result = json.loads((path / "result.json").read_text(encoding="utf-8"))
    result["printed"] = done.stdout
    return result


def test_what_is_measured(result):
    paths = [f"{case['group']}/{case['name']}" for case in result["cases"]]
    assert paths == [
        "transposed/fcn2x_up_dense",
        "transposed/fcn2x_up_bilinear",
        "kernel_gradient/fcn2x_up",
    ]
    for case in result["cases"]:
        ours = case["candidates"]["convarith"]
        assert 0 < ours["error"] < 1e-5 and ours["low"] <= ours["median"] <= ours["high"]
        assert case["copies"] > 1
    dense, bilinear, _ = (case["candidates"] for case in result["cases"])
    assert "fill" not in dense and "threaded fill" in bilinear
    resize = bilinear["cv2.resize"]
    assert resize.get("skipped") == "not installed" or resize["error"] < 1e-5
    assert "cv2.resize" not in dense
    assert result["threads"] == 1
    assert min(result["limits"].values()) > 0


def test_what_is_printed(result):
    assert "| fcn2x_up_bilinear |" in result["printed"]
    assert "cv2.resize |" in result["printed"]
    assert "GFLOP/s" in result["printed"]


@pytest.mark.parametrize("name", ["transposed/dcgan", "forward/stem", "forward/depthwise"])
def test_the_work_is_that_of_the_matrix(benchmark, name):
    (case,) = benchmark("cases").select([name])
    problem = benchmark("problem").Problem.of(case)
    g = case.geometry
    assert problem.flops == 2 * case.batch * g.nnz
    assert problem.nbytes == 4 * (
        case.batch * (np.prod(g.input_shape) + np.prod(g.output_shape)) + np.prod(g.kernel_shape)
    )


def test_transposed_layers_enlarge_by_their_stride(benchmark):
    for case in benchmark("cases").select(["transposed"]):
        g = case.geometry
        assert g.input_size == tuple(s * o for s, o in zip(g.strides, g.output_size, strict=True))


def test_a_bilinear_kernel_is_a_sum_over_four(benchmark):
    (case,) = benchmark("cases").select(["fcn2x_up_bilinear"])
    problem = benchmark("problem").Problem.of(case)
    assert 0.9 * problem.x.size < problem.flops / 2 / 4 < problem.x.size
    grouped = problem.grouped()
    np.testing.assert_allclose(grouped.exact, problem.exact)
    assert grouped.flops == problem.flops


def test_a_layer_stands_for_all_of_its_cases(benchmark):
    cases = benchmark("cases")
    assert len(cases.select(["img2x"])) == 3
    assert len(cases.select(["transposed/img2x", "img2x_dense"])) == 2
    assert len(cases.select(None)) == len({case.path for case in cases.CASES})


def test_a_peer_that_cannot_is_a_cell_not_an_end(benchmark, monkeypatch):
    peers = benchmark("peers")
    (case,) = benchmark("cases").select(["transposed/seed"])
    problem = benchmark("problem").Problem.of(case)

    def reason(needs, **options):
        peer = peers.Peer("peer", "cases", "select", needs, (), **options)
        with pytest.raises(peers.Cannot) as caught:
            peers.prepare(peer, problem, [], 1)
        return str(caught.value)

    assert reason(("no_such_module",)) == "not installed"
    assert reason(("numpy", "no_such_module")) == "no_such_module not installed"
    assert reason((), interpolates=True) == "bilinear only"
    assert reason(()).startswith("AttributeError: ")


def timing(median, **more):
    return {"low": median, "median": median, "high": median, "rounds": 5, "error": 1e-7, **more}


def synthetic():
    """Return a result in which ours is 4 times, and half as fast, and one peer is missing."""

    def case(group, name, **candidates):
        return {
            "group": group, "name": name, "flops": 10**9, "bytes": 10**6, "candidates": candidates
        }  # fmt: skip

    return {
        "machine": {"processor": "P", "cores": 2, "system": "S", "python": "3", "versions": {}},
        "date": "2026-01-01",
        "threads": 2,
        "limits": {"gflops": 1000.0, "gbytes_per_second": 10.0},
        "others": 0.3,
        "cases": [
            case(
                "forward", "r64",
                **{"convarith": timing(2), "convarith direct": timing(4), "a": timing(8)},
            ),
            case("forward", "r128", convarith=timing(2), a=timing(1), b={"skipped": "no way"}),
        ],
    }  # fmt: skip


def test_the_best_peer_over_ours(benchmark):
    tables, result = benchmark("tables"), synthetic()
    assert [tables.ratio(case) for case in result["cases"]] == [4, 0.5]
    assert "1.41 in the geometric mean of 2" in tables.means(result)
    assert "0.50 (forward/r128); 1 below 1" in tables.means(result)
    printed = tables.tables(result)
    assert "50 (direct 25)" in printed and "no way" in printed


def test_the_readme_part(benchmark, tmp_path):
    report = benchmark("report")
    (tmp_path / "some-machine.json").write_text(json.dumps(synthetic()), encoding="utf-8")
    begin, end = (mark.format(name="cpu") for mark in (report.BEGIN, report.END))
    text = report.with_tables(f"before\n\n{begin}\nold\n{end}\n\nafter\n", tmp_path)
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text
    assert "](docs/some-machine.png)" in text and "| r64 " in text
    assert "others had 30 % of the cores" in text
    assert report.with_tables(text, tmp_path) == text
    with pytest.raises(ValueError, match="expected <!-- begin cpu"):
        report.with_tables(begin, tmp_path)


def test_every_plot_of_a_result_is_there(benchmark):
    """`python benchmarks/report.py` draws what the README shows."""
    report = benchmark("report")
    for stem, result in report.measured(report.HERE / "results").items():
        if any(report.has(result, report.PARTS[part]) for part in ("cpu", "cuda")):
            assert (ROOT / "docs" / f"{stem}.png").is_file()


def test_candidates_take_turns(benchmark, monkeypatch):
    measure = benchmark("measure")
    monkeypatch.setattr(measure, "PAUSE_SECONDS", 0)
    monkeypatch.setattr(measure, "WARM_SECONDS", 0)
    monkeypatch.setattr(measure, "TIMED_SECONDS", 0)
    seen = []
    found = measure.interleaved({"a": lambda: seen.append("a"), "b": lambda: seen.append("b")}, 0)
    assert "".join(seen) == "aabb" * measure.MIN_ROUNDS
    assert found["a"]["rounds"] == measure.MIN_ROUNDS
