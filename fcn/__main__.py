"""The command line: ``python -m fcn``."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

#: Each command is the module of its name: `add_arguments` declares what it takes, `run` does it.
#: Only the one that is asked for is imported.
COMMANDS = {
    "demo": "say what a photograph shows, and draw where",
    "train": "train a network on a folder of labelled pictures",
    "predict": "write the class of every pixel of pictures",
    "evaluate": "compare predictions with the masks of a data set",
    "convert": "read weights of Keras or torch, and write safetensors",
    "info": "print a network's layers, sizes and costs",
}


def main(arguments: list[str] | None = None) -> int:
    """Run a command; return its exit code, 2 for what the caller can mend."""
    arguments = sys.argv[1:] if arguments is None else arguments
    for stream in (sys.stdout, sys.stderr):  # a file's name may not fit the console's encoding
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    try:
        with _told_to_end():
            return _run(arguments)
    except BrokenPipeError:  # whoever read the output has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        print("fcn: stopped", file=sys.stderr)
        return 130
    except ModuleNotFoundError as error:
        problem = f'{error.name} is not installed: pip install "convarith[fcn]"'
    except MemoryError:
        problem = "not enough memory"
    except (OSError, ValueError) as error:  # a file or an input that is not what it must be
        problem = str(error)
    print(f"fcn: {problem}", file=sys.stderr)
    return 2


@contextlib.contextmanager
def _told_to_end() -> Iterator[None]:
    """Let the signals that end a process end it by way of what cleans up behind it."""

    def end(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    main = threading.current_thread() is threading.main_thread()  # Python's rule for handlers
    ours = [n for n in numbers if main and signal.getsignal(n) is signal.SIG_DFL]
    for number in ours:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


def _run(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m fcn", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, purpose in COMMANDS.items():
        command = commands.add_parser(name, help=purpose, description=purpose)
        if arguments[:1] == [name]:
            module = importlib.import_module(f".{name}", __package__)
            module.add_arguments(command)
            command.set_defaults(run=module.run)
    options = parser.parse_args(arguments)
    return options.run(options)


if __name__ == "__main__":
    sys.exit(main())
