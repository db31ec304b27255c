// W x or W^T y where every channel is by itself: VECTOR channels (16 bytes, or 1 where they do not
// lie so) and COLUMNS neighbouring results a thread. With WINDOW taps of step 1 on the last axis,
// read ADVANCE apart, the sources that neighbours share are loaded once; WINDOW 0 takes any law.
// It moves as few bytes as there are, where map_ffma would multiply by a matrix of one entry.
#include "finish.cuh"
#include "walk.cuh"

typedef Several<ELEMENT, VECTOR> Vector;

// source (n, *spatial, channels), weights (*k, channels); blockIdx.y is the phase.
extern "C" __global__ void __launch_bounds__(128, 4)
depthwise(const ELEMENT* __restrict__ source, const ELEMENT* __restrict__ weights,
          ELEMENT* __restrict__ result, const PART* __restrict__ scale,
          const PART* __restrict__ bias, const RESIDUAL* residual, int activation, Map map, int batch) {
  const Axis &a0 = map.axes[0], &a1 = map.axes[1], &a2 = map.axes[2];
  const int channels = map.groups, vectors = channels / VECTOR;
  unsigned phase = blockIdx.y;
  const Walk w2 = walk(a2, phase % a2.phases, map.transposed);
  phase /= a2.phases;
  const Walk w1 = walk(a1, phase % a1.phases, map.transposed);
  const Walk w0 = walk(a0, phase / a1.phases, map.transposed);
  const unsigned blocks = (w2.count + COLUMNS - 1) / COLUMNS;
  unsigned at = blockIdx.x * blockDim.x + threadIdx.x;
  const int c = at % vectors * VECTOR;
  at /= vectors;
  const int j2 = at % blocks * COLUMNS;
  at /= blocks;
  const int j1 = at % w1.count;
  at /= w1.count;
  const int j0 = at % w0.count, image = at / w0.count;
  if (image >= batch) return;
  Computed<ELEMENT>::type sums[COLUMNS][VECTOR] = {};
  for (int t0 = 0; t0 < w0.taps; ++t0) {
    const int s0 = w0.origin + w0.advance * j0 + w0.turn * t0;
    if ((unsigned)s0 >= (unsigned)a0.source) continue;
    for (int t1 = 0; t1 < w1.taps; ++t1) {
      const int s1 = w1.origin + w1.advance * j1 + w1.turn * t1;
      if ((unsigned)s1 >= (unsigned)a1.source) continue;
      const ELEMENT* row =
          source + (((long long)image * a0.source + s0) * a1.source + s1) * a2.source * channels + c;
      const ELEMENT* k = weights + ((w0.first + w0.every * t0) * (long long)a1.taps + w1.first +
                                    w1.every * t1) * a2.taps * channels + c;
      const int first = w2.origin + w2.advance * j2;
#if WINDOW
      constexpr int SPAN = (COLUMNS - 1) * ADVANCE + WINDOW;
      Vector x[SPAN];
      bool inside[SPAN];
#pragma unroll
      for (int i = 0; i < SPAN; ++i) {
        inside[i] = (unsigned)(first + i) < (unsigned)a2.source;
        x[i] = Vector();
        if (inside[i]) x[i] = *(const Vector*)(row + (long long)(first + i) * channels);
      }
#pragma unroll
      for (int t2 = 0; t2 < WINDOW; ++t2) {
        const Vector w = *(const Vector*)(k + t2 * channels);
#pragma unroll
        for (int j = 0; j < COLUMNS; ++j)
          if (inside[j * ADVANCE + t2]) {
#pragma unroll
            for (int v = 0; v < VECTOR; ++v)
              sums[j][v] = multiply_add(wide(x[j * ADVANCE + t2].of[v]), wide(w.of[v]), sums[j][v]);
          }
      }
#else
      for (int t2 = 0; t2 < w2.taps; ++t2) {
        const Vector w = *(const Vector*)(k + (w2.first + (long long)w2.every * t2) * channels);
#pragma unroll
        for (int j = 0; j < COLUMNS; ++j) {
          const int s2 = first + w2.advance * j + w2.turn * t2;
          if ((unsigned)s2 >= (unsigned)a2.source) continue;
          const Vector x = *(const Vector*)(row + (long long)s2 * channels);
#pragma unroll
          for (int v = 0; v < VECTOR; ++v)
            sums[j][v] = multiply_add(wide(x.of[v]), wide(w.of[v]), sums[j][v]);
        }
      }
#endif
    }
  }
  const Finish finish = {scale, bias, residual, activation};
  const FinishSeveral<VECTOR> several(finish, c);
#pragma unroll
  for (int j = 0; j < COLUMNS; ++j) {
    if (j2 + j >= w2.count) break;
    const long long to =
        ((((long long)image * a0.result + w0.start + w0.step * j0) * a1.result + w1.start +
          w1.step * j1) * a2.result + w2.start + w2.step * (j2 + j)) * channels + c;
    *(Vector*)(result + to) = several(sums[j], to);
  }
}
