"""Tuned blocks: kept on disk, never fatal, and without a bit of difference."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from convarith import ConvOperator

CODE = """
import sys, numpy as np
from convarith import ConvOperator
op = ConvOperator(np.ones((3, 3, 20, 40), np.float32), (12, 30), padding=1, algorithm="direct")
x = np.random.default_rng(0).standard_normal((1, 12, 30, 20)).astype(np.float32)
before = op(x)
if "tune" in sys.argv:
    op.tune(seconds=0.05)
assert (op(x) == before).all()
print(op.plan.inner.layout(1, 1, False).blocks)
"""


def run(folder, *arguments):
    environment = {**os.environ, "CONVARITH_CACHE": str(folder), "CONVARITH_NUM_THREADS": "1"}
    command = [sys.executable, "-c", CODE, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_blocks_are_kept_for_the_next_process(tmp_path):
    folder = tmp_path / "not" / "there yet"
    tuned = run(folder, "tune")
    assert run(folder) == tuned
    file = folder / "tuning.json"
    assert [f.name for f in folder.iterdir() if f.is_file()] == ["tuning.json"]
    content = json.loads(file.read_text())
    (key,) = content["blocks"]
    content["blocks"][key] = [1, 2, 1]  # what no rule would choose
    file.write_text(json.dumps(content))
    assert run(folder) == "Blocks(rows=1, chunk=2, group=1)\n"


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """What is chosen without a file, and the text of one."""
    folder = tmp_path_factory.mktemp("tuned")
    untuned = run(folder)
    run(folder, "tune")
    return untuned, (folder / "tuning.json").read_text()


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "\x00\xff" + text,
        lambda text: "[" * 100_000,
        lambda text: "null",
        lambda text: text.replace('"version": 1', '"version": 99'),
        lambda text: text.replace('"machine": "', '"machine": "another '),
        lambda text: json.dumps({**json.loads(text), "blocks": {"x": [-1, 0, "a"]}}),
        lambda text: json.dumps({**json.loads(text), "blocks": [1, 2, 3]}),
    ],
    ids=["cut", "binary", "deep", "null", "version", "foreign", "values", "list"],
)
def test_a_damaged_or_foreign_file_is_as_good_as_none(tmp_path, tuned, damage):
    untuned, text = tuned
    file = tmp_path / "tuning.json"
    file.write_text(damage(text), encoding="latin-1")
    assert run(tmp_path) == untuned
    run(tmp_path, "tune")
    assert json.loads(file.read_text())["version"] == 1


def test_a_folder_that_cannot_be_written_is_not_fatal(tmp_path):
    file = tmp_path / "a file, not a folder"
    file.write_text("")
    run(file, "tune")
    assert file.read_text() == ""


def test_what_tune_takes(backend):
    op = ConvOperator(np.ones((2, 3, 4)), 9, backend=backend)
    assert op.tune(seconds=0.01) == str(op.plan)
    assert op.T.tune(2, seconds=0.01) == str(op.T.plan)
    with pytest.raises(ValueError, match="^batch: expected"):
        op.tune(0)
    with pytest.raises(ValueError, match="^seconds: expected a number > 0"):
        op.tune(seconds=0)
