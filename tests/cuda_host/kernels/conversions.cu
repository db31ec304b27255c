// Every conversion of ptx80.cuh and tensor_cores.cuh, of the same bits.
#include "tensor_cores.cuh"

extern "C" __global__ void __launch_bounds__(128)
conversions(const unsigned* bits, unsigned short* half, unsigned short* bfloat, unsigned* tf32,
            float* from_half, float* from_bfloat, int count) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= count) return;
  const float x = __uint_as_float(bits[i]);
  half[i] = float_to_half(x);
  bfloat[i] = float_to_bfloat(x);
  tf32[i] = x - x == 0 ? nearest_tf32(bits[i]) & 0xffffe000 : nearest_tf32(bits[i]);
  from_half[i] = half_to_float((unsigned short)bits[i]);
  from_bfloat[i] = bfloat_to_float((unsigned short)bits[i]);
}
