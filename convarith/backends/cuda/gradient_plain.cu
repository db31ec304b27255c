// The kernel gradient, one entry a thread: the readable specification of the tiled ones, and what
// runs for float64, integers, and sizes that those do not take. The sum runs over the batch and the
// positions in C order.
#include "element.cuh"
#include "walk.cuh"

// x (n, *spatial, groups*channels), g (n, *spatial', groups*filters), result (*k, channels,
// groups*filters).
extern "C" __global__ void __launch_bounds__(256)
gradient_plain(const ELEMENT* __restrict__ x, const ELEMENT* __restrict__ g,
               ELEMENT* __restrict__ result, Gradient of, long long batch,
               unsigned long long entries) {
  const u64 at = blockIdx.x * (u64)blockDim.x + threadIdx.x;
  if (at >= entries) return;
  const Axis &a0 = of.axes[0], &a1 = of.axes[1], &a2 = of.axes[2];
  const unsigned width = of.groups * of.filters;
  u64 rest = at / width;
  const int filter = (int)(at - rest * width), group = filter / of.filters;
  const int c = (int)(rest % (unsigned)of.channels);
  rest /= (unsigned)of.channels;
  const Index k2 = (Index)(rest % (u64)a2.taps);
  rest /= (u64)a2.taps;
  const Index k1 = (Index)(rest % (u64)a1.taps), k0 = (Index)(rest / (u64)a1.taps);
  const int pitch = of.groups * of.channels;
  Computed<ELEMENT>::type sum = 0;
  for (long long image = 0; image < batch; ++image)
    for (Index o0 = 0; o0 < a0.result; ++o0) {
      const Index i0 = o0 * a0.stride + k0 * a0.dilation - a0.low;
      if (i0 < 0 || i0 >= a0.source) continue;
      for (Index o1 = 0; o1 < a1.result; ++o1) {
        const Index i1 = o1 * a1.stride + k1 * a1.dilation - a1.low;
        if (i1 < 0 || i1 >= a1.source) continue;
        const ELEMENT* row =
            x + (((u64)image * a0.source + i0) * a1.source + i1) * a2.source * pitch +
            group * of.channels + c;
        const ELEMENT* d =
            g + (((u64)image * a0.result + o0) * a1.result + o1) * a2.result * width + filter;
        for (Index o2 = 0; o2 < a2.result; ++o2) {
          const Index i2 = o2 * a2.stride + k2 * a2.dilation - a2.low;
          if (i2 >= 0 && i2 < a2.source)
            sum = multiply_add(wide(row[(u64)i2 * pitch]), wide(d[(u64)o2 * width]), sum);
        }
      }
    }
  result[at] = narrow<ELEMENT>(sum);
}
