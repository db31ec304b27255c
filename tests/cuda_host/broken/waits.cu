// y = x from the other warp: threads that do not all come to where they are waited for.
#include "ptx80.cuh"

extern "C" __global__ void __launch_bounds__(64)
waits(const float* x, float* y, int n) {
  SHARED(float, tile, [64]);
  const int i = threadIdx.x;
  tile[i] = x[i];
#ifdef BUG_RETURN
  if (i == 40) return;
#endif
#ifdef BUG_BRANCH
  if (i < 40) __syncthreads();
  else
#endif
  __syncthreads();
#ifdef BUG_SOME_LANES
  if (i % 32 == 7) return;
#endif
#ifdef BUG_TWO_PLACES
  float shuffled;
  if (i % 2) shuffled = __shfl_xor_sync(0xffffffffu, x[i], 1);
  else
    shuffled = __shfl_xor_sync(0xffffffffu, x[i], 1);
#else
  const float shuffled = __shfl_xor_sync(0xffffffffu, x[i], 1);
#endif
  y[i] = tile[i ^ 32] + shuffled;
}
