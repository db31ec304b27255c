// The tiled map on the tensor cores (mma.sync), sums in float32: float16, bfloat16, and float32
// rounded to TF32. A step is 32 bytes of every row of a stage; fragments of all three types lie
// alike in them, so only the instruction differs. Against map_ffma: up to 8 (TF32) and 16 times the
// products a cycle.
#include "map_tile.cuh"
#include "tensor_cores.cuh"

constexpr int WARPS_N = TILE_N / (8 * COLUMNS), BLOCKS_M = ROWS, BLOCKS_N = COLUMNS;
static_assert(BLOCKS_N % 2 == 0, "two blocks of columns are read at a time");

struct MmaSums {
  float sums[BLOCKS_M][BLOCKS_N][4];
#if SEGMENTS == 1
  float totals[BLOCKS_M][BLOCKS_N][4] = {};
#endif
  int lane, row, column;  // of the warp's tile: 16*BLOCKS_M rows, 8*BLOCKS_N columns
  int a_at, b_at;         // where this lane's rows of the first step lie in a stage

  DEV MmaSums() : sums{} {
    const int warp = threadIdx.x >> 5;
    lane = threadIdx.x & 31;
    row = warp / WARPS_N * (16 * BLOCKS_M);
    column = warp % WARPS_N * (8 * BLOCKS_N);
    a_at = swizzled(row + (lane & 15), lane >> 4);
    b_at = swizzled(TILE_M + column + (lane & 7) + ((lane >> 4) << 3), (lane >> 3) & 1);
  }
  DEV void begin(const unsigned char* stage) { add<0, 1>(stage); }
  DEV void end(const unsigned char* stage) { add<1, ROW_CHUNKS / 2>(stage); }
  template <int FIRST, int LAST> DEV void add(const unsigned char* stage) {
#pragma unroll
    for (int step = FIRST; step < LAST; ++step) {
      unsigned a[BLOCKS_M][4], b[BLOCKS_N / 2][4];
      // A step is two chunks: the bits of its number are beside those of the row in the swizzle.
      const unsigned char *a_rows = stage + (a_at ^ step << 5), *b_rows = stage + (b_at ^ step << 5);
#pragma unroll
      for (int i = 0; i < BLOCKS_M; ++i) ldmatrix_x4(a[i], a_rows + i * 16 * ROW_BYTES);
#pragma unroll
      for (int j = 0; j < BLOCKS_N / 2; ++j) ldmatrix_x4(b[j], b_rows + j * 16 * ROW_BYTES);
      if (sizeof(ELEMENT) == 4) {  // the weights were rounded when they were packed
#pragma unroll
        for (int i = 0; i < BLOCKS_M; ++i)
#pragma unroll
          for (int e = 0; e < 4; ++e) a[i][e] = nearest_tf32(a[i][e]);
      }
#pragma unroll
      for (int i = 0; i < BLOCKS_M; ++i)
#pragma unroll
        for (int j = 0; j < BLOCKS_N; ++j)
          multiply(sums[i][j], a[i], b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1], ELEMENT());
    }
  }
#if SEGMENTS == 1
  DEV void end_segment() {
#pragma unroll
    for (int i = 0; i < BLOCKS_M; ++i)
#pragma unroll
      for (int j = 0; j < BLOCKS_N; ++j)
#pragma unroll
        for (int e = 0; e < 4; ++e) totals[i][j][e] += sums[i][j][e], sums[i][j][e] = 0;
  }
#endif
  DEV void store(float* tile) const {
#if SEGMENTS == 1
    const auto& sums = totals;
#endif
#pragma unroll
    for (int i = 0; i < BLOCKS_M; ++i)
#pragma unroll
      for (int j = 0; j < BLOCKS_N; ++j)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const int at = (row + i * 16 + half * 8 + (lane >> 2)) * PITCH + column + j * 8 +
                         (lane & 3) * 2;
          *(float2*)(tile + at) = make_float2(sums[i][j][2 * half], sums[i][j][2 * half + 1]);
        }
  }
};

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) map_mma(MAP_TILE_PARAMETERS) {
  map_tile<MmaSums>(MAP_TILE_ARGUMENTS);
}
