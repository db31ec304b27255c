"""The textbook's experiments: what they run, and that fcn/README.md says what they came to."""

import argparse
import importlib
import json
import re
import sys
from pathlib import Path

import pytest

from fcn import train
from fcn.recipe import Recipe
from fcn.record import Epoch, write_log

ROOT = Path(__file__).parent.parent
README = ROOT / "fcn" / "README.md"
TRAINED = ("upsampling", "heads", "rates")


@pytest.fixture
def benchmark(monkeypatch):
    """Return a function that imports a module of the benchmarks, which are no package."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module


def settings(options):
    """Return what `python -m fcn train` makes of options."""
    parser = argparse.ArgumentParser()
    train.add_arguments(parser)
    given = vars(parser.parse_args(["--data", "d", "--out", "o", *options]))
    return Recipe(**{name: value for name, value in given.items() if name in train.DEFAULTS})


@pytest.mark.parametrize(
    ("name", "varied"),
    [("upsampling", {"upsampling", "seed"}), ("heads", {"head"}), ("rates", {"lr"})],
)
def test_the_runs_differ_in_what_is_asked_alone(benchmark, name, varied):
    recipes = [
        settings(run.options).to_json() for run in benchmark("training_runs").EXPERIMENTS[name]
    ]
    assert all(recipe["backbone"] == "mobilenet_v2" for recipe in recipes)
    assert varied == {key for key in recipes[0] if len({str(r[key]) for r in recipes}) > 1}


def test_one_run_is_common_to_all(benchmark):
    runs = benchmark("training_runs")
    folders = [{run.folder for run in runs.EXPERIMENTS[name]} for name in TRAINED]
    assert set.intersection(*folders) == {"standard"}
    every = {run.folder: run.options for each in runs.EXPERIMENTS.values() for run in each}
    assert len({tuple(options) for options in every.values()}) == len(every)
    assert settings(every["standard"]).upsampling == "bilinear"
    assert settings(every["standard"]).head == "8s"


#: Instead of `python -m fcn train`: it says what it was told, and ends as it is told to.
FAKE = """
import os, pathlib, shutil, sys
folder = pathlib.Path(sys.argv[sys.argv.index("--out") + 1])
folder.mkdir()
print("network trained on", os.environ["CONVARITH_NUM_THREADS"], "thread")
if {log!r}:
    shutil.copy({log!r}, folder / "log.csv")
print({last!r}, file=sys.stderr)
sys.exit({code})
"""


@pytest.fixture
def runs(benchmark, monkeypatch, tmp_path):
    """Return the module, and what has its `train` end with a code and a line."""
    module = benchmark("training_runs")

    def ends(code, last, epochs=2):
        log = tmp_path / "log.csv" if epochs else ""
        if epochs:
            write_log(log, history(epochs))
        text = FAKE.format(code=code, last=last, log=str(log))
        monkeypatch.setattr(module, "TRAIN", (sys.executable, "-c", text))

    return module, ends


def history(epochs, mean_iu=0.5):
    return [Epoch(n, 2.0 / n, 0.5, 0.6, mean_iu, 9.0, 1.0) for n in range(1, epochs + 1)]


def test_a_run_is_run_once(runs, tmp_path, capfd):
    module, ends = runs
    ends(0, "best mean IU")
    found = module.measured("heads", tmp_path, tmp_path / "runs")
    assert capfd.readouterr().out.count("--backbone mobilenet_v2") == 3
    assert [run["kind"] for run in found["runs"]] == ["32s", "16s", "8s"]
    for run in found["runs"]:
        assert run["trained"] == "network trained on 1 thread" and run["diverged"] is None
        assert run["history"][1]["loss"] == 1.0
        assert 0 <= run["cpu_seconds"] < 60 and 0 <= run["seconds"] < 60
    ends(1, "not again")
    assert module.measured("heads", tmp_path, tmp_path / "runs") == found
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("epochs", [0, 2])
def test_a_run_that_diverges_is_a_result(runs, tmp_path, epochs):
    module, ends = runs
    ends(2, "fcn: the loss is nan at step 7: a lower --lr may help", epochs)
    found = module.trained(module.Run("1e-1", "--lr 1e-1"), tmp_path, tmp_path / "runs")
    assert found["diverged"] == "the loss is nan at step 7: a lower --lr may help"
    assert len(found["history"]) == epochs


def test_a_run_that_fails_is_none(runs, tmp_path):
    module, ends = runs
    ends(2, "fcn: data: expected a folder")
    with pytest.raises(ValueError, match=r"fcn: data: expected a folder \(exit code 2\)"):
        module.trained(module.Run("8s"), tmp_path, tmp_path / "runs")
    with pytest.raises(ValueError, match="did not end"):
        module.trained(module.Run("8s"), tmp_path, tmp_path / "runs")


def test_a_run_of_other_options_is_not_taken(runs, tmp_path, monkeypatch):
    module, ends = runs
    ends(0, "")
    module.trained(module.Run("8s"), tmp_path, tmp_path)
    monkeypatch.setattr(module, "RATE", "0.5")
    with pytest.raises(ValueError, match="other options"):
        module.trained(module.Run("8s"), tmp_path, tmp_path)


MACHINE = {
    "machine": {"processor": "P", "cores": 2, "system": "S", "python": "3", "versions": {}},
    "date": "2026-01-01",
    "others": 0.3,
}


def training(*runs):
    return {
        **MACHINE,
        "common": "--epochs 2",
        "runs": [
            {
                "kind": kind,
                "varied": varied,
                "trained": "network",
                "diverged": diverged,
                "history": [epoch.__dict__ for epoch in history(epochs, mean_iu)],
                "seconds": 120.0,
                "cpu_seconds": 60.0,
            }
            for kind, varied, epochs, mean_iu, diverged in runs
        ],
    }


def test_the_report_of_training(benchmark):
    result = training(
        ("low", "--lr 1", 2, 0.25, None),
        ("high", "", 2, 0.75, None),
        ("high", "--seed 1", 2, 0.65, None),
        ("huge", "--lr 9", 1, 0.9, "the loss is inf at step 3"),
    )
    text = benchmark("training_runs").report("rates", result)
    rows = [re.sub(" +", " ", line) for line in text.splitlines()]
    assert "| low | `--lr 1` | 1.000 | 0.600 | 0.250 | 0.250 | 60 |" in rows
    assert "| huge | `--lr 9` | – | – | – | – | 60 |" in rows
    assert "](../docs/experiments/rates.png)" in text
    assert "The greatest mean IU has high, 0.700, before low, 0.250: means of the seeds," in text
    assert "which are 0.100 apart at most." in text and "training loss has low, 1.000" in text
    assert "huge diverged in epoch 2: the loss is inf at step 3." in text
    assert "240 s of processor time" in text and "on 2 cores is 2.0 min" in text


def test_the_report_where_all_runs_diverged(benchmark):
    result = training(("huge", "", 0, None, "the loss is inf at step 3"))
    assert "No run came to its end." in benchmark("training_runs").report("rates", result)


def test_the_curve_of_training(benchmark, tmp_path):
    module = benchmark("training_runs")
    result = training(("a", "", 2, 0.5, None), ("b", "", 0, None, "the loss is nan at step 1"))
    assert list(module.histories(result)) == ["a"]
    module.draw(result, tmp_path / "curve.png")
    assert (tmp_path / "curve.png").stat().st_size > 1000


def matrix_case(size, product, operator, channels=(1, 1)):
    def time(value):
        return {"median": value}

    entries = 10**6
    return {
        "channels": list(channels),
        "size": size,
        "entries": entries,
        "matrix_bytes": 8 * entries if product else 2 * 10**9,
        "kernel_bytes": 36,
        "picture_bytes": 8 * size * size,
        "difference": 1e-6,
        "times": {
            **({"W @ x": time(product), "W @ X": time(8 * product)} if product else {}),
            **({"building W": time(100 * product)} if product else {}),
            "operator": time(operator),
            "operator, batch": time(16 * operator),
            "conv": time(3 * operator),
        },
    }


def matrix_result():
    return {
        **MACHINE,
        "thread": {"gflops": 100.0, "gbytes_per_second": 10.0},
        "cache_bytes": 2**20,
        "pictures": 16,
        "cases": [
            matrix_case(8, 1.0, 2.0),
            matrix_case(16, 1.0, 2.0),
            matrix_case(32, 4.0, 0.5),
            matrix_case(64, None, 0.5, (3, 8)),
        ],
    }


def test_the_report_of_the_matrix(benchmark):
    text = benchmark("matrix_product").report("matrix", matrix_result())
    rows = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| ")]
    assert rows[2:] == ["8x8, 1 -> 1", "32x32, 1 -> 1", "64x64, 3 -> 8"]
    assert "takes 8 times as long as the operator at 32x32, 1 -> 1" in text
    assert "With 1 -> 1 channels it is quicker at 8x8, 16x16." in text
    assert "takes 1.00 ns an entry where W is above 2 MiB, 2.0 GFLOP/s. The operator" in text
    assert "0.00 to 0.25 FLOP for each byte with W" in text
    assert "copies 10 GB/s and multiplies and adds 100 GFLOP/s: with W, memory allows 2 of" in text
    assert "W is 55,555,556 times the kernel at 64x64, 3 -> 8: 2,000 MB for 36 bytes." in text
    assert "Those of 2.0 GB and more were not built." in text
    assert "a picture takes 1/2.0 of the time" in text
    assert "quicker in 1 of 3 cases" in text and "differ by 1e-06" in text


def test_the_curve_of_the_matrix(benchmark, tmp_path):
    benchmark("matrix_product").draw(matrix_result(), tmp_path / "curve.png")
    assert (tmp_path / "curve.png").stat().st_size > 1000


def test_the_matrix_is_measured(benchmark, monkeypatch):
    module = benchmark("matrix_product")
    monkeypatch.setattr(module, "MAX_BYTES", 200_000)
    small, large = (module.case_measured((3, 8), size, 0) for size in (8, 32))
    assert set(small["times"]) == {
        "operator", "conv", "operator, batch", "building W", "W @ x", "W @ X"
    }  # fmt: skip
    assert set(large["times"]) == {"operator", "conv", "operator, batch"}
    assert small["kernel_bytes"] == 4 * 3 * 3 * 3 * 8 and 0 <= small["difference"] < 1e-5
    assert small["entries"] == 22**2 * 3 * 8
    assert small["picture_bytes"] == 4 * 8 * 8 * (3 + 8)


def test_the_readme_is_what_the_results_make(benchmark):
    experiments = benchmark("experiments")
    text = README.read_text(encoding="utf-8")
    assert experiments.with_parts(text, experiments.RESULTS) == text
    for name in experiments.NAMES:
        assert (experiments.RESULTS / f"{name}.json").is_file()
        assert experiments.BEGIN.format(name=name) in text


def test_the_readme_has_what_camvid_came_to(benchmark):
    camvid = benchmark("camvid")
    text = README.read_text(encoding="utf-8")
    assert camvid.BEGIN in text and camvid.with_part(text) == text


def test_camvid_from_what_the_runs_wrote(benchmark, monkeypatch, tmp_path):
    """A folder of `fcn train` twice, and what `train_torch` wrote, become the table."""
    camvid = benchmark("camvid")
    monkeypatch.setattr(camvid, "RESULTS", tmp_path)
    monkeypatch.setattr(camvid, "CURVE", tmp_path / "curve.png")
    monkeypatch.setattr(camvid, "README", tmp_path / "README.md")
    end = camvid.END.format(name="camvid")
    camvid.README.write_text(f"before\n{camvid.BEGIN}\nold\n{end}\nafter\n", encoding="utf-8")
    for name, ius in (("ours", (0.25, 0.5)), ("untrained", (0.125, 0.25))):
        (tmp_path / name).mkdir()
        epochs = [Epoch(n, 1.0, 0.5, 0.75, iu, 9.0, 1.0) for n, iu in enumerate(ius, 1)]
        write_log(tmp_path / name / "log.csv", epochs)
    speed = json.loads((camvid.HERE / "results/training" / f"{camvid.NAME}-speed.json").read_text())
    (tmp_path / f"{camvid.NAME}-speed.json").write_text(json.dumps(speed), encoding="utf-8")
    each = speed["epochs"][0]["torch"] | {"pixel_accuracy": 0.5}
    theirs = speed | {"epochs": [{"torch": each | {"mean_iu": iu}} for iu in (0.375, 0.4375)]}
    (tmp_path / "torch.json").write_text(json.dumps(theirs), encoding="utf-8")
    paths = [f"--{name}={tmp_path / name}" for name in ("ours", "untrained")]
    assert camvid.main([*paths, f"--torch={tmp_path / 'torch.json'}"]) == 0
    text = camvid.README.read_text(encoding="utf-8")
    assert "| 2 | 0.500 | 0.438 | 0.250 | 0.750 | 0.500 | 0.750 |" in re.sub(" +", " ", text)
    assert "by -0.031 on average, -0.125 to +0.062, and in the end by +0.062" in text
    assert "old" not in text and camvid.CURVE.is_file()
    assert camvid.with_part(text) == text
    with pytest.raises(SystemExit):
        camvid.main(paths)


def test_every_curve_is_there():
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README.read_text(encoding="utf-8"))
    assert len(pictures) >= 4
    assert all((README.parent / picture).is_file() for picture in pictures)


def test_the_report_alone_measures_nothing(benchmark, monkeypatch, tmp_path):
    experiments = benchmark("experiments")
    readme, results = tmp_path / "README.md", tmp_path / "results"
    marks = [mark.format(name="heads") for mark in (experiments.BEGIN, experiments.END)]
    readme.write_text("before\n{}\nold\n{}\nafter\n".format(*marks), encoding="utf-8")
    results.mkdir()
    (results / "heads.json").write_text(json.dumps(training(("8s", "", 2, 0.5, None))), "utf-8")
    for name, path in (("README", readme), ("RESULTS", results), ("CURVES", tmp_path / "curves")):
        monkeypatch.setattr(experiments, name, path)
    assert experiments.main(["heads", "--report"]) == 0
    text = readme.read_text(encoding="utf-8")
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text
    assert "| 8s " in text and "others had 30 % of the cores" in text
    assert (tmp_path / "curves" / "heads.png").is_file()
    assert experiments.with_parts(text, results) == text
    with pytest.raises(ValueError, match="expected <!-- begin heads"):
        experiments.with_parts("nothing", results)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["nothing"], "NAME: expected one of upsampling, "), (["heads"], "--data: expected")],
)
def test_what_the_command_cannot_do(benchmark, capsys, arguments, message):
    with pytest.raises(SystemExit) as caught:
        benchmark("experiments").main(arguments)
    assert caught.value.code == 2 and message in capsys.readouterr().err
