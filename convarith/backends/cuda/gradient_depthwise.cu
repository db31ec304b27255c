// The kernel gradient where every channel is by itself: a thread sums VECTOR channels of TAPS
// neighbouring entries of the kernel over a strip of pixels, reading g once for all of them; a block
// adds its strips in order, and sum_parts.cu those of all blocks. It is bound by memory, where
// gradient_ffma would fill a tile with one column.
#include "element.cuh"
#include "walk.cuh"

constexpr int THREADS = 256;
typedef Several<ELEMENT, VECTOR> Vector;

// x (n, *spatial, channels), g (n, *spatial', channels); parts (gridDim.y, *k, channels) in float32.
// blockIdx: x is the first channel, y the part of `part_pixels` pixels, z the first of TAPS taps. A
// block has `strips` strips of `vectors` threads.
extern "C" __global__ void __launch_bounds__(THREADS)
gradient_depthwise(const ELEMENT* __restrict__ x, const ELEMENT* __restrict__ g,
                   float* __restrict__ parts, Gradient of, int pixels, int part_pixels, int vectors,
                   int strips) {
  DYN_SMEM(shared);
  float* sums_of = (float*)shared;  // (strips, TAPS, vectors, VECTOR)
  const Axis &a0 = of.axes[0], &a1 = of.axes[1], &a2 = of.axes[2];
  const int channels = of.groups, lane = threadIdx.x % vectors, strip = threadIdx.x / vectors;
  const int c = (blockIdx.x * vectors + lane) * VECTOR, first_tap = blockIdx.z * TAPS;
  const int taps = min(TAPS, a0.taps * a1.taps * a2.taps - first_tap);
  float sums[TAPS][VECTOR] = {};
  if (strip < strips && c < channels) {
    int d0[TAPS], d1[TAPS], d2[TAPS];
#pragma unroll
    for (int t = 0; t < TAPS; ++t) {
      const int k = first_tap + min(t, taps - 1);
      d2[t] = k % a2.taps * a2.dilation - a2.low;
      d1[t] = k / a2.taps % a1.taps * a1.dilation - a1.low;
      d0[t] = k / a2.taps / a1.taps * a0.dilation - a0.low;
    }
    const int last = min(part_pixels, pixels - (int)blockIdx.y * part_pixels);
    for (int i = strip; i < last; i += strips) {
      const int pixel = blockIdx.y * part_pixels + i;
      int rest = pixel / a2.result;
      const int i2 = (pixel - rest * a2.result) * a2.stride, o1 = rest % a1.result;
      rest /= a1.result;
      const int image = rest / a0.result, i0 = (rest - image * a0.result) * a0.stride;
      const int i1 = o1 * a1.stride;
      const Vector d = *(const Vector*)(g + (long long)pixel * channels + c);
#pragma unroll
      for (int t = 0; t < TAPS; ++t) {
        const int s0 = i0 + d0[t], s1 = i1 + d1[t], s2 = i2 + d2[t];
        if (t >= taps || (unsigned)s0 >= (unsigned)a0.source ||
            (unsigned)s1 >= (unsigned)a1.source || (unsigned)s2 >= (unsigned)a2.source)
          continue;
        const long long at = (((long long)image * a0.source + s0) * a1.source + s1) * a2.source + s2;
        const Vector value = *(const Vector*)(x + at * channels + c);
#pragma unroll
        for (int v = 0; v < VECTOR; ++v)
          sums[t][v] = multiply_add(wide(value.of[v]), wide(d.of[v]), sums[t][v]);
      }
    }
  }
  if (strip < strips) {
#pragma unroll
    for (int t = 0; t < TAPS; ++t)
#pragma unroll
      for (int v = 0; v < VECTOR; ++v)
        sums_of[((strip * TAPS + t) * vectors + lane) * VECTOR + v] = sums[t][v];
  }
  __syncthreads();
  const int width = vectors * VECTOR, begin = blockIdx.x * width;
  for (int i = threadIdx.x; i < taps * width; i += THREADS) {
    const int t = i / width, channel = begin + i % width;
    if (channel >= channels) continue;
    float total = 0;
    for (int s = 0; s < strips; ++s) total += sums_of[s * TAPS * width + i];
    const long long entries = (long long)a0.taps * a1.taps * a2.taps * channels;
    parts[blockIdx.y * entries + (long long)(first_tap + t) * channels + channel] = total;
  }
}
