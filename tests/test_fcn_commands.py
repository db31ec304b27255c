"""The table of commands, and how each of them ends."""

import signal
import subprocess
import sys

import pytest

from fcn import __main__ as command_line
from fcn.__main__ import COMMANDS, main


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_its_module_and_its_help(name, capsys):
    with pytest.raises(SystemExit) as caught:
        main([name, "--help"])
    assert caught.value.code == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"usage: python -m fcn {name} ")
    assert COMMANDS[name] in " ".join(printed.split())


def test_help_names_all_commands(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    printed = capsys.readouterr().out
    for name, purpose in COMMANDS.items():
        assert f"{name} " in printed and purpose in " ".join(printed.split())


@pytest.mark.parametrize("arguments", [[], ["paint"], ["demo", "--paint"], ["--paint"]])
def test_what_is_no_command(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("usage: python -m fcn")


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_process_told_to_end_leaves_nothing_behind(tmp_path, name):
    code = (
        "import signal, sys\n"
        "from pathlib import Path\n"
        "from fcn import __main__ as command_line\n"
        "from fcn.files import replacing\n"
        f"signal.signal(signal.{name}, signal.SIG_DFL)\n"  # which nohup ignores
        "def writes(arguments):\n"
        "    with replacing(Path(sys.argv[1]) / 'a.png') as beside:\n"
        "        beside.write_bytes(b'half')\n"
        f"        signal.raise_signal(signal.{name})\n"
        "command_line._run = writes\n"
        "sys.exit(command_line.main([]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True)
    assert done.returncode == 128 + getattr(signal, name) and not done.stderr
    assert not list(tmp_path.iterdir())


def test_help_loads_no_heavy_module():
    code = (
        "import sys\n"
        "from fcn.__main__ import main\n"
        "try: main(['predict', '--help'])\n"
        "except SystemExit: pass\n"
        "print(*{m.partition('.')[0] for m in sys.modules}, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"numba", "cupy", "scipy", "PIL", "matplotlib", "h5py", "tqdm", "tensorflow", "torch"}
    assert not heavy & set(done.stderr.split())


@pytest.mark.parametrize(
    ("error", "code", "printed"),
    [
        (ValueError("weights: expected a file"), 2, "weights: expected a file"),
        (FileNotFoundError(2, "No such file", "a.png"), 2, "[Errno 2] No such file: 'a.png'"),
        (MemoryError(), 2, "not enough memory"),
        (KeyboardInterrupt(), 130, "stopped"),
        (
            ModuleNotFoundError("x", name="h5py"),
            2,
            'h5py is not installed: pip install "convarith[fcn]"',
        ),
    ],
)
def test_errors_are_one_line(error, code, printed, monkeypatch, capsys):
    def fail(arguments):
        raise error

    monkeypatch.setattr(command_line, "_run", fail)
    assert main(["demo"]) == code
    assert capsys.readouterr().err == f"fcn: {printed}\n"
