// The shuffles, and a sum over a warp; one struct by value.
#include "ptx80.cuh"

struct Offsets { int flip, down; };

extern "C" __global__ void __launch_bounds__(64)
lanes(const float* x, float* flipped, float* moved, double* sums, int* flag, Offsets offsets) {
  const int i = threadIdx.x;
  flipped[i] = __shfl_xor_sync(0xffffffffu, x[i], offsets.flip);
  moved[i] = __shfl_down_sync(0xffffffffu, x[i], offsets.down);
  double sum = x[i];
  for (int lanes = 16; lanes; lanes >>= 1) sum += __shfl_xor_sync(0xffffffffu, sum, lanes);
  if (i % 32 == 0) sums[i / 32] = sum;
  if (flag && x[i] < 0) raise_flag(flag);
}
