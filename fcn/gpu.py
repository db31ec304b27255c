"""What inference does besides convolutions, on a GPU: one pass over memory each.

CuPy's own operations take several passes, each with its kernels, and know no bfloat16.
"""

from __future__ import annotations

import functools
import importlib
import math
from typing import Any

import numpy as np

from convarith import ConvGeometry

from .layers import Array

#: Indices are 32 bits wide up to so many entries: dividing them is most of such a kernel's work.
MOST = 2**31 - 1
THREADS = 256
#: Pixels of a block of the softmax, and the channels whose logits its shared memory holds.
PIXELS, MOST_CHANNELS = 128, 95

#: Of the half types the bits are held, float32 as it is.
_TYPES = r"""
#if HALF
typedef unsigned short T;
#else
typedef float T;
#endif
template <class X> struct alignas(LANES * sizeof(X)) Chunk {
  X of[LANES];
};
__device__ float wide(float x) { return x; }
__device__ float wide(unsigned short x) {
#if HALF == 16
  float r;
  asm("cvt.f32.f16 %0, %1;" : "=f"(r) : "h"(x));
  return r;
#else
  return __uint_as_float((unsigned)x << 16);
#endif
}
"""

#: source (n, height, width, chunks), out (n, rows, columns, chunks); a chunk is LANES channels.
_MAX_POOL = r"""
extern "C" __global__ void __launch_bounds__(THREADS)
max_pool(const Chunk<T>* __restrict__ source, Chunk<T>* __restrict__ out, T outside, INDEX height,
         INDEX width, INDEX chunks, INDEX rows, INDEX columns, int kh, int kw, int sy, int sx,
         int py, int px, INDEX count) {
  INDEX at = blockIdx.x * (INDEX)THREADS + threadIdx.x;
  if (at >= count) return;
  Chunk<T> greatest;
  float most[LANES];
  const INDEX to = at, chunk = at % chunks;
  at /= chunks;
  const INDEX column = at % columns;
  at /= columns;
  const INDEX top = at % rows * sy - py, left = column * sx - px;
  const Chunk<T>* image = source + at / rows * height * width * chunks + chunk;
  for (int ky = 0; ky < kh; ++ky)
    for (int kx = 0; kx < kw; ++kx) {
      const INDEX y = top + ky, x = left + kx;
      Chunk<T> here;
      if (0 <= y && y < height && 0 <= x && x < width) {
        here = image[(y * width + x) * chunks];
      } else {
#pragma unroll
        for (int i = 0; i < LANES; ++i) here.of[i] = outside;
      }
#pragma unroll
      for (int i = 0; i < LANES; ++i) {
        const float value = wide(here.of[i]);
        if (ky + kx == 0 || value > most[i] || value != value)
          greatest.of[i] = here.of[i], most[i] = value;  // the bits, so nothing is rounded
      }
    }
  out[to] = greatest;
}
"""

_WIDEN = r"""
extern "C" __global__ void __launch_bounds__(THREADS)
widen(const Chunk<T>* __restrict__ x, Chunk<float>* __restrict__ out, INDEX count) {
  const INDEX at = blockIdx.x * (INDEX)THREADS + threadIdx.x;
  if (at >= count) return;
  const Chunk<T> here = x[at];
  Chunk<float> result;
#pragma unroll
  for (int i = 0; i < LANES; ++i) result.of[i] = wide(here.of[i]);
  out[at] = result;
}
"""

#: logits, out (pixels, channels), perhaps the same; a block's logits lie in shared memory, pixels
#: an odd pitch apart, so that the threads of a warp meet different banks.
_SOFTMAX = r"""
extern "C" __global__ void __launch_bounds__(THREADS)
softmax(const T* logits, float* out, int channels, int pitch, long long pixels) {
  extern __shared__ float tile[];
  const long long first = blockIdx.x * (long long)THREADS;
  const int count = (int)min((long long)THREADS, pixels - first);
  logits += first * channels;
  out += first * channels;
  for (int i = threadIdx.x; i < count * channels; i += THREADS)
    tile[i / channels * pitch + i % channels] = wide(logits[i]);
  __syncthreads();
  if (threadIdx.x < count) {
    float* mine = tile + threadIdx.x * pitch;
    float most = mine[0], sum = 0;
    for (int c = 1; c < channels; ++c)
      if (mine[c] > most || mine[c] != mine[c]) most = mine[c];
    for (int c = 0; c < channels; ++c) sum += mine[c] = expf(mine[c] - most);
    for (int c = 0; c < channels; ++c) mine[c] /= sum;
  }
  __syncthreads();
  for (int i = threadIdx.x; i < count * channels; i += THREADS)
    out[i] = tile[i / channels * pitch + i % channels];
}
"""

#: To the nearest, ties to even; a carry into what says NaN would make it infinite.
_NARROW = """
    const unsigned bits = __float_as_uint(x);
    out = x == x ? (bits + 0x7FFF + (bits >> 16 & 1)) >> 16 : bits >> 16 | 0x40
"""
_SOURCES = {"max_pool": _MAX_POOL, "widen": _WIDEN, "softmax": _SOFTMAX}


def max_pool(x: Array, geometry: ConvGeometry, outside: float, out: Array) -> None:
    """Write the greatest entry of each window to `out`, as `fcn.blocks.max_pool` does.

    Parameters
    ----------
    x, out : cupy.ndarray
        Of one dtype: float32, float16 or bfloat16.
    geometry : ConvGeometry
    outside : float
    """
    target = bits(out)
    if not out.flags.c_contiguous:
        whole = importlib.import_module("cupy").empty(out.shape, target.dtype)
        max_pool(x, geometry, outside, whole.view(out.dtype))
        target[...] = whole
        return
    rows, columns = geometry.axes
    source = _contiguous(bits(x))
    channels, size = x.shape[3], source.itemsize
    lanes = _lanes(source, target, channels)
    count = out.size // lanes
    if not count:
        return
    index = _index(max(x.size, out.size))
    sizes = (rows.size, columns.size, channels // lanes, rows.output, columns.output)
    numbers = (rows.kernel, columns.kernel, rows.stride, columns.stride, rows.low, columns.low)
    value = np.float32(outside)
    if size == 2:  # -inf and 0 have no bits but the first
        value = np.float16(outside).view(np.uint16)
        if x.dtype.name == "bfloat16":
            value = np.uint16(np.float32(outside).view(np.uint32) >> 16)
    arguments = (source, target, value, *map(index, sizes), *map(np.int32, numbers), index(count))
    kernel = _kernel("max_pool", x.dtype, THREADS, lanes, index)
    kernel((-(-count // THREADS),), (THREADS,), arguments)


def softmax(x: Array, out: Array) -> Array:
    """Write the probabilities over the channels to `out`, as `fcn.blocks.softmax` does.

    Parameters
    ----------
    x, out : cupy.ndarray
        Of one shape; `out` float32 and C-contiguous, `x` float32, then it may be `out`, or of a
        half type.
    """
    xp, channels = importlib.import_module("cupy"), x.shape[-1]
    if channels > MOST_CHANNELS:
        x = widened(x)
        xp.subtract(x, x.max(axis=-1, keepdims=True), out=out)
        xp.exp(out, out=out)
        out /= out.sum(axis=-1, keepdims=True)
        return out
    pixels = math.prod(x.shape[:-1])
    if pixels:
        pitch = channels | 1
        arguments = (_contiguous(bits(x)), out, *map(np.int32, (channels, pitch)), np.int64(pixels))
        kernel = _kernel("softmax", x.dtype, PIXELS, 1, np.int64)
        shared = 4 * PIXELS * pitch
        kernel((-(-pixels // PIXELS),), (PIXELS,), arguments, shared_mem=shared)
    return out


def widened(x: Array) -> Array:
    """Return an array as float32: itself if it is that."""
    xp = importlib.import_module("cupy")
    if x.dtype == np.float32:
        return x
    source, out = _contiguous(bits(x)), xp.empty(x.shape, np.float32)
    lanes = _lanes(source, out, x.size)
    count = x.size // lanes
    if count:
        index = _index(x.size)
        kernel = _kernel("widen", x.dtype, THREADS, lanes, index)
        kernel((-(-count // THREADS),), (THREADS,), (source, out, index(count)))
    return out


def narrowed(x: Array) -> Array:
    """Return the bits of float32 rounded to bfloat16, to the nearest and ties to even."""
    return _narrow()(x)


def bits(array: Array) -> Array:
    """Return the half types as their bits, what else there is as it is."""
    return array.view(np.uint16) if array.itemsize == 2 else array


def _contiguous(array: Array) -> Array:
    return importlib.import_module("cupy").ascontiguousarray(array)


def _lanes(source: Array, target: Array, length: int) -> int:
    """Return how many entries a thread takes: 16 bytes of the source, where all begin at such."""
    size = source.itemsize
    addresses = source.data.ptr | target.data.ptr | length * size
    return 16 // size if addresses % 16 == 0 else 1


def _index(entries: int) -> type:
    return np.int32 if entries + THREADS <= MOST else np.int64


@functools.cache
def _kernel(name: str, dtype: np.dtype, threads: int, lanes: int, index: type) -> Any:
    """Return a kernel for a dtype, so many entries a thread and indices of a type."""
    half = {"float32": 0, "float16": 16, "bfloat16": 1}[dtype.name]
    width = "int" if index is np.int32 else "long long"
    constants = {"HALF": half, "LANES": lanes, "THREADS": threads, "INDEX": width}
    defined = "".join(f"#define {key} {value}\n" for key, value in constants.items())
    return importlib.import_module("cupy").RawKernel(defined + _TYPES + _SOURCES[name], name)


@functools.cache
def _narrow() -> Any:
    cupy = importlib.import_module("cupy")
    return cupy.ElementwiseKernel("float32 x", "uint16 out", _NARROW, "fcn_narrow")
