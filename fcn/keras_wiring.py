"""What reads what in a functional model of Keras's, as its configuration says it."""

from __future__ import annotations

from typing import Any

from .layers.sizes import short


def reads(nodes: Any) -> list[str]:
    """Return the names of the layers whose outputs a layer is called with.

    Parameters
    ----------
    nodes
        The ``"inbound_nodes"`` of the layer's configuration: its calls, one of them.

    Raises
    ------
    ValueError
        For several calls, and for anything but outputs in one.

    >>> reads([[["conv", 0, 0, {}], ["pool", 0, 0, {}]]])  # as before Keras 3
    ['conv', 'pool']
    >>> reads([[["norm", 0, 0, {"training": True}]]])
    Traceback (most recent call last):
    ValueError: called with 'training': True, which is not supported
    """
    if not isinstance(nodes, list):
        raise ValueError("no inbound_nodes")
    if len(nodes) != 1:
        raise ValueError(f"called {len(nodes)} times, expected once")
    (call,) = nodes
    found: list[str] = []
    if isinstance(call, dict):
        _collect(call.get("args"), found, 0)
        _check_options(call.get("kwargs"))
    else:
        for tensor in call if isinstance(call, list) else [call]:
            if not isinstance(tensor, list) or len(tensor) not in (3, 4):
                raise ValueError(f"reads {short(tensor)}, expected an output of a layer")
            found.append(_origin(tensor[:3]))
            _check_options(tensor[3] if len(tensor) == 4 else {})
    return found


def end(config: dict[str, Any], key: str) -> str:
    """Return the one layer of a functional model's ``"input_layers"`` or ``"output_layers"``.

    >>> end({"input_layers": [["input_1", 0, 0]]}, "input_layers")
    'input_1'
    """
    value = config.get(key)
    if isinstance(value, list) and value and not isinstance(value[0], str):
        if len(value) > 1:
            raise ValueError(f"{key}: {len(value)} of them, expected 1")
        (value,) = value
    try:
        return _origin(value)
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from None


def _collect(value: Any, found: list[str], depth: int) -> None:
    """Gather the layers whose outputs are among the arguments of a call."""
    if isinstance(value, dict) and value.get("class_name") == "__keras_tensor__":
        config = value.get("config")
        found.append(_origin(config.get("keras_history") if isinstance(config, dict) else None))
    elif isinstance(value, list) and depth < 2:  # a list of tensors among the arguments
        for entry in value:
            _collect(entry, found, depth + 1)
    else:
        raise ValueError(f"called with {short(value)}, expected outputs of layers")


def _origin(history: Any) -> str:
    """Return the layer that an output is of; it must be the layer's only one."""
    good = isinstance(history, list) and len(history) == 3 and isinstance(history[0], str)
    if not good or history[2] != 0 or type(history[1]) is not int:
        raise ValueError(f"reads {short(history)}, expected the only output of a layer")
    return history[0]


def _check_options(options: Any) -> None:
    """Refuse options of a call that change what the layer does, as ``training=True``."""
    if not isinstance(options, dict):
        raise ValueError(f"called with {short(options)}, expected options")
    for key, value in options.items():
        if value is not None and not (key == "training" and value is False):
            raise ValueError(f"called with {short(key)}: {short(value)}, which is not supported")
