"""Fully convolutional networks on `convarith`'s kernels, without a framework at run time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .model import Model, build, load

__all__ = ["Model", "build", "load"]


def __getattr__(name: str) -> Any:
    """Load the networks when they are first asked for: the command line has no need to."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import model

    return getattr(model, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
