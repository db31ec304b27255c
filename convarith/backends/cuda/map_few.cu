// The map for few channels, and a kernel that fits shared memory: a thread makes all FILTERS results
// of a pixel, and a block writes a piece of a row of them side by side. Against map_ffma it computes
// no tile's empty columns; the order of every sum is the same.
#include "finish.cuh"
#include "walk.cuh"

constexpr int THREADS = 128, WIDTH = (FILTERS + 3) / 4 * 4;

// source (n, *spatial, groups*source_channels); weights (group, tap, source channel, WIDTH) in
// float32. blockIdx: x is the piece of THREADS results of a row, y the first of its `rows` (of all
// images and leading axes), z the group.
extern "C" __global__ void __launch_bounds__(THREADS)
map_few(const ELEMENT* __restrict__ source, const float* __restrict__ weights,
        ELEMENT* __restrict__ result, const PART* __restrict__ scale,
        const PART* __restrict__ bias, const RESIDUAL* residual, int activation, Map map, int rows) {
  DYN_SMEM(shared);
  const Axis &a0 = map.axes[0], &a1 = map.axes[1], &a2 = map.axes[2];
  const int C = map.source_channels, pitch = map.groups * C, group = blockIdx.z;
  const int entries = a0.taps * a1.taps * a2.taps * C * WIDTH;
  float *table = (float*)shared, *finished = table + entries;
  for (int i = threadIdx.x; i < entries / 4; i += THREADS)
    ((float4*)table)[i] = ((const float4*)(weights + (long long)group * entries))[i];
  const int begin = blockIdx.x * THREADS, i2 = begin + threadIdx.x;
  const bool inside = i2 < a2.result;
  const int j2 = map.transposed ? i2 / a2.stride : i2;
  const Walk w2 = walk(a2, map.transposed ? i2 - j2 * a2.stride : 0, map.transposed);
  const int first = inside ? w2.origin + w2.advance * j2 : 0;
  const Finish finish = {scale, bias, residual, activation};
  __syncthreads();
  for (int line = blockIdx.y; line < rows; line += gridDim.y) {
    int rest = line / a1.result;
    const int i1 = line - rest * a1.result, image = rest / a0.result;
    const int i0 = rest - image * a0.result;
    const int j1 = map.transposed ? i1 / a1.stride : i1, j0 = map.transposed ? i0 / a0.stride : i0;
    const Walk w1 = walk(a1, map.transposed ? i1 - j1 * a1.stride : 0, map.transposed);
    const Walk w0 = walk(a0, map.transposed ? i0 - j0 * a0.stride : 0, map.transposed);
    float sums[WIDTH] = {};
    if (inside)
      for (int t0 = 0; t0 < w0.taps; ++t0) {
        const int s0 = w0.origin + w0.advance * j0 + w0.turn * t0;
        if ((unsigned)s0 >= (unsigned)a0.source) continue;
        for (int t1 = 0; t1 < w1.taps; ++t1) {
          const int s1 = w1.origin + w1.advance * j1 + w1.turn * t1;
          if ((unsigned)s1 >= (unsigned)a1.source) continue;
          const long long row = (((long long)image * a0.source + s0) * a1.source + s1) * a2.source;
          const int k = ((w0.first + w0.every * t0) * a1.taps + w1.first + w1.every * t1) * a2.taps;
          for (int t2 = 0; t2 < w2.taps; ++t2) {
            const int s2 = first + w2.turn * t2;
            if ((unsigned)s2 >= (unsigned)a2.source) continue;
            const ELEMENT* x = source + (row + s2) * pitch + group * C;
            const float* w = table + (k + w2.first + w2.every * t2) * C * WIDTH;
#pragma unroll 4
            for (int c = 0; c < C; ++c, w += WIDTH) {
              const float value = wide(x[c]);
#pragma unroll
              for (int n = 0; n < WIDTH; n += 4) {
                const float4 four = *(const float4*)(w + n);
                sums[n] = __fmaf_rn(value, four.x, sums[n]);
                sums[n + 1] = __fmaf_rn(value, four.y, sums[n + 1]);
                sums[n + 2] = __fmaf_rn(value, four.z, sums[n + 2]);
                sums[n + 3] = __fmaf_rn(value, four.w, sums[n + 3]);
              }
            }
          }
        }
      }
    // An odd pitch, so that the threads of a warp meet different banks.
    float* mine = finished + threadIdx.x * (FILTERS | 1);
#pragma unroll
    for (int n = 0; n < FILTERS; ++n) mine[n] = sums[n];
    __syncthreads();
    const long long start = ((long long)line * a2.result + begin) * map.groups;
    const int count = min(THREADS, a2.result - begin) * FILTERS;
    for (int i = threadIdx.x; i < count; i += THREADS) {
      const int pixel = i / FILTERS, n = i % FILTERS, channel = group * FILTERS + n;
      const long long at = (start + pixel * map.groups + group) * FILTERS + n;
      result[at] = finish(finished[pixel * (FILTERS | 1) + n], channel, at);
    }
    __syncthreads();  // before the next row overwrites it
  }
}
