// d = a*b for one tile, 16 x 8: ldmatrix and one mma.sync of each type, fragments as PTX has them.
// a (16, DEPTH) and b are of 2 bytes an entry, or of 4 for TF32; TRANSPOSED: b (DEPTH, 8), else
// (8, DEPTH).
#include "tensor_cores.cuh"

constexpr int DEPTH = 32 / sizeof(ELEMENT);

extern "C" __global__ void __launch_bounds__(32)
fragments(const ELEMENT* a, const ELEMENT* b, float* d) {
  SHARED(uint4, rows_a, [16][2]);
  SHARED(uint4, rows_b, [16]);
  const int lane = threadIdx.x;
  cp_async16(&rows_a[lane / 2][lane % 2], a + lane * (DEPTH / 2), true);
  if (lane < 16) cp_async16(&rows_b[lane], b + lane * (DEPTH / 2), true);
  cp_async_commit();
  cp_async_wait<0>();
  __syncthreads();
  unsigned fa[4], fb[4];
  ldmatrix_x4(fa, &rows_a[lane & 15][lane >> 4]);
#if TRANSPOSED
  ldmatrix_x4_trans(fb, &rows_b[lane & 15]);
#else
  ldmatrix_x4(fb, &rows_b[(lane & 7) * 2 + (lane >> 3 & 1)]);
#endif
  float sums[4] = {};
#if TF32
  for (int i = 0; i < 4; ++i) fa[i] = nearest_tf32(fa[i]), fb[i] = nearest_tf32(fb[i]);
#endif
  MMA(sums, fa, fb[0], fb[1]);
  for (int e = 0; e < 4; ++e)
    d[((lane >> 2) + (e >> 1) * 8) * 8 + (lane & 3) * 2 + (e & 1)] = sums[e];
}
