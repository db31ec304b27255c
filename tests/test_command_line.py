"""``python -m convarith``: what it prints, its JSON, and how it refuses."""

import json
import os
import subprocess
import sys

import pytest

from convarith.__main__ import main


def answer(capsys, *arguments):
    assert main([*arguments]) == 0
    return capsys.readouterr().out


def test_shape(capsys):
    text = answer(capsys, "shape", "320", "480", "--kernel-size", "3", "--padding", "SAME")
    assert text.startswith("convolution 320x480x1 -> 320x480x1 (channels last), padding ((1, 1),")
    arguments = ["shape", "5", "7", "--kernel-size", "3", "4", "--strides", "2", "--padding"]
    found = json.loads(answer(capsys, *arguments, "1", "0,2", "--out-channels", "4", "--json"))
    assert found["output_size"] == [3, 3] and found["padding"] == [[1, 1], [0, 2]]
    assert found["matrix_shape"] == [36, 35] and found["transposed"] is False


def test_shape_of_the_transpose(capsys):
    arguments = ["shape", "5", "--kernel-size", "3", "--strides", "2", "--transposed", "--json"]
    assert json.loads(answer(capsys, *arguments))["output_size"] == [11]
    larger = json.loads(answer(capsys, *arguments, "--output-size", "12"))
    assert (larger["output_size"], larger["crops"]) == ([12], [[0, -1]])
    cropped = json.loads(answer(capsys, *arguments, "--padding", "1,0"))
    assert (cropped["output_size"], cropped["crops"]) == ([10], [[1, 0]])


def test_explain(capsys):
    arguments = ["explain", "5", "--kernel-size", "3", "--strides", "2", "--padding", "1"]
    text = answer(capsys, *arguments)
    assert "output       o = floor((i + low + high - ke)/s) + 1 = floor((5 + 1 + 1 - 3)/2)" in text
    assert json.loads(answer(capsys, *arguments, "--json"))["lines"] == text.splitlines()


def test_receptive_field(capsys):
    vgg16 = "3p1x2 2s2 3p1x2 2s2 3p1x3 2s2 3p1x3 2s2 3p1x3 2s2 7".split()
    text = answer(capsys, "receptive-field", *vgg16, "--input-size", "224")
    rows = [line.split() for line in text.splitlines()]
    assert rows[0] == "layer receptive field jump offset size".split()
    assert rows[-4:-1] == [
        ["3p1x3", "196", "16", "15/2", "14"],
        ["2s2", "212", "32", "31/2", "7"],
        ["7", "404", "32", "223/2", "1"],
    ]
    found = json.loads(answer(capsys, "receptive-field", *vgg16, "--json"))
    assert found["layers"][-1] == {
        "layer": "7",
        "receptive_field": 404,
        "jump": 32,
        "offset": "223/2",
    }
    assert found["minimal_padding"] == 113  # 97 where sizes are rounded up
    up = json.loads(answer(capsys, "receptive-field", "k2s2c", "4s2tp1", "--json"))
    assert up["layers"][-1]["jump"] == 1 and up["period"] == {"outputs": 2, "inputs": 2}
    assert up["halo"] == {"before": 2, "after": 2}
    arguments = ["receptive-field", "3d2", "2s2c", "--input-size", "9", "--json"]
    found = json.loads(answer(capsys, *arguments))
    assert [row["size"] for row in found["layers"]] == [5, 3]
    assert [row["receptive_field"] for row in found["layers"]] == [5, 6]
    assert found["minimal_padding"] == 0
    assert "minimal_padding" not in json.loads(
        answer(capsys, "receptive-field", "3t", "9", "--json")
    )


def test_negative_paddings(capsys):
    arguments = ["shape", "9", "9", "--kernel-size", "3", "--json", "--padding=-1,0 -2,3"]
    assert json.loads(answer(capsys, *arguments))["padding"] == [[-1, 0], [-2, 3]]


def test_translate(capsys):
    arguments = ["translate", "keras", "torch", "kernel_size=2,2", "strides=2", "padding=same"]
    text = answer(capsys, *arguments, "--transposed")
    sentence = " ".join(text.split())
    assert "torch conv_transpose2d(stride=(2, 2), padding=(0, 0), output_padding=" in sentence
    assert answer(capsys, *arguments[:3], "--transposed", *arguments[3:]) == text
    found = json.loads(answer(capsys, *arguments, "--transposed", "--json"))
    assert found["report"] == sentence
    assert found["function"] == "conv_transpose2d" and found["arguments"]["stride"] == [2, 2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "arguments are required"),
        (["shape", "5"], "--kernel-size"),
        (["shape", "5", "--kernel-size", "x"], "expected an integer, got 'x'"),
        (["shape", "5", "--kernel-size", "9" * 5000], "expected an integer"),
        (
            ["shape", "5", "5", "--kernel-size", "3", "3", "3"],
            "kernel_size: expected an integer or 2",
        ),
        (["shape", "5", "--kernel-size", "0"], "kernel_size: expected an integer >= 1"),
        (["shape", "5", "--kernel-size", "3", "--padding", "FULL"], "padding: expected one of"),
        (["shape", "5", "--kernel-size", "3", "--output-size", "3"], "--output-size"),
        (
            ["shape", "5", "--kernel-size", "3", "--strides", "2", "--transposed"]
            + ["--output-size", "13"],
            "output_size[0]: expected 11 to 12",
        ),
        (["receptive-field", "3q1"], "3q1: expected KERNEL"),
        (["receptive-field", "3s1s2"], "3s1s2: expected KERNEL"),
        (["receptive-field", "3x99999"], "3x99999: expected 1 to 1000 times"),
        (["receptive-field", "0"], "kernel_size: expected an integer >= 1"),
        (["receptive-field", "3s99999999t"], "layers: expected a pattern"),
        (["receptive-field", *["3x1000"] * 20], "LAYER: expected at most 1000 layers"),
        (["receptive-field", "9" * 5000], "expected KERNEL"),
        (["shape", "5", "--kernel-size", "3", "--padding", "1,x"], "--padding: expected an int"),
        (["translate", "torch", "torch", "stride=1if 1else 2", "kernel_size=3"], "stride: exp"),
        (["translate", "torch", "torch", "kernel_size=[]"], "kernel_size: expected at least one"),
        (["translate", "torch", "torch", "kernel_size=3,3,3,3"], "expected 1 to 3 spatial axes"),
        (["translate", "keras", "caffe", "kernel_size=3"], "target: expected one of"),
        (["translate", "keras", "torch"], "kernel_size: expected"),
        (["translate", "keras", "torch", "3"], "3: expected NAME=VALUE"),
        (["translate", "keras", "torch", "kernel_size=3", "--strides=3"], "unrecognized arg"),
        (["shape", "5", "--kernel-size", "3", "--stride", "3", "--what", "4"], "unrecognized arg"),
        (["translate", "torch", "torch", "kernel_size=3", "stridee=2"], "stridee: expected an arg"),
        (["translate", "torch", "torch", "kernel_size=3", "padding=-1"], "padding: expected"),
        (["translate", "torch", "torch", "transposed=1"], "transposed: not here"),
    ],
)
def test_errors_are_one_line_and_exit_code_2(capsys, arguments, message):
    try:
        status = main(arguments)
    except SystemExit as stop:
        status = stop.code
    captured = capsys.readouterr()
    assert status == 2 and captured.out == ""
    assert message in captured.err and captured.err.count("\n") == 1


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full on this system")
def test_a_full_disk_is_one_line():
    command = [sys.executable, "-m", "convarith", "shape", "4", "--kernel-size", "3"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1


def test_as_a_stranger_calls_it():
    command = [sys.executable, "-m", "convarith", "shape", "4", "--kernel-size", "3"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "") and "4x1 -> 2x1" in done.stdout
    done = subprocess.run([*command, "--padding", "FULL"], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("convarith shape: padding: expected")
