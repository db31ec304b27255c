// y = x from the other warp, then from a neighbour, and their sum once: what lacks an order.
#include "ptx80.cuh"

extern "C" __global__ void __launch_bounds__(64)
order(const float* x, float* y, int n) {
  SHARED(float, tile, [64]);
  const int i = threadIdx.x;
  tile[i] = x[i];
#ifndef BUG_NO_BARRIER
  __syncthreads();
#endif
  const float other = tile[i ^ 32];
#ifndef BUG_NO_SECOND_BARRIER
  __syncthreads();
#endif
  tile[i] = other + 1;
#ifndef BUG_NO_SYNCWARP
  __syncwarp();
#endif
  const float neighbour = tile[i ^ 1];
#ifdef BUG_BLOCKS
  y[i] = neighbour + blockIdx.x;  // of two blocks, the same entries
#else
  if (blockIdx.x == 0) y[i] = neighbour;
#endif
}
