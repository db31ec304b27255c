// The frame of the tiled kernel gradients: one matrix product a group, of x unfolded (columns: tap
// and channel) and g (columns: filters), summed over the pixels of the batch, a row each. A stage is
// PIXELS rows of TILE channels of both, in 16-byte chunks copied asynchronously. The pixels are cut
// into parts, as many as the geometry and the batch say, and a block sums one part; where there are
// several they go to `parts` and sum_parts.cu adds them in order.
//
// A kernel defines ELEMENT, RANK, TILE, PIXELS, THREADS and STAGES, and what a stage is multiplied
// by.
#pragma once
#include "element.cuh"
#include "walk.cuh"

constexpr int CHUNK = 16 / sizeof(ELEMENT), CHUNKS = TILE / CHUNK;  // of a row
constexpr int ROW_BYTES = TILE * sizeof(ELEMENT), SIDE_BYTES = PIXELS * ROW_BYTES;
constexpr int STAGE_BYTES = 2 * SIDE_BYTES;  // x, then g
constexpr int ROWS_A_PASS = THREADS / CHUNKS, PASSES = PIXELS / ROWS_A_PASS;
static_assert(PASSES * ROWS_A_PASS == PIXELS && CHUNKS >= 8, "whole passes, whole swizzles");

// Where a chunk of a pixel lies: the same chunk of eight pixels meets all 32 banks, and so do two
// chunks of four.
DEV int swizzled(int pixel, int chunk) {
  return pixel * ROW_BYTES + ((chunk ^ ((pixel & 3) << 1 | (pixel >> 2 & 1))) << 4);
}

// The copies of one thread: one chunk of x and one of g, of a few pixels of every stage.
struct Loader {
  const ELEMENT *x, *g;  // at the chunk's channel, of the first pixel
  int d[RANK];           // the tap's place: k*dilation - low
  bool some_x, some_g;
  int image[PASSES], o[PASSES][RANK], pixel, row, chunk;

  DEV Loader(const Gradient& of, const ELEMENT* all_x, const ELEMENT* all_g, int m0, int n0,
             int group, int first)
      : d{}, pixel(first + threadIdx.x / CHUNKS), row(threadIdx.x / CHUNKS),
        chunk(threadIdx.x % CHUNKS) {
    const int m = m0 + chunk * CHUNK, n = n0 + chunk * CHUNK;
    int tap = m / of.padded_channels;
    x = all_x + group * of.padded_channels + m % of.padded_channels;
    g = all_g + group * of.padded_filters + n;
    some_g = n < of.padded_filters;
#pragma unroll
    for (int axis = RANK - 1; axis >= 0; --axis) {
      const Axis& a = of.axes[3 - RANK + axis];
      d[axis] = tap % a.taps * a.dilation - a.low;
      tap /= a.taps;
    }
    some_x = tap == 0;
#pragma unroll
    for (int i = 0; i < PASSES; ++i) {
      int p = pixel + i * ROWS_A_PASS;
#pragma unroll
      for (int axis = RANK - 1; axis >= 0; --axis) {
        const Axis& a = of.axes[3 - RANK + axis];
        o[i][axis] = p % a.result, p /= a.result;
      }
      image[i] = p;
    }
  }

  DEV void copy(const Gradient& of, unsigned char* stage, int last) {
    const int pitch = of.groups * of.padded_channels, width = of.groups * of.padded_filters;
#pragma unroll
    for (int i = 0; i < PASSES; ++i) {
      const int p = pixel + i * ROWS_A_PASS;
      bool inside = some_x && p < last;
      int source = image[i];
#pragma unroll
      for (int axis = 0; axis < RANK; ++axis) {
        const Axis& a = of.axes[3 - RANK + axis];
        const int at = o[i][axis] * a.stride + d[axis];
        inside = inside && (unsigned)at < (unsigned)a.source;
        source = source * a.source + (inside ? at : 0);
      }
      unsigned char* to = stage + swizzled(row + i * ROWS_A_PASS, chunk);
      cp_async16(to, x + (inside ? (long long)source * pitch : 0), inside);
      const bool there = some_g && p < last;
      cp_async16(to + SIDE_BYTES, g + (there ? (long long)p * width : 0), there);
      o[i][RANK - 1] += PIXELS;
#pragma unroll
      for (int axis = RANK - 1; axis >= 0; --axis) {
        const int length = of.axes[3 - RANK + axis].result;
        while (o[i][axis] >= length) {
          o[i][axis] -= length;
          if (axis > 0) ++o[i][axis - 1];
          else ++image[i];
        }
      }
    }
    pixel += PIXELS;
  }
};

// One entry's sum over a part as the specification has it: no tap in the padding is multiplied.
DEV float sum_plainly(const Gradient& of, const ELEMENT* x, const ELEMENT* g, int m, int n,
                      int group, int first, int last) {
  const Axis *a = of.axes;
  const int c = m % of.padded_channels;
  int tap = m / of.padded_channels;
  const int k2 = tap % a[2].taps;
  tap /= a[2].taps;
  const int k1 = tap % a[1].taps, k0 = tap / a[1].taps;
  float sum = 0;
  for (int p = first; p < last; ++p) {
    int rest = p;
    const int i2 = rest % a[2].result * a[2].stride + k2 * a[2].dilation - a[2].low;
    rest /= a[2].result;
    const int i1 = rest % a[1].result * a[1].stride + k1 * a[1].dilation - a[1].low;
    rest /= a[1].result;
    const int i0 = rest % a[0].result * a[0].stride + k0 * a[0].dilation - a[0].low;
    rest /= a[0].result;
    if (i0 < 0 || i0 >= a[0].source || i1 < 0 || i1 >= a[1].source || i2 < 0 || i2 >= a[2].source)
      continue;
    const long long at =
        (((long long)rest * a[0].source + i0) * a[1].source + i1) * a[2].source + i2;
    sum = multiply_add(
        wide(x[(at * of.groups + group) * of.padded_channels + c]),
        wide(g[((long long)p * of.groups + group) * of.padded_filters + n]), sum);
  }
  return sum;
}

// All of a kernel but the product of a stage: `Sums` adds a stage's products with add(stage) and
// tells each of its sums with each(f): f(row, column, sum).
template <class Sums>
DEV void gradient_tile(const ELEMENT* x, const ELEMENT* g, ELEMENT* result, const int* careful,
                       const Gradient& of, int pixels, int part_pixels, int tiles_m, int tiles_n,
                       float* parts) {
  DYN_SMEM(shared);
  const int m0 = blockIdx.x % tiles_m * TILE, rest = blockIdx.x / tiles_m;
  const int n0 = rest % tiles_n * TILE, group = rest / tiles_n;
  const int first = blockIdx.y * part_pixels, last = first + min(part_pixels, pixels - first);
  const int width = of.groups * of.filters;
  const int rows = of.axes[0].taps * of.axes[1].taps * of.axes[2].taps * of.padded_channels;
  const auto store = [&](int row, int column, float sum) {
    const int m = m0 + row, n = n0 + column, c = m % of.padded_channels;
    if (m >= rows || c >= of.channels || n >= of.filters) return;
    const long long at =
        ((long long)(m / of.padded_channels) * of.channels + c) * width + group * of.filters + n;
    if (parts)
      parts[(long long)blockIdx.y * (rows / of.padded_channels) * of.channels * width + at] = sum;
    else
      result[at] = narrow<ELEMENT>(sum);
  };
  if (careful && load_flag(careful)) {  // 0*inf, of zeros that stand for the padding, is no 0
    for (int at = threadIdx.x; at < TILE * TILE; at += THREADS)
      if (m0 + at / TILE < rows && n0 + at % TILE < of.filters)
        store(at / TILE, at % TILE,
              sum_plainly(of, x, g, m0 + at / TILE, n0 + at % TILE, group, first, last));
    return;
  }
  const int stages = (last - first + PIXELS - 1) / PIXELS;
  Loader loader(of, x, g, m0, n0, group, first);
  Sums sums;
#pragma unroll
  for (int s = 0; s < STAGES - 1; ++s) {
    if (s < stages) loader.copy(of, shared + s * STAGE_BYTES, last);
    cp_async_commit();
  }
  for (int s = 0; s < stages; ++s) {
    cp_async_wait<STAGES - 2>();
    __syncthreads();  // the stage is there for all, and the one before has been read by all
    if (s + STAGES - 1 < stages)
      loader.copy(of, shared + (s + STAGES - 1) % STAGES * STAGE_BYTES, last);
    cp_async_commit();
    sums.add(shared + s % STAGES * STAGE_BYTES);
  }
  sums.each(store);
}

#define GRADIENT_TILE_PARAMETERS                                                            \
  const ELEMENT *__restrict__ x, const ELEMENT *__restrict__ g, ELEMENT *__restrict__ result, \
      const int *careful, Gradient of, int pixels, int part_pixels, int tiles_m, int tiles_n, \
      float *parts
#define GRADIENT_TILE_ARGUMENTS \
  x, g, result, careful, of, pixels, part_pixels, tiles_m, tiles_n, parts
