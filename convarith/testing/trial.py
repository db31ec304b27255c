"""`Trial`: one call of this library and its check, small enough to be printed and run again."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st

from .. import backends
from ..backends.protocol import Options, Product
from ..geometry import ConvGeometry
from ..namespace import on_host
from ..operator import ConvOperator
from ..ops import conv, conv_kernel_gradient, conv_transpose
from .checks import assert_product
from .device import Mirror
from .guards import LAYOUTS, Guarded
from .strategies import geometries, tile_geometries, window, winograd_geometries
from .values import STRUCTURES, random_array, structured_kernel

PRODUCTS: tuple[Product, ...] = ("forward", "transpose", "kernel_gradient")
PARTS = ("scale", "bias", "residual")
ALL_DTYPES = (
    *("float32", "float64", "float16", "bfloat16", "complex64", "complex128"),
    *("int32", "int64", "int8", "int16", "uint8", "uint16", "uint32", "uint64"),
)


@dataclasses.dataclass(frozen=True, repr=False)
class Trial:
    """One call of a product with all that it depends on.

    Attributes
    ----------
    product : {"forward", "transpose", "kernel_gradient"}
    geometry : ConvGeometry
    batch : int
    dtype : str
        Of both operands.
    structure : str
        The kernel's, of `STRUCTURES`.
    seed : int
        Of the arrays' values.
    source_layout, operand_layout : str
        Of `LAYOUTS`: of x (or y) and the residual, and of the kernel (or g), scale and bias.
    parts : tuple of str
        Which of "scale", "bias" and "residual" the call is given.
    activation : {None, "relu", "relu6"}
    out : str, optional
        The layout of the array given as ``out=``.
    operator : bool
        Whether to call a `ConvOperator`, or a function.
    algorithm, backend : str, optional
        As `conv` takes them. With "cuda" the call gets CuPy's arrays, in device memory that
        mirrors the host's, guard bands and all.

    Examples
    --------
    >>> trial = Trial("forward", ConvGeometry(9, 3, strides=2), bias=True, out="odd")
    Traceback (most recent call last):
    ...
    TypeError: Trial.__init__() got an unexpected keyword argument 'bias'
    >>> trial = Trial("forward", ConvGeometry(9, 3, strides=2), parts=("bias",), out="odd")
    >>> trial.check().shape
    (1, 4, 1)
    >>> trial
    Trial('forward', ConvGeometry((9,), (3,), strides=(2,)), parts=('bias',), out='odd')
    """

    product: Product
    geometry: ConvGeometry
    _: dataclasses.KW_ONLY
    batch: int = 1
    dtype: str = "float32"
    structure: str = "random"
    seed: int = 0
    source_layout: str = "C"
    operand_layout: str = "C"
    parts: tuple[str, ...] = ()
    activation: str | None = None
    out: str | None = None
    operator: bool = False
    algorithm: str | None = None
    backend: str | None = None

    def __repr__(self) -> str:
        return f"Trial({', '.join(self._arguments())})"

    def _arguments(self) -> list[str]:
        """Return the arguments that differ from their defaults, as Python writes them."""
        words = [repr(self.product), repr(self.geometry)]
        for field in dataclasses.fields(self)[2:]:
            value = getattr(self, field.name)
            if value != field.default:
                words.append(f"{field.name}={value!r}")
        return words

    def snippet(self) -> str:
        """Return Python code that runs this trial by itself.

        >>> print(Trial("transpose", ConvGeometry(5, 3), dtype="int8").snippet())
        from convarith import ConvGeometry
        from convarith.testing import Trial
        <BLANKLINE>
        Trial(
            'transpose',
            ConvGeometry((5,), (3,)),
            dtype='int8',
        ).check()
        """
        imports = "from convarith import ConvGeometry\nfrom convarith.testing import Trial\n"
        lines = "".join(f"    {word},\n" for word in self._arguments())
        return f"{imports}\nTrial(\n{lines}).check()"

    def check(self) -> np.ndarray:
        """Return the call's result; assert that it is right and nothing else was written.

        Raises
        ------
        AssertionError
            Where it is not.
        Exception
            What the call raises.
        """
        arrays = self.arrays()
        source, operand = arrays["source"], arrays["operand"]
        parts: dict[str, Any] = {name: arrays[name].array for name in self.parts}
        finish = {} if self.activation is None else {"activation": self.activation}
        target = self._target(np.result_type(source.array, operand.array))
        everything = arrays if target is None else {**arrays, "out": target}
        taken = {name: self._taken(guarded) for name, guarded in everything.items()}
        options = {name: taken[name].array for name in taken if name not in ("source", "operand")}
        result = self._call(taken["source"].array, taken["operand"].array, options | finish)
        if target is not None:
            assert result is taken["out"].array, "the result is not the array given as out"
        result = on_host(result)
        for mirror in taken.values():
            if isinstance(mirror, Mirror):
                mirror.fetch()
        if target is not None:
            target.assert_untouched(inside=False)
            result = target.array
        for name, guarded in arrays.items():
            try:
                guarded.assert_untouched()
            except AssertionError as error:
                raise AssertionError(f"{name}: {error}") from None
        assert_product(
            result,
            self.product,
            self.geometry,
            source.array,
            operand.array,
            algorithm="winograd" if "winograd" in self.plan().lower() else "direct",
            **parts,
            **finish,
        )
        return result

    def _taken(self, guarded: Guarded) -> Guarded | Mirror:
        """Return what holds the array that the call takes."""
        return Mirror(guarded.array, guarded.memory) if self.backend == "cuda" else guarded

    def plan(self) -> str:
        """Return the words of the plan that runs."""
        options = Options(self.algorithm)
        backend = backends.choose(self.backend)
        dtype = np.result_type(_dtype(self.dtype))
        return str(backends.plan(backend, self.product, self.geometry, dtype, options))

    def arrays(self) -> dict[str, Guarded]:
        """Return the operands (`source` and `operand`) and the parts, between guard bands."""
        geometry, dtype = self.geometry, _dtype(self.dtype)
        x_shape, y_shape = (
            (self.batch, *shape) for shape in (geometry.input_shape, geometry.output_shape)
        )
        rng = np.random.default_rng(self.seed)
        source = random_array(rng, y_shape if self.product == "transpose" else x_shape, dtype)
        if self.product == "kernel_gradient":
            operand = random_array(rng, y_shape, dtype)
        else:
            operand = structured_kernel(rng, geometry, dtype, self.structure)
        result = self._result_shape()
        shapes = {"scale": result[-1:], "bias": result[-1:], "residual": result}
        values = {"source": source, "operand": operand}
        values |= {name: random_array(rng, shapes[name], dtype) for name in self.parts}
        along_source = ("source", "residual")
        return {
            name: Guarded(
                value, self.source_layout if name in along_source else self.operand_layout
            )
            for name, value in values.items()
        }

    def _result_shape(self) -> tuple[int, ...]:
        if self.product == "kernel_gradient":
            return self.geometry.kernel_shape
        forward = self.product == "forward"
        return (
            self.batch,
            *(self.geometry.output_shape if forward else self.geometry.input_shape),
        )

    def _target(self, dtype: np.dtype) -> Guarded | None:
        """Return where to write the result: NaNs, so that an entry left out shows."""
        if self.out is None:
            return None
        guarded = Guarded(np.zeros(self._result_shape(), dtype), self.out, guard=Guarded.WRITE)
        guarded.array[...] = np.frombuffer(bytes([Guarded.READ]) * dtype.itemsize, dtype)[0]
        return guarded

    def _call(self, source: np.ndarray, operand: np.ndarray, options: dict[str, Any]) -> Any:
        geometry = self.geometry
        how = window(geometry) | {"algorithm": self.algorithm, "backend": self.backend}
        if self.product == "kernel_gradient":
            size = geometry.kernel_size
            return conv_kernel_gradient(source, operand, size, **how, **options)
        if self.operator:
            op = ConvOperator(operand, geometry.input_size, **how)
            return (op if self.product == "forward" else op.T)(source, **options)
        if self.product == "forward":
            return conv(source, operand, **how, **options)
        size = geometry.input_size
        return conv_transpose(source, operand, output_size=size, **how, **options)


@st.composite
def trials(
    draw: st.DrawFn,
    geometry: st.SearchStrategy[ConvGeometry] | None = None,
    *,
    products: Sequence[Product] = PRODUCTS,
    dtypes: Sequence[str] = ALL_DTYPES,
    layouts: Sequence[str] = LAYOUTS,
    structures: Sequence[str] = STRUCTURES,
    max_batch: int = 3,
    algorithm: str | None = None,
    backend: str | None = None,
) -> Trial:
    """Draw a `Trial` of a backend; it shrinks towards one plain call.

    Parameters
    ----------
    geometry : strategy, optional
        Default: small ones of every kind, at the edges of tiles, and what Winograd is for.
    products, dtypes, layouts, structures : sequence of str
        What to draw from. bfloat16 is left out where ml_dtypes is not installed, and complex
        numbers for CUDA, which has no kernels for them.
    max_batch : int
        The batch has 0 to this many entries, 1 mostly.
    algorithm, backend : str, optional
        As `convarith.conv` takes them.
    """
    product = draw(st.sampled_from(products))
    if geometry is None:
        geometry = geometries(max_kernel=5) | tile_geometries() | winograd_geometries()
        if algorithm == "winograd":
            geometry = winograd_geometries()
    plain = st.just("C")
    layout = plain | st.sampled_from(layouts)
    of_map = product != "kernel_gradient"
    dtype = draw(st.sampled_from([name for name in dtypes if _available(name, backend)]))
    activations = (None, None, "relu", "relu6") if dtype[:7] != "complex" else (None,)
    parts = draw(st.sets(st.sampled_from(PARTS)) if of_map else st.just(set()))
    return Trial(
        product,
        draw(geometry),
        batch=draw(st.sampled_from((1, *range(max_batch + 1)))),
        dtype=dtype,
        structure=draw(st.sampled_from(structures)) if of_map else "random",
        seed=draw(st.integers(0, 2**32 - 1)),
        source_layout=draw(layout),
        operand_layout=draw(layout),
        parts=tuple(name for name in PARTS if name in parts),
        activation=draw(st.sampled_from(activations)) if of_map else None,
        out=draw(st.none() | st.sampled_from([name for name in layouts if name != "swapped"])),
        operator=draw(st.booleans()) if of_map else False,
        algorithm=algorithm,
        backend=backend,
    )


def _available(dtype: str, backend: str | None) -> bool:
    if backend == "cuda" and dtype.startswith("complex"):
        return False
    return dtype != "bfloat16" or importlib.util.find_spec("ml_dtypes") is not None


def _dtype(name: str) -> np.dtype:
    if name == "bfloat16":
        importlib.import_module("ml_dtypes")  # which registers it with NumPy
    return np.dtype(name)
