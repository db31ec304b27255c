// W x or W^T y where every channel is by itself and its kernel is rows times columns, as for bilinear
// upsampling: taps along x first, then along y. A thread makes EACH results of many rows, one below
// the other, and keeps what it summed along x of the last TAPS_Y rows of sources: of the `stride` rows
// of results that an upsampling makes between two, each then takes TAPS_Y products a result. Rows of
// sources are copied to shared memory STAGES - 1 rows ahead, so that no thread waits for one. It is
// bound by writing, where `depthwise` multiplies all taps for every result.
#include "finish.cuh"
#include "walk.cuh"

constexpr int THREADS = 128, EACH = PIECE * PIECES;
constexpr int STAGES = 4;
constexpr int NOTHING = 32;  // bytes of zeros at the end of a stage, for what lies outside of a row
// After so many rows of sources the same places hold the sums along x again: where a row of results
// reads all but one of the rows before, the newest takes the place of the oldest.
constexpr int TURNS = FRESH == 1 ? TAPS_Y : 1;

// Of the results of a phase along x: the source that the first of them reads with its first tap, and
// how many taps there are.
struct Phase {
  int origin, taps;
};
// Of the rows of results of a phase along y: taps, and their weights where the channels have them in
// COMMON.
struct alignas(16) Row {
  int taps;
  float of[TAPS_Y];
};

// a/b rounded down, of a positive b.
DEV int floored(int a, int b) { return a >= 0 ? a / b : -((b - 1 - a) / b); }

// source (n, h, w, channels), from a multiple of 16 bytes; along_y (steps, TAPS_Y, channels), unless the
// channels have it in COMMON, and along_x (phases, TAPS_X, channels), all finite. TAPS_X and TAPS_Y are
// the most of a phase, FULL: what each has. The transpose goes to the next row of sources or stays, or
// has a stride of 1. blockIdx: x is the piece of THREADS*EACH entries of a row of results, y the `strip`
// rows of all images' rows, one image after the other. A stage is of `stage` bytes. A thread's results
// are PIECES times PIECE neighbours, which are written at once. FRESH: how many rows of sources are
// copied and taken for a row of results that reads others than the one before, 1 or TAPS_Y. PLAIN:
// there is no epilogue.
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
separable(const ELEMENT* __restrict__ source, const Row* __restrict__ of_rows,
          const float* __restrict__ along_y, const Phase* __restrict__ phases,
          const float* __restrict__ along_x, ELEMENT* __restrict__ result,
          const PART* __restrict__ scale, const PART* __restrict__ bias, const RESIDUAL* residual,
          int activation, Map map, int batch, int strip, int stage) {
  DYN_SMEM(shared);
  const Axis &ay = map.axes[1], &ax = map.axes[2];
  const int channels = map.groups, width = ax.result * channels;
  const int steps = TRANSPOSED ? ay.stride : 1;  // rows of results that have a base in common
  // What this block reads of a row of sources.
  const int begin = blockIdx.x * (THREADS * EACH);
  const int step_x = TRANSPOSED ? ax.stride : 1, advance_x = TRANSPOSED ? 1 : ax.stride;
  const int turn_x = TRANSPOSED ? -(ax.dilation / ax.common) : ax.dilation;
  int low, high;
  {
    const int first_x = (unsigned)begin / channels;
    const int last_x = (unsigned)(min(begin + THREADS * EACH, width) - 1) / channels;
    const int reach = (ax.taps - 1) * ax.dilation;
    if (TRANSPOSED) {
      low = max(first_x + ax.low - reach + ax.stride - 1, 0) / (unsigned)ax.stride;
      high = max(last_x + ax.low + ax.stride, 0) / (unsigned)ax.stride;
    } else {
      low = max(first_x * ax.stride - ax.low, 0), high = last_x * ax.stride + reach - ax.low + 1;
    }
    low = min(low, ax.source), high = min(max(high, low), ax.source);
  }
  const int skipped = low * channels * (int)sizeof(ELEMENT);
  const int bytes = high * channels * (int)sizeof(ELEMENT) - skipped;
  const Row* of_y = (const Row*)(shared + STAGES * stage);
  for (int i = threadIdx.x; i < steps * (int)sizeof(Row) / 16; i += THREADS)
    cp_async16((uint4*)of_y + i, (const uint4*)of_rows + i, true);
  for (int i = threadIdx.x; i < STAGES * NOTHING / 4; i += THREADS)
    *(int*)(shared + (i / (NOTHING / 4) + 1) * stage - NOTHING + i % (NOTHING / 4) * 4) = 0;
  const int turn = TRANSPOSED ? ay.dilation / ay.common : ay.dilation;
  const int advance = TRANSPOSED ? 1 : ay.stride;
  const int back = advance - TAPS_Y * turn;  // from a row's last source on to the next row's first
  const long long pitch = (long long)ax.source * channels * sizeof(ELEMENT);
  // The rows of results to make: of this image from `row` on up to `last`, and of those after it.
  const int begin_row = blockIdx.y * strip;
  int image = (unsigned)begin_row / ay.result, row = begin_row - image * ay.result;
  int to_make = min(strip, batch * ay.result - begin_row), last, phase;
  ELEMENT* to = result + (long long)begin_row * width + begin + threadIdx.x * PIECE;
  // The next row of sources to copy: its stage, its number, which of a row of results' it is, and where
  // it begins; how far behind a multiple of 16 bytes the last four began, the last one lowest; and the
  // end of the rows that are there and asked for.
  unsigned char* into = shared;
  int asked = 0, asked_turn = 0, limit = 0;
  const char* from = (const char*)source;
  unsigned odds = 0;
  const auto copy = [&] {
    const int odd = (int)((unsigned long long)from & 15), size = odd + bytes;
    const bool there = asked >= 0 && asked < limit;
#pragma unroll 1
    for (int i = threadIdx.x * 16; i < size; i += THREADS * 16)
      cp_async16_of(into + i, from - odd + i, there ? min(size - i, 16) : 0);
    cp_async_commit();
    odds = odds << 4 | odd;
    into = into == shared + (STAGES - 1) * stage ? shared : into + stage;
    asked += turn, from += turn * pitch;
    if (FRESH > 1 && ++asked_turn == TAPS_Y) asked_turn = 0, asked += back, from += back * pitch;
  };
  const auto start = [&] {  // on the rows of results from `row` on, which read rows base + turn*t
    last = min(row + to_make, ay.result);
    const int newest = TRANSPOSED ? floored(row + ay.low, steps) : 0;
    const int base = TRANSPOSED ? newest - (TAPS_Y - 1) * turn : row * advance - ay.low;
    phase = TRANSPOSED ? row + ay.low - newest * steps : 0;
    const int later = TRANSPOSED ? (unsigned)(phase + last - 1 - row) / steps : last - 1 - row;
    limit = min(ay.source, base + (TAPS_Y - 1) * turn + later * advance + 1);
    into = shared, asked = base, asked_turn = 0;
    from = (const char*)source + ((long long)image * ay.source + base) * pitch + skipped;
#pragma unroll 1
    for (int s = 0; s < STAGES - 1; ++s) copy();
  };
  start();
  // This thread's results: where each tap is in a row, in bytes, and its weight.
  int at[EACH][TAPS_X], channel[EACH];
  float weights[EACH][TAPS_X];
  bool mine[PIECES];
#pragma unroll
  for (int p = 0; p < PIECES; ++p) {
    const int entry = begin + (p * THREADS + threadIdx.x) * PIECE, ix = (unsigned)entry / channels;
    int c = entry - ix * channels, j = (unsigned)ix / step_x, phase_x = ix - j * step_x;
    mine[p] = entry < width;
#pragma unroll
    for (int e = p * PIECE; e < (p + 1) * PIECE; ++e) {
      channel[e] = c;
      const Phase of = mine[p] ? phases[phase_x] : Phase{0, 0};
#pragma unroll
      for (int t = 0; t < TAPS_X; ++t) {
        const int s = of.origin + advance_x * j + turn_x * t;
        const bool there = (FULL ? mine[p] : t < of.taps) && (unsigned)s < (unsigned)ax.source;
        at[e][t] = there ? (s * channels + c) * (int)sizeof(ELEMENT) - skipped : stage - NOTHING;
        weights[e][t] = there ? along_x[(phase_x * TAPS_X + t) * channels + c] : 0;
      }
      if (++c == channels) c = 0, ++phase_x;
      if (phase_x == step_x) phase_x = 0, ++j;
    }
  }
  float along[TAPS_Y][EACH];  // what was summed along x, of each of the rows that are held
  const Finish finish = {scale, bias, residual, activation};
  const auto take = [&](float (&sums)[EACH]) {
    cp_async_wait<STAGES - 2>();
    __syncthreads();  // the row is there for all, and the one before has been read by all
    copy();           // the stage that comes after it is that of the row
    const unsigned char* line = into + (odds >> 4 * (STAGES - 1) & 15);
#pragma unroll
    for (int e = 0; e < EACH; ++e) {
      float sum = 0;
#pragma unroll
      for (int t = 0; t < TAPS_X; ++t)
        sum = __fmaf_rn(wide(*(const ELEMENT*)(line + at[e][t])), weights[e][t], sum);
      sums[e] = sum;
    }
  };
  while (true) {
    int missing = TAPS_Y - FRESH;  // rows of sources before the first row of results is made
    to_make -= last - row;
    while (row < last) {
#pragma unroll
      for (int held = 0; held < TURNS; ++held) {
        if (row >= last) break;
#pragma unroll
        for (int t = 0; t < FRESH; ++t) take(along[held + t]);
        if (missing > 0) {
          --missing;
          continue;
        }
        const Row* of_row = of_y + phase;
        int here = min(steps - phase, last - row);
        row += here, phase = 0;
#pragma unroll 1
        for (; here > 0; --here, ++of_row, to += width) {
          const Row now = *of_row;
          float sums[EACH] = {};
#pragma unroll
          for (int t = 0; t < TAPS_Y; ++t) {
            const int newest = held + FRESH - 1;
            const float(&line)[EACH] =
                along[(TRANSPOSED ? newest + TAPS_Y - t : newest + 1 + t) % TAPS_Y];
            if (!FULL && t >= now.taps) break;  // what is not a number stays out of it
#if COMMON
#pragma unroll
            for (int e = 0; e < EACH; ++e) sums[e] = __fmaf_rn(line[e], now.of[t], sums[e]);
#else
            const float* k = along_y + ((of_row - of_y) * TAPS_Y + t) * channels;
#pragma unroll
            for (int e = 0; e < EACH; ++e) sums[e] = __fmaf_rn(line[e], k[channel[e]], sums[e]);
#endif
          }
#pragma unroll
          for (int p = 0; p < PIECES; ++p) {
            if (!mine[p]) break;
            ELEMENT* const there = to + p * THREADS * PIECE;
            Several<ELEMENT, PIECE> out;
#pragma unroll
            for (int e = 0; e < PIECE; ++e)
              out.of[e] = PLAIN ? narrow<ELEMENT>(sums[p * PIECE + e])
                                : finish(sums[p * PIECE + e], channel[p * PIECE + e],
                                         there - result + e);
            store_streaming(there, out);
          }
        }
      }
    }
    cp_async_wait<0>();
    if (to_make == 0) return;
    __syncthreads();  // all has been read, and no copy is under way
    ++image, row = 0;
    start();
  }
}
