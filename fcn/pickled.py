"""Reads pickles of plain values, of which nothing is executed.

Python's own unpickler calls, hashes, compares and rebuilds what a file tells it to. So the few
opcodes that files of weights are written with are carried out here, on plain values: no object
of a file's choice is made, called, hashed, changed or printed, and the work is linear in its size.
What the few names mean that such a file may say, its `Vocabulary` tells.
"""

from __future__ import annotations

import dataclasses
import pickletools
from collections.abc import Callable
from typing import Any, BinaryIO

CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
LITERALS = frozenset(
    (
        *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINSTRING", "SHORT_BINSTRING"),
        *("BINUNICODE", "BINUNICODE8", "SHORT_BINUNICODE"),
    )
)
BYTES = frozenset("BINBYTES SHORT_BINBYTES".split())
#: Longer strings are no names; equal ones would be compared over and over.
LONGEST_NAME = 1000


@dataclasses.dataclass(frozen=True)
class Name:
    """A global that a file names; it stands for itself and is never looked up."""

    text: str


def _refused(*_: Any) -> Any:
    raise ValueError("an object that no such file is written with")


def _dropped(*_: Any) -> None:
    return None


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """What a kind of file may say beyond numbers, strings, tuples, lists and dicts.

    Attributes
    ----------
    names : collection of str
        The globals, as "module name".
    called : callable
        ``called(text, arguments)`` is what a call of the global `text` makes.
    persistent : callable
        ``persistent(id)`` is what a persistent id stands for.
    built : callable
        ``built(object, state)`` sets an object's attributes; by default they are dropped.
    raw : bool
        Whether there are bytes.
    strict : bool
        Whether a dict with other keys than strings is refused, or they dropped with what they
        stand for.
    """

    names: frozenset[str]
    called: Callable[[str, tuple[Any, ...]], Any]
    persistent: Callable[[Any], Any] = _refused
    built: Callable[[Any, Any], None] = _dropped
    raw: bool = False
    strict: bool = True


def plain(file: BinaryIO, vocabulary: Vocabulary) -> Any:
    """Return the value of the next pickle in a file.

    Raises
    ------
    Exception
        Forged bytes fail in many ways, as ValueError, IndexError, KeyError or MemoryError.

    >>> import io, pickle
    >>> nothing = Vocabulary(frozenset(), called=_refused)
    >>> plain(io.BytesIO(pickle.dumps({"a": [1, (2.5, None)]}, 2)), nothing)
    {'a': [1, (2.5, None)]}
    >>> plain(io.BytesIO(pickle.dumps(print, 2)), nothing)
    Traceback (most recent call last):
    ValueError: it names __builtin__.print
    """
    literals = LITERALS | BYTES if vocabulary.raw else LITERALS
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}

    def since_mark() -> list[Any]:
        start = marks.pop()
        items = stack[start:]
        del stack[start:]
        return items

    def set_items(items: list[Any]) -> None:
        target, pairs = stack[-1], list(zip(items[::2], items[1::2], strict=True))
        named = [pair for pair in pairs if type(pair[0]) is str]
        if type(target) is not dict or (vocabulary.strict and len(named) < len(pairs)):
            raise ValueError("a dict whose keys are not strings")
        target.update(named)

    for opcode, argument, _ in pickletools.genops(file):
        name = opcode.name
        if name in literals:
            if type(argument) is str and len(argument) > LONGEST_NAME:
                raise ValueError(f"a name of {len(argument)} characters")
            stack.append(argument)
        elif name in CONSTANTS:
            stack.append(CONSTANTS[name])
        elif name in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name == "MARK":
            marks.append(len(stack))
        elif name == "EMPTY_TUPLE":
            stack.append(())
        elif name == "TUPLE":
            stack.append(tuple(since_mark()))
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            count = int(name[-1])
            stack[-count:] = [tuple(stack[-count:])]
        elif name == "EMPTY_LIST":
            stack.append([])
        elif name in ("APPEND", "APPENDS"):
            items = since_mark() if name == "APPENDS" else [stack.pop()]
            if type(stack[-1]) is not list:
                raise ValueError("something appended to what is no list")
            stack[-1].extend(items)
        elif name == "EMPTY_DICT":
            stack.append({})
        elif name == "SETITEMS":
            set_items(since_mark())
        elif name == "SETITEM":
            value, key = stack.pop(), stack.pop()
            set_items([key, value])
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            if name == "STACK_GLOBAL":
                module, argument = stack[-2:]
                if type(module) is not str or type(argument) is not str:
                    raise ValueError("a global whose name is no string")
                argument = f"{module} {argument}"
                del stack[-2:]
            if argument not in vocabulary.names:
                raise ValueError(f"it names {argument[:80].replace(' ', '.')}")
            stack.append(Name(argument))
        elif name == "BINPERSID":
            stack.append(vocabulary.persistent(stack.pop()))
        elif name == "REDUCE":
            arguments, function = stack.pop(), stack.pop()
            if type(function) is not Name or type(arguments) is not tuple:
                raise ValueError("a call of what cannot be called")
            stack.append(vocabulary.called(function.text, arguments))
        elif name == "BUILD":
            state = stack.pop()
            vocabulary.built(stack[-1], state)
        elif name == "STOP":
            return stack.pop()
        elif name not in ("PROTO", "FRAME"):
            raise ValueError(f"opcode {name}")
    raise ValueError("a pickle without an end")
