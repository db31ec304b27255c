// The index law i = o*stride + k*dilation - low, as a product walks it along one axis.
#pragma once
#include "ptx80.cuh"

// Coordinates; of 64 bits for axes that 32 do not reach, which map_plain and gradient_plain take.
#ifdef WIDE
typedef long long Index;
#else
typedef int Index;
#endif

// One axis of a geometry. `source` and `result` are the lengths of what is read and what is made:
// input and output for the forward product, output and input for the transpose.
struct Axis {
  Index source, result, taps, stride, dilation, low;
  Index phases;          // kinds of results: 1 forward, min(stride, result) for the transpose
  Index common, inverse; // gcd(stride, dilation); (dilation/common)^-1 mod stride/common
};

// Results start + step*j for j < count have the same taps t < of; they are kernel entries
// first + every*t and read source entries origin + advance*j + turn*t, zero outside [0, source).
struct Walk {
  Index count, start, step, origin, advance, turn, taps, first, every;
};

// The transpose is gathered: result i takes the taps with k*dilation = i + low (mod stride), which
// are an arithmetic progression in k, the same for every i of a phase i mod stride; the sources
// they read, o = (i + low - k*dilation)/stride, lie dilation*every/stride apart.
DEV Walk walk(const Axis& a, Index phase, bool transposed) {
  if (!transposed) return {a.result, 0, 1, -a.low, a.stride, a.dilation, a.taps, 0, 1};
  Walk w = {(a.result - phase + a.stride - 1) / a.stride, phase, a.stride, 0, 1, 0, 0, 0, 1};
  Index residue = (phase + a.low) % a.stride;
  if (residue < 0) residue += a.stride;
  if (residue % a.common) return w;
  w.every = a.stride / a.common;
  w.first = (Index)((long long)(residue / a.common) * a.inverse % w.every);
  if (w.first >= a.taps) return w;
  w.taps = (a.taps - w.first + w.every - 1) / w.every;
  w.origin = (Index)((phase + a.low - (long long)w.first * a.dilation) / a.stride);
  w.turn = -(a.dilation / a.common);
  return w;
}

// A product of one geometry: axes are padded to three by leading ones of length 1.
struct Map {
  Axis axes[3];
  int transposed, groups;
  int source_channels, result_channels;  // of a group
  int padded_channels;                   // source channels of a group as they lie in memory,
  int chunks;                            // and in chunks of 16 bytes
  long long row;                         // packed weights of a result channel: taps*padded_channels
};

// The kernel gradient of one geometry; `axes` are those of its forward product.
struct Gradient {
  Axis axes[3];
  int groups, channels, filters;          // channels in and out of a group
  int padded_channels, padded_filters;    // as they lie in memory
};
