// W x or W^T y, one result a thread: the readable specification of every other map kernel, and what
// runs for float64, integers, and sizes that those do not take. Sums run over the taps in C order
// and, within a tap, over the channels; each step is one fused multiply-add (or exact, modulo 2^b).
#include "finish.cuh"
#include "walk.cuh"

// source (n, *spatial, groups*source_channels), result likewise; kernel (*k, c_in/groups, c_out) as
// the caller has it.
extern "C" __global__ void __launch_bounds__(256)
map_plain(const ELEMENT* __restrict__ source, const ELEMENT* __restrict__ kernel,
          ELEMENT* __restrict__ result, const PART* __restrict__ scale,
          const PART* __restrict__ bias, const RESIDUAL* residual, int activation, Map map,
          unsigned long long entries) {
  const u64 at = blockIdx.x * (u64)blockDim.x + threadIdx.x;
  if (at >= entries) return;
  const int C = map.source_channels, N = map.result_channels, G = map.groups;
  const Axis &a0 = map.axes[0], &a1 = map.axes[1], &a2 = map.axes[2];
  u64 rest = at / (unsigned)(G * N);
  const int channel = (int)(at - rest * (unsigned)(G * N));
  const Index i2 = (Index)(rest % (u64)a2.result);
  rest /= (u64)a2.result;
  const Index i1 = (Index)(rest % (u64)a1.result);
  rest /= (u64)a1.result;
  const u64 image = rest / (u64)a0.result;
  const Index i0 = (Index)(rest - image * (u64)a0.result);
  const int g = channel / N, n = channel % N;
  const Walk w0 = walk(a0, i0 % a0.phases, map.transposed);
  const Walk w1 = walk(a1, i1 % a1.phases, map.transposed);
  const Walk w2 = walk(a2, i2 % a2.phases, map.transposed);
  const Index j0 = i0 / w0.step, j1 = i1 / w1.step, j2 = i2 / w2.step;
  // Where kernel entry (tap, source channel c, result channel n) of group g lies.
  const u64 of_tap = (u64)C * N * G, of_c = map.transposed ? 1 : G * N;
  const ELEMENT* of_channel =
      kernel + (map.transposed ? (u64)n * (G * C) + g * C : (u64)g * N + n);
  Computed<ELEMENT>::type sum = 0;
  for (Index t0 = 0; t0 < w0.taps; ++t0) {
    const Index s0 = w0.origin + w0.advance * j0 + w0.turn * t0;
    if (s0 < 0 || s0 >= a0.source) continue;
    for (Index t1 = 0; t1 < w1.taps; ++t1) {
      const Index s1 = w1.origin + w1.advance * j1 + w1.turn * t1;
      if (s1 < 0 || s1 >= a1.source) continue;
      for (Index t2 = 0; t2 < w2.taps; ++t2) {
        const Index s2 = w2.origin + w2.advance * j2 + w2.turn * t2;
        if (s2 < 0 || s2 >= a2.source) continue;
        const Index k0 = w0.first + w0.every * t0, k1 = w1.first + w1.every * t1,
                  k2 = w2.first + w2.every * t2;
        const u64 pixel = ((image * a0.source + s0) * a1.source + s1) * a2.source + s2;
        const ELEMENT* x = source + pixel * (G * C) + g * C;
        const ELEMENT* k = of_channel + ((k0 * (u64)a1.taps + k1) * a2.taps + k2) * of_tap;
        for (int c = 0; c < C; ++c, k += of_c) sum = multiply_add(wide(x[c]), wide(*k), sum);
      }
    }
  }
  const Finish finish = {scale, bias, residual, activation};
  result[at] = finish(sum, channel, at);
}
