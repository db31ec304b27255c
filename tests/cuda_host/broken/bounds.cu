// y = x with neighbours exchanged, through shared memory; one entry too far, or half a vector off.
#include "ptx80.cuh"

extern "C" __global__ void __launch_bounds__(64)
bounds(const float* x, float* y, int n) {
  SHARED(float4, tile, [16]);
  DYN_SMEM(shared);
  float *fixed = (float*)tile, *dynamic = (float*)shared;
  const int i = threadIdx.x;
  int from = i, to = i;
#ifdef BUG_GLOBAL_READ
  from = i + 1;
#elif defined(BUG_BEFORE)
  from = i - 1;
#elif defined(BUG_GLOBAL_WRITE)
  to = i + 1;
#endif
  const float value = x[from];
#ifdef BUG_SHARED
  fixed[i + 1] = value;
#endif
  fixed[i] = value;
#ifdef BUG_DYNAMIC_SHARED
  dynamic[i + 1] = value;
#endif
  dynamic[i] = value;
  __syncthreads();
#ifdef BUG_MISALIGNED
  if (i < 8) dynamic[i] = ((const float4*)(x + 2))[i].x;
#elif defined(BUG_MISALIGNED_COPY)
  if (i == 0) cp_async16(tile, x + 2, true);
#elif defined(BUG_COPY)
  if (i == 0) cp_async16_of(tile, x + 64, 4);
#elif defined(BUG_COPY_OF_TOO_MUCH)
  if (i == 0) cp_async16_of(tile, x, 20);
#endif
  y[to] = (i & 1 ? fixed : dynamic)[i ^ 1];
}
