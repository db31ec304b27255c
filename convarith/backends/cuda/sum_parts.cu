// Adds what several blocks have summed of each result, in order, and finishes it.
#include "finish.cuh"

// parts (count, entries); result (entries), its last axis `channels` long.
extern "C" __global__ void __launch_bounds__(256)
sum_parts(const float* __restrict__ parts, ELEMENT* __restrict__ result,
          const PART* __restrict__ scale, const PART* __restrict__ bias, const RESIDUAL* residual,
          int activation, int count, int channels, long long entries) {
  const long long at = blockIdx.x * (long long)blockDim.x + threadIdx.x;
  if (at >= entries) return;
  float total = 0;
  for (int part = 0; part < count; ++part) total += parts[part * entries + at];
  const Finish finish = {scale, bias, residual, activation};
  result[at] = finish(total, scale || bias ? (int)(at % channels) : 0, at);
}
