// Copies an array of four axes, the last of them padded with zeros to whole chunks of 16 bytes: the
// kernel as (result channel, tap, source channel), or a source whose channels are no whole chunks.
#include "tensor_cores.cuh"

// to (a, b, c, padded); from has any strides, in elements. Where `careful` is given, it is raised
// if an entry is not finite; a null `to` only looks for that. ROUND: to TF32.
struct Layout {
  int b, c, padded, length;  // of the last three axes of `to`, and of the last of `from`
  long long of_a, of_b, of_c, of_d;
};

extern "C" __global__ void __launch_bounds__(256)
lay_out(const ELEMENT* __restrict__ from, ELEMENT* __restrict__ to, int* careful, Layout layout,
        long long entries) {
  const long long step = (long long)gridDim.x * blockDim.x;
  bool all_finite = true;
  for (long long at = blockIdx.x * (long long)blockDim.x + threadIdx.x; at < entries; at += step) {
    const int d = (int)(at % layout.padded);
    long long rest = at / layout.padded;
    const int c = (int)(rest % layout.c);
    rest /= layout.c;
    const int b = (int)(rest % layout.b);
    const long long a = rest / layout.b;
    ELEMENT value = ELEMENT();
    if (d < layout.length)
      value = from[a * layout.of_a + b * layout.of_b + c * layout.of_c + d * layout.of_d];
    all_finite = all_finite && finite(value);
#if ROUND
    if (finite(value)) value = __uint_as_float(nearest_tf32(__float_as_uint(value)) & 0xffffe000);
#endif
    if (to) to[at] = value;
  }
  if (careful && !all_finite) raise_flag(careful);
}
