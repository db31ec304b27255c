"""The README says what is so: its commands, its table, its picture."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from convarith.__main__ import main

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_exactly_two_commands():
    commands = [line for line in README.splitlines() if line.startswith("pip install")]
    assert commands == [
        'pip install -e ".[fcn]" && python -m fcn demo',
        'pip install -e ".[test]" && pytest',
    ]


def test_it_opens_with_the_picture():
    with PIL.Image.open(ROOT / "docs" / "demo.png") as picture:
        assert np.asarray(picture.convert("L")).std() > 20
    assert README.index("![") < README.index("pip install")


def test_the_console_shows_what_the_commands_print(capsys):
    blocks = re.findall(r"^```console\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
    commands = re.findall(r"^\$ python -m convarith (.*)\n((?:[^$].*\n)*)", "".join(blocks), re.M)
    assert len(commands) >= 5
    for command, output in commands:
        assert main(shlex.split(command)) == 0
        assert capsys.readouterr().out == output


def run(*arguments):
    command = [sys.executable, str(ROOT / "benchmarks" / arguments[0]), *arguments[1:]]
    return subprocess.run(command, capture_output=True, text=True)


def test_the_tables_are_those_of_the_results(tmp_path):
    """benchmarks/report.py makes of the README what it is already."""
    code = (
        "import sys; sys.path.insert(0, 'benchmarks'); import report\n"
        "sys.stdout.write(report.with_tables(open('README.md').read(), report.HERE / 'results'))"
    )
    made = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert made.stdout == README
    assert "| 320x480" in README


def test_the_benchmark_runs(tmp_path):
    results, plot = tmp_path / "results.json", tmp_path / "plot.png"
    done = run(
        "run.py", "--cases", "64x64", "--seconds", "0", "--peers", "COO to CSR",
        "--json", results, "--plot", plot,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (case,) = json.loads(results.read_text(encoding="utf-8"))["cases"]
    assert set(case["candidates"]) == {"convarith", "fill", "COO to CSR"}
    assert case["candidates"]["COO to CSR"]["difference"] == 0
    assert "| 64x64" in done.stdout and plot.stat().st_size > 1000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--cases", "nothing"], "--cases: no case 'nothing'"),
        (["--peers", "nobody"], "--peers: no peer 'nobody'"),
        (["--device", "cuda"], "--device cuda: "),
    ],
)
def test_what_the_benchmark_cannot_do(arguments, message):
    done = run("run.py", *arguments)
    assert done.returncode == 2
    assert message in done.stderr and done.stderr.count("\n") == 1
