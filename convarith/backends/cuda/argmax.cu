// The first channel with the largest value of every pixel (a NaN is larger than any number, as in
// NumPy): a block reads PIXELS pixels side by side into shared memory, then each thread scans one.
#include "element.cuh"

template <class T> DEV T comparable(T x) { return x; }
DEV f32 comparable(f16 x) { return wide(x); }
DEV f32 comparable(bf16 x) { return wide(x); }

// x (pixels, channels); pitch: channels or one more, odd, so that threads meet different banks.
extern "C" __global__ void __launch_bounds__(PIXELS)
argmax(const ELEMENT* __restrict__ x, long long* __restrict__ result, int channels, int pitch,
       long long pixels) {
  DYN_SMEM(shared);
  ELEMENT* tile = (ELEMENT*)shared;
  const long long first = blockIdx.x * (long long)PIXELS;
  const int count = (int)min((long long)PIXELS, pixels - first);
  const ELEMENT* from = x + first * channels;
  constexpr int CHUNK = 16 / sizeof(ELEMENT);
  if (pitch == channels && (unsigned long long)from % 16 == 0) {
    const int chunks = count * channels / CHUNK;
    for (int i = threadIdx.x; i < chunks; i += PIXELS)
      ((uint4*)tile)[i] = ((const uint4*)from)[i];
    for (int i = chunks * CHUNK + threadIdx.x; i < count * channels; i += PIXELS) tile[i] = from[i];
  } else {
    for (int i = threadIdx.x; i < count * channels; i += PIXELS) {
      const int pixel = i / channels;
      tile[pixel * pitch + i - pixel * channels] = from[i];
    }
  }
  __syncthreads();
  if (threadIdx.x >= count) return;
  const ELEMENT* mine = tile + threadIdx.x * pitch;
  auto largest = comparable(mine[0]);
  int best = 0;
  for (int c = 1; c < channels; ++c) {
    const auto value = comparable(mine[c]);
    if (value > largest || (value != value && largest == largest)) largest = value, best = c;
  }
  result[first + threadIdx.x] = best;
}
