// The tiled map for float32 in true float32: each thread has ROWS x COLUMNS sums, and reads four
// source channels of each of its rows and columns with one 16-byte load. Against map_plain it reads
// a source entry once for TILE_N results instead of once for each.
#include "map_tile.cuh"

constexpr int WARPS_N = TILE_N / (8 * COLUMNS);  // a warp's lanes are 4 rows by 8 columns

struct FmaSums {
  float sums[ROWS][COLUMNS];
#if SEGMENTS == 1
  float totals[ROWS][COLUMNS] = {};
#endif
  int row, column;  // of the first sum; the others lie 4 rows and 8 columns apart

  DEV FmaSums() : sums{} {
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    row = warp / WARPS_N * (4 * ROWS) + (lane >> 3);
    column = warp % WARPS_N * (8 * COLUMNS) + (lane & 7);
  }
  // Half of the columns at a time, or the loads would take more registers than two blocks have.
  DEV void begin(const unsigned char* stage) {}
  DEV void end(const unsigned char* stage) {
#pragma unroll 1
    for (int chunk = 0; chunk < ROW_CHUNKS; ++chunk) {
#pragma unroll
      for (int half = 0; half < COLUMNS; half += 4) {
        float4 b[4];
#pragma unroll
        for (int j = 0; j < 4; ++j)
          b[j] = *(const float4*)(stage + swizzled(TILE_M + column + 8 * (half + j), chunk));
#pragma unroll
        for (int i = 0; i < ROWS; ++i) {
          const float4 a = *(const float4*)(stage + swizzled(row + 4 * i, chunk));
          float* sum = sums[i] + half;
#pragma unroll
          for (int j = 0; j < 4; ++j) sum[j] = __fmaf_rn(a.x, b[j].x, sum[j]);
#pragma unroll
          for (int j = 0; j < 4; ++j) sum[j] = __fmaf_rn(a.y, b[j].y, sum[j]);
#pragma unroll
          for (int j = 0; j < 4; ++j) sum[j] = __fmaf_rn(a.z, b[j].z, sum[j]);
#pragma unroll
          for (int j = 0; j < 4; ++j) sum[j] = __fmaf_rn(a.w, b[j].w, sum[j]);
        }
      }
    }
  }
#if SEGMENTS == 1
  DEV void end_segment() {
#pragma unroll
    for (int i = 0; i < ROWS; ++i)
#pragma unroll
      for (int j = 0; j < COLUMNS; ++j) totals[i][j] += sums[i][j], sums[i][j] = 0;
  }
#endif
  DEV void store(float* tile) const {
#if SEGMENTS == 1
    const auto& sums = totals;
#endif
#pragma unroll
    for (int i = 0; i < ROWS; ++i)
#pragma unroll
      for (int j = 0; j < COLUMNS; ++j)
        tile[(row + 4 * i) * PITCH + column + 8 * j] = sums[i][j];
  }
};

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) map_ffma(MAP_TILE_PARAMETERS) {
  map_tile<FmaSums>(MAP_TILE_ARGUMENTS);
}
