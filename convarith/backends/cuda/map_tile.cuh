// The frame of the tiled map kernels: a product of one geometry as one matrix product a group and
// phase, without im2col. Rows of A are results (pixels of the batch), rows of B result channels, and
// both are long in (tap, source channel): 16-byte chunks of a few channels of one tap, copied
// asynchronously into STAGES stages of shared memory, eight chunks a stage.
//
// A kernel defines ELEMENT, PART, RESIDUAL, RANK (axes that are more than 1 long), TILE_M, TILE_N,
// THREADS and STAGES (two or more), and what a stage is multiplied by. The chunks of every sum come in
// the same order whatever the tile. Long sums are cut into segments of SEGMENT stages, whose sums are
// added in order: SEGMENTS 0, there is one; 1, one block adds them up; 2, each has a block of its own, which writes
// to `parts`, and sum_parts.cu adds them: the same bits, for results too few to fill a GPU.
#pragma once
#include "finish.cuh"
#include "walk.cuh"

constexpr int CHUNK = 16 / sizeof(ELEMENT);                    // channels
constexpr int ROW_CHUNKS = 8, ROW_BYTES = 16 * ROW_CHUNKS;     // of a row, a stage
constexpr int STAGE_BYTES = (TILE_M + TILE_N) * ROW_BYTES;
constexpr int ROWS_A_PASS = THREADS / ROW_CHUNKS;              // rows that all threads copy at a time
constexpr int PASSES_A = TILE_M / ROWS_A_PASS, PASSES_B = TILE_N / ROWS_A_PASS;
constexpr int PITCH = TILE_N + 8;                              // of the finished tile, in floats
static_assert(TILE_M % ROWS_A_PASS == 0 && TILE_N % ROWS_A_PASS == 0, "whole passes");
static_assert(ROWS_A_PASS % 8 == 0 && PASSES_A <= 16 && PASSES_B <= 16, "as the loader has them");

// Where chunk `chunk` of row `row` lies in a stage: eight rows of one chunk meet all 32 banks.
DEV int swizzled(int row, int chunk) { return row * ROW_BYTES + ((chunk ^ (row & 7)) << 4); }

// The tile of this block; in shared memory, where it costs no thread a register.
struct Tile {
  Walk w[3];
  int segment;        // the first, where each has its own block
  int pixels;         // results of this phase, of the whole batch
  int m0, n0, group;  // its first pixel, its first channel of the group, and the group
};
// One of its rows: the source of tap 0, perhaps outside, as a pixel and along each axis.
struct alignas(16) Row {
  int source, s[3];
};

// blockIdx: x is the tile of results, y those of channels, groups and segments, z the phase. The
// threads of one warp find an axis each: divisions are slow.
DEV void find_tile(const Map& map, int batch, int tiles_n, Tile& t) {
  const int axis = threadIdx.x;
  if (axis < 3) {
    const Axis& a = map.axes[axis];
    int phase = blockIdx.z;
    if (axis < 2) phase /= map.axes[2].phases;
    if (axis < 1) phase /= map.axes[1].phases;
    t.w[axis] = walk(a, phase % a.phases, map.transposed);
  }
  __syncthreads();
  if (axis == 0) {
    int at = blockIdx.y / tiles_n;
    t.m0 = blockIdx.x * TILE_M;
    t.n0 = (blockIdx.y - at * tiles_n) * TILE_N;
    t.group = at % map.groups;
    t.segment = at / map.groups;
    t.pixels = batch * t.w[0].count * t.w[1].count * t.w[2].count;
  }
  __syncthreads();
}

// Finds a row, and returns the pixel of its result.
DEV int find_row(const Map& map, const Tile& t, int m, Row& row) {
  if (m >= t.pixels) {
    row = {0, {-0x40000000, -0x40000000, -0x40000000}};  // outside for every tap
    return 0;
  }
  int j[3];
#pragma unroll
  for (int axis = 2; axis >= 0; --axis) {
    const unsigned count = t.w[axis].count, rest = m;
    m = axis < 3 - RANK ? m : rest / count;
    j[axis] = axis < 3 - RANK ? 0 : rest - m * count;
  }
  int result = m;  // the image
  row.source = m;
#pragma unroll
  for (int axis = 0; axis < 3; ++axis) {
    const Walk& w = t.w[axis];
    row.s[axis] = w.origin + w.advance * j[axis];
    row.source = row.source * map.axes[axis].source + row.s[axis];
    result = result * map.axes[axis].result + w.start + w.step * j[axis];
  }
  return result;
}

// The copies of one thread: chunk threadIdx.x % ROW_CHUNKS of every stage, in a few of its rows. Where
// they are read is worked out only when the chunk comes to another tap, for these instructions are
// issued beside the products'.
struct Loader {
  const char *sources, *weights;  // of the group: its first channel; its weights of the thread's rows
  const char *a, *b;              // the next chunk, of pixel 0 and of the thread's first row of B
  unsigned pixels[PASSES_A];      // of its rows of A, in chunks after `a`; see MOST_CHUNKS
  unsigned inside;                // bit i: row i of A; bit 16 + i: row i of B
  int t[RANK], of_tap;            // the tap and, among its chunks, the one that is next
  int row, chunk;

  DEV Loader(const Map& map, const Tile& tile, const Row* rows, const ELEMENT* all_sources,
             const ELEMENT* all_weights)
      : t{}, row(threadIdx.x / ROW_CHUNKS), chunk(threadIdx.x % ROW_CHUNKS) {
    sources = (const char*)(all_sources + (long long)tile.group * map.padded_channels);
    weights = (const char*)(all_weights +
                            ((long long)tile.group * map.result_channels + tile.n0 + row) *
                                map.row);
    of_tap = tile.segment * (ROW_CHUNKS * SEGMENT) + chunk;
    next_tap(map, tile);
    locate(map, tile, rows);
  }

  DEV bool some(const Tile& tile) const { return t[0] < tile.w[3 - RANK].taps; }

  DEV void next_tap(const Map& map, const Tile& tile) {
    while (of_tap >= map.chunks && some(tile)) {
      of_tap -= map.chunks;
      ++t[RANK - 1];
#pragma unroll
      for (int axis = RANK - 1; axis > 0; --axis)
        if (t[axis] == tile.w[3 - RANK + axis].taps) t[axis] = 0, ++t[axis - 1];
    }
  }

  DEV void locate(const Map& map, const Tile& tile, const Row* rows) {
    int away = 0, tap = 0, turned[RANK];
#pragma unroll
    for (int axis = 0; axis < RANK; ++axis) {
      const Walk& w = tile.w[3 - RANK + axis];
      const Axis& along = map.axes[3 - RANK + axis];
      turned[axis] = w.turn * t[axis];
      away = away * along.source + turned[axis];
      tap = tap * along.taps + w.first + w.every * t[axis];
    }
    a = sources + of_tap * 16;
    b = weights + ((long long)tap * map.chunks + of_tap) * 16;
    inside = 0;
    if (!some(tile)) return;
    const unsigned pitch = map.groups * map.chunks;
#pragma unroll
    for (int i = 0; i < PASSES_A; ++i) {
      const Row r = rows[row + i * ROWS_A_PASS];
      bool ok = true;
#pragma unroll
      for (int axis = 3 - RANK; axis < 3; ++axis)
        ok = ok && (unsigned)(r.s[axis] + turned[axis - 3 + RANK]) <
                       (unsigned)map.axes[axis].source;
      pixels[i] = ok ? (unsigned)(r.source + away) * pitch : 0;
      inside |= (unsigned)ok << i;
    }
#pragma unroll
    for (int i = 0; i < PASSES_B; ++i)
      inside |= (unsigned)(tile.n0 + row + i * ROWS_A_PASS < map.result_channels) << (16 + i);
  }

  DEV void copy(const Map& map, const Tile& tile, const Row* rows, unsigned char* stage) {
    unsigned char* to = stage + swizzled(row, chunk);  // a pass is whole eights of rows
    const long long next_b = ROWS_A_PASS * map.row * (int)sizeof(ELEMENT);
#pragma unroll
    for (int i = 0; i < PASSES_A; ++i)
      cp_async16(to + i * ROWS_A_PASS * ROW_BYTES, a + pixels[i] * 16ull, inside >> i & 1);
#pragma unroll
    for (int i = 0; i < PASSES_B; ++i)
      cp_async16(to + (TILE_M + i * ROWS_A_PASS) * ROW_BYTES, b + i * next_b,
                 inside >> (16 + i) & 1);
    of_tap += ROW_CHUNKS, a += ROW_BYTES, b += ROW_BYTES;
    if (of_tap >= map.chunks && some(tile)) {
      next_tap(map, tile);
      locate(map, tile, rows);
    }
  }
};

// The sum of one result as the specification has it: no tap in the padding is multiplied.
DEV float sum_plainly(const Map& map, const Tile& tile, const Row& row, const ELEMENT* sources,
                      const ELEMENT* weights, int n) {
  const Walk *w = tile.w;
  const Axis *a = map.axes;
  const int pitch = map.groups * map.padded_channels;
  weights += (long long)(tile.group * map.result_channels + n) * map.row;
  float sum = 0;
  for (int t0 = 0; t0 < w[0].taps; ++t0)
    for (int t1 = 0; t1 < w[1].taps; ++t1)
      for (int t2 = 0; t2 < w[2].taps; ++t2) {
        const int d0 = w[0].turn * t0, d1 = w[1].turn * t1, d2 = w[2].turn * t2;
        if ((unsigned)(row.s[0] + d0) >= (unsigned)a[0].source ||
            (unsigned)(row.s[1] + d1) >= (unsigned)a[1].source ||
            (unsigned)(row.s[2] + d2) >= (unsigned)a[2].source)
          continue;
        const int away = (d0 * a[1].source + d1) * a[2].source + d2;
        const int tap = ((w[0].first + w[0].every * t0) * a[1].taps + w[1].first +
                         w[1].every * t1) * a[2].taps + w[2].first + w[2].every * t2;
        const ELEMENT* x = sources + (long long)(row.source + away) * pitch +
                           tile.group * map.padded_channels;
        const ELEMENT* k = weights + (long long)tap * map.padded_channels;
        for (int c = 0; c < map.source_channels; ++c)
          sum = multiply_add(wide(x[c]), wide(k[c]), sum);
      }
  return sum;
}

// Finishes a tile of sums in shared memory and writes it: a thread has the same EACH channels of a
// few rows, and writes their results at once where a group's are a multiple of EACH and begin at one.
constexpr int EACH = 16 / sizeof(ELEMENT);
DEV void store_tile(const Map& map, const Tile& t, const int* pixels, const float* sums,
                    ELEMENT* result, const Finish& finish, float* parts, long long entries) {
  constexpr int ACROSS = TILE_N / EACH;
  static_assert(THREADS % ACROSS == 0, "a thread keeps its channels");
  const int n = threadIdx.x % ACROSS * EACH;
  const int some = min(EACH, map.result_channels - t.n0 - n), last = min(TILE_M, t.pixels - t.m0);
  if (some <= 0) return;
  const int first = t.group * map.result_channels + t.n0 + n;
  const int pitch = map.groups * map.result_channels;
#if SEGMENTS == 2
  parts += t.segment * entries;
  const bool whole = map.result_channels % 4 == 0;
#else
  const bool whole =
      map.result_channels % EACH == 0 && (unsigned long long)result % sizeof(uint4) == 0;
  const bool plain = finish.none();
  const FinishSeveral<EACH> several(finish, first, whole);
#endif
  for (int row = threadIdx.x / ACROSS; row < last; row += THREADS / ACROSS) {
    alignas(16) float sum[EACH];
#pragma unroll
    for (int e = 0; e < EACH; e += 4)
      *(float4*)(sum + e) = *(const float4*)(sums + row * PITCH + n + e);
    const long long at = (long long)pixels[row] * pitch + first;
#if SEGMENTS == 2
    if (whole) {
#pragma unroll
      for (int e = 0; e < EACH; e += 4)
        if (e < some) *(float4*)(parts + at + e) = *(const float4*)(sum + e);
    } else {
#pragma unroll
      for (int e = 0; e < EACH; ++e)
        if (e < some) parts[at + e] = sum[e];
    }
#else
    if (whole) {
      Several<ELEMENT, EACH> out;
      if (plain) {
#pragma unroll
        for (int e = 0; e < EACH; ++e) out.of[e] = narrow<ELEMENT>(sum[e]);
      } else {
        out = several(sum, at);
      }
      *(Several<ELEMENT, EACH>*)(result + at) = out;
    } else {
#pragma unroll
      for (int e = 0; e < EACH; ++e)
        if (e < some) result[at + e] = finish(sum[e], first + e, at + e);
    }
#endif
  }
}

// All of a kernel but the product of a stage: `Sums` holds a thread's sums, adds the products of a
// stage's first chunks with begin(stage) and the others' with end(stage), and lays the sums out with
// store(tile of PITCH floats a row).
template <class Sums>
DEV void map_tile(const ELEMENT* source, const ELEMENT* weights, ELEMENT* result, const PART* scale,
                  const PART* bias, const RESIDUAL* residual, int activation, const int* careful,
                  const Map& map, int batch, int tiles_n, float* parts, long long entries) {
  DYN_SMEM(shared);
  SHARED(Tile, tile, );
  SHARED(Row, rows, [TILE_M]);
  SHARED(int, pixels, [TILE_M]);
  const Finish finish = {scale, bias, residual, activation};
  const bool carefully = careful && load_flag(careful);
  find_tile(map, batch, tiles_n, tile);
  if (tile.m0 >= tile.pixels) return;  // the phases differ in size
  for (int m = threadIdx.x; m < TILE_M; m += THREADS)
    pixels[m] = find_row(map, tile, tile.m0 + m, rows[m]);
  __syncthreads();
  if (carefully) {  // 0*inf, of zeros that stand for the padding, is no 0
    float* sums = (float*)shared;
    for (int at = threadIdx.x; at < TILE_M * TILE_N; at += THREADS) {
      const int m = at / TILE_N, n = at % TILE_N;
      if (tile.segment == 0 && tile.m0 + m < tile.pixels && tile.n0 + n < map.result_channels)
        sums[m * PITCH + n] = sum_plainly(map, tile, rows[m], source, weights, tile.n0 + n);
      else
        sums[m * PITCH + n] = 0;  // outside, or what the first segment has summed
    }
    __syncthreads();
    store_tile(map, tile, pixels, sums, result, finish, parts, entries);
    return;
  }
  int stages = (tile.w[0].taps * tile.w[1].taps * tile.w[2].taps * map.chunks + ROW_CHUNKS - 1) /
               ROW_CHUNKS;
#if SEGMENTS == 2
  stages = min(SEGMENT, stages - tile.segment * SEGMENT);
#endif
  Loader loader(map, tile, rows, source, weights);
  Sums sums;
#pragma unroll
  for (int s = 0; s < STAGES - 1; ++s) {
    if (s < stages) loader.copy(map, tile, rows, shared + s * STAGE_BYTES);
    cp_async_commit();
  }
  unsigned char *here = shared, *next = shared + (STAGES - 1) * STAGE_BYTES;
  for (int s = 0; s < stages; ++s) {
    cp_async_wait<STAGES - 2>();
    __syncthreads();  // the stage is there for all, and the one before has been read by all
    sums.begin(here);
    if (s + STAGES - 1 < stages) loader.copy(map, tile, rows, next);  // beside the first products
    cp_async_commit();
    sums.end(here);
    next = here;
    here = here == shared + (STAGES - 1) * STAGE_BYTES ? shared : here + STAGE_BYTES;
#if SEGMENTS == 1
    if ((s + 1) % SEGMENT == 0) sums.end_segment();
#endif
  }
#if SEGMENTS == 1
  sums.end_segment();
#endif
  cp_async_wait<0>();
  __syncthreads();  // the stages give way to the tile
  sums.store((float*)shared);
  __syncthreads();
  store_tile(map, tile, pixels, (const float*)shared, result, finish, parts, entries);
}

#define MAP_TILE_PARAMETERS                                                                      \
  const ELEMENT *__restrict__ source, const ELEMENT *__restrict__ weights,                       \
      ELEMENT *__restrict__ result, const PART *__restrict__ scale, const PART *__restrict__ bias, \
      const RESIDUAL *residual, int activation, const int *careful, Map map, int batch, int tiles_n, \
      float *parts, long long entries
#define MAP_TILE_ARGUMENTS \
  source, weights, result, scale, bias, residual, activation, careful, map, batch, tiles_n, parts, \
      entries
