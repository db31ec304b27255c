"""Fuzz this library's backends: ``python -m convarith.testing fuzz --minutes 5``."""

from __future__ import annotations

import sys

from ..__main__ import Parser
from .fuzz import add_arguments, fuzz


def main(arguments: list[str] | None = None) -> int:
    """Run a command; return its exit code, 2 for what the caller can mend."""
    parser = Parser(prog="python -m convarith.testing", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    add_arguments(
        commands.add_parser("fuzz", help="compare random calls with an oracle", description=__doc__)
    )
    try:
        return fuzz(parser.parse_args(arguments))
    except ValueError as error:
        print(f"convarith.testing fuzz: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
