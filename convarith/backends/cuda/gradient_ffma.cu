// The tiled kernel gradient in true float32: ROWS x COLUMNS sums a thread, four channels of x and
// four filters read with 16 bytes each. Against gradient_plain it reads an entry once for a tile of
// results instead of once for each.
#include "gradient_tile.cuh"

constexpr int WARPS_N = TILE / (8 * COLUMNS);  // a warp's lanes are 4 x 8, four sums a lane

struct FmaSums {
  float sums[ROWS][COLUMNS];
  int row, column;  // of the first four; the next lie 16 rows or 32 columns on

  DEV FmaSums() : sums{} {
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    row = warp / WARPS_N * (4 * ROWS) + (lane >> 3) * 4;
    column = warp % WARPS_N * (8 * COLUMNS) + (lane & 7) * 4;
  }
  DEV void add(const unsigned char* stage) {
#pragma unroll 4
    for (int pixel = 0; pixel < PIXELS; ++pixel) {
      alignas(16) float a[ROWS], b[COLUMNS];
#pragma unroll
      for (int i = 0; i < ROWS; i += 4)
        *(float4*)(a + i) = *(const float4*)(stage + swizzled(pixel, row / 4 + i));
#pragma unroll
      for (int j = 0; j < COLUMNS; j += 4)
        *(float4*)(b + j) =
            *(const float4*)(stage + SIDE_BYTES + swizzled(pixel, column / 4 + 2 * j));
#pragma unroll
      for (int i = 0; i < ROWS; ++i)
#pragma unroll
        for (int j = 0; j < COLUMNS; ++j) sums[i][j] = __fmaf_rn(a[i], b[j], sums[i][j]);
    }
  }
  template <class F> DEV void each(const F& f) const {
#pragma unroll
    for (int i = 0; i < ROWS; ++i)
#pragma unroll
      for (int j = 0; j < COLUMNS; ++j)
        f(row + i / 4 * 16 + i % 4, column + j / 4 * 32 + j % 4, sums[i][j]);
  }
};

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
gradient_ffma(GRADIENT_TILE_PARAMETERS) {
  gradient_tile<FmaSums>(GRADIENT_TILE_ARGUMENTS);
}
