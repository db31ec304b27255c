// The tiled kernel gradient on the tensor cores (mma.sync), sums in float32: float16 and bfloat16,
// whose fragments ldmatrix transposes on the way, and float32 rounded to TF32, read entry by entry.
#include "gradient_tile.cuh"
#include "tensor_cores.cuh"

constexpr int WARPS_N = TILE / (8 * COLUMNS), BLOCKS_M = ROWS, BLOCKS_N = COLUMNS;
constexpr int DEPTH = 32 / sizeof(ELEMENT);  // pixels an instruction sums over
static_assert(BLOCKS_N % 2 == 0, "two blocks of columns are read at a time");

struct MmaSums {
  float sums[BLOCKS_M][BLOCKS_N][4];
  int lane, row, column;  // of the warp's tile: 16*BLOCKS_M rows, 8*BLOCKS_N columns

  DEV MmaSums() : sums{} {
    const int warp = threadIdx.x >> 5;
    lane = threadIdx.x & 31;
    row = warp / WARPS_N * (16 * BLOCKS_M);
    column = warp % WARPS_N * (8 * BLOCKS_N);
  }

  DEV void add(const unsigned char* stage) {
#pragma unroll
    for (int pixel = 0; pixel < PIXELS; pixel += DEPTH) add(stage, pixel, ELEMENT());
  }
  template <class HALF> DEV void add(const unsigned char* stage, int pixel, HALF kind) {
    unsigned a[BLOCKS_M][4], b[BLOCKS_N / 2][4];
    const int within = lane & 7, matrix = lane >> 3;
#pragma unroll
    for (int i = 0; i < BLOCKS_M; ++i)  // matrices: channels, then pixels
      ldmatrix_x4_trans(a[i], stage + swizzled(pixel + (matrix >> 1) * 8 + within,
                                               row / 8 + i * 2 + (matrix & 1)));
#pragma unroll
    for (int j = 0; j < BLOCKS_N / 2; ++j)  // matrices: pixels, then filters
      ldmatrix_x4_trans(b[j], stage + SIDE_BYTES +
                                  swizzled(pixel + (matrix & 1) * 8 + within,
                                           column / 8 + j * 2 + (matrix >> 1)));
#pragma unroll
    for (int i = 0; i < BLOCKS_M; ++i)
#pragma unroll
      for (int j = 0; j < BLOCKS_N; ++j)
        multiply(sums[i][j], a[i], b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1], kind);
  }
  DEV void add(const unsigned char* stage, int pixel, f32 kind) {
    unsigned a[BLOCKS_M][4], b[BLOCKS_N][2];
    const int g = lane >> 2, t = lane & 3;
#pragma unroll
    for (int i = 0; i < BLOCKS_M; ++i)
#pragma unroll
      for (int e = 0; e < 4; ++e)
        a[i][e] = entry(stage, pixel + t + e / 2 * 4, row + i * 16 + g + e % 2 * 8);
#pragma unroll
    for (int j = 0; j < BLOCKS_N; ++j)
#pragma unroll
      for (int e = 0; e < 2; ++e)
        b[j][e] = entry(stage + SIDE_BYTES, pixel + t + e * 4, column + j * 8 + g);
#pragma unroll
    for (int i = 0; i < BLOCKS_M; ++i)
#pragma unroll
      for (int j = 0; j < BLOCKS_N; ++j) multiply(sums[i][j], a[i], b[j][0], b[j][1], kind);
  }
  DEV static unsigned entry(const unsigned char* side, int pixel, int channel) {
    return nearest_tf32(*(const unsigned*)(side + swizzled(pixel, channel / 4) + channel % 4 * 4));
  }

  template <class F> DEV void each(const F& f) const {
#pragma unroll
    for (int i = 0; i < BLOCKS_M; ++i)
#pragma unroll
      for (int j = 0; j < BLOCKS_N; ++j)
#pragma unroll
        for (int e = 0; e < 4; ++e)
          f(row + i * 16 + e / 2 * 8 + (lane >> 2), column + j * 8 + (lane & 3) * 2 + e % 2,
            sums[i][j][e]);
  }
};

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
gradient_mma(GRADIENT_TILE_PARAMETERS) {
  gradient_tile<MmaSums>(GRADIENT_TILE_ARGUMENTS);
}
