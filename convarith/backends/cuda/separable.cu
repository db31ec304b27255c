// W x or W^T y where every channel is by itself and its kernel is rows times columns, as for bilinear
// upsampling: taps along x first, then along y. A thread makes EACH neighbouring results of many rows,
// one below the other, and keeps what it summed along x of the last TAPS_Y rows of sources: of the
// `stride` rows of results that an upsampling makes between two, each then takes two products and no
// load. Rows of sources are copied to shared memory STAGES - 1 rows ahead, so that no thread waits for
// one. It is bound by writing, where `depthwise` multiplies all taps for every result.
#include "finish.cuh"
#include "walk.cuh"

constexpr int THREADS = 128, LANES = 16 / sizeof(ELEMENT), EACH = VECTORS * LANES;
constexpr int STAGES = 4;
constexpr int NOTHING = 32;  // bytes of zeros at the end of a stage, for what lies outside of a row
// Results of a coordinate modulo the stride: kernel entries first + every*t, t < taps, read sources
// from `origin` on.
struct Phase {
  int first, taps, origin, unused;
};
// A phase along y, with its weights where the channels have them in common.
struct alignas(16) Row {
  int taps;
#if COMMON
  float of[TAPS_Y];
#else
  int first;
#endif
};

#if PLAIN || COMMON
#define BOUNDS THREADS
#else
#define BOUNDS THREADS, 3  // left to itself the compiler may spill
#endif

// a/b rounded down, of a positive b.
DEV int floored(int a, int b) { return a >= 0 ? a / b : -((b - 1 - a) / b); }

// source (n, h, w, channels), from a multiple of 16 bytes; along_y (kh, channels), or (kh) where the
// channels have it in COMMON, along_x (kw, channels), all finite. TAPS_X and TAPS_Y are the most of a
// phase; the transpose goes to the next row of sources or stays, or has a stride of 1. blockIdx: x is the piece of
// THREADS*EACH entries of a row of results, EACH being VECTORS of 16 bytes, y one of the `strips` of
// `strip` rows of an image. A stage is of `stage` bytes. ALIGNED: rows of results begin at multiples
// of 16 bytes, and a thread writes so many. FRESH: how many rows of sources are copied and taken for
// a row of results that reads others than the one before. PLAIN: there is no epilogue.
extern "C" __global__ void __launch_bounds__(BOUNDS)
separable(const ELEMENT* __restrict__ source, const float* __restrict__ along_y,
          const float* __restrict__ along_x, ELEMENT* __restrict__ result,
          const PART* __restrict__ scale, const PART* __restrict__ bias, const RESIDUAL* residual,
          int activation, Map map, int batch, int strip, int strips, int stage) {
  DYN_SMEM(shared);
  const Axis &ay = map.axes[1], &ax = map.axes[2];
  const bool transposed = TRANSPOSED;
  const int channels = map.groups, width = ax.result * channels;
  const int steps = transposed ? ay.stride : 1;  // rows of results that have a base in common
  // What this block reads of a row of sources.
  const int begin = blockIdx.x * (THREADS * EACH);
  const int first_x = begin / channels;
  const int last_x = (min(begin + THREADS * EACH, width) - 1) / channels;
  const int reach = (ax.taps - 1) * ax.dilation;
  int low, high;
  if (transposed) {
    low = -floored(reach - first_x - ax.low, ax.stride), high = floored(last_x + ax.low, ax.stride);
  } else {
    low = first_x * ax.stride - ax.low, high = last_x * ax.stride + reach - ax.low;
  }
  low = min(max(low, 0), ax.source), high = min(max(high + 1, low), ax.source);
  const int skipped = low * channels * (int)sizeof(ELEMENT);
  const int bytes = high * channels * (int)sizeof(ELEMENT) - skipped;
  // A row of results reads the rows base + turn*t of sources.
  const int image = blockIdx.y / strips, first = (blockIdx.y - image * strips) * strip;
  const int last = min(first + strip, ay.result);
  const int turn = transposed ? ay.dilation / ay.common : ay.dilation, advance = transposed ? 1 : ay.stride;
  const int newest = transposed ? floored(first + ay.low, steps) : 0;  // of the first row
  const int base = transposed ? newest - (TAPS_Y - 1) * turn : first * advance - ay.low;
  const long long pitch = (long long)ax.source * channels * sizeof(ELEMENT);
  const long long from = ((long long)image * ay.source + base) * pitch + skipped;
  const char* end = (const char*)source + (long long)batch * ay.source * pitch;
  // The rows that are there, and asked for by this strip.
  const int end_row = transposed ? floored(last - 1 + ay.low, steps) + 1
                                 : (last - 1) * advance - ay.low + (TAPS_Y - 1) * turn + 1;
  const int limit = min(ay.source, end_row);
  struct At {  // a row of sources: its stage, its number, which of a base's it is, where it begins
    int stage, row, turn;
    long long start;
  } asked = {0, base, 0, from}, taken = asked;  // the next one to copy, and to read
  const auto next = [&](At& which) {
    which.stage = which.stage == (STAGES - 1) * stage ? 0 : which.stage + stage;
    int on = turn;
    if (FRESH > 1 && ++which.turn == TAPS_Y) which.turn = 0, on = advance - (TAPS_Y - 1) * turn;
    which.row += on, which.start += on * pitch;
  };
  const auto copy = [&] {
    const int size = (int)(asked.start & 15) + bytes;
    const bool there = asked.row >= 0 && asked.row < limit;
    const char* chunk = (const char*)source + (asked.start & ~15ll);
    unsigned char* to = shared + asked.stage;
#pragma unroll 1
    for (int i = threadIdx.x * 16; i < size; i += THREADS * 16) {
      if (!there || chunk + i + 16 <= end) {
        cp_async16(to + i, there ? chunk + i : (const char*)source, there);
      } else {  // of the last row of all
        for (int e = 0; chunk + i + e < end; e += sizeof(ELEMENT))
          *(ELEMENT*)(to + i + e) = *(const ELEMENT*)(chunk + i + e);
      }
    }
    cp_async_commit();
    next(asked);
  };
#pragma unroll 1
  for (int s = 0; s < STAGES - 1; ++s) copy();
  Phase* of_x = (Phase*)(shared + STAGES * stage);
  Row* of_y = (Row*)(of_x + ax.phases);
  for (int i = threadIdx.x; i < ax.phases; i += THREADS) {
    const Walk w = walk(ax, i, transposed);
    of_x[i] = {w.first, w.taps, w.origin, 0};
  }
  for (int i = threadIdx.x; i < ay.phases; i += THREADS) {
    const Walk w = walk(ay, i, transposed);
    Row& row = of_y[transposed ? i + ay.low - floored(i + ay.low, steps) * steps : 0];
    row.taps = w.taps;
#if COMMON
#pragma unroll
    for (int t = 0; t < TAPS_Y; ++t)
      row.of[t] = t < w.taps ? along_y[w.first + w.every * t] : 0;
#else
    row.first = w.first;
#endif
  }
  for (int i = threadIdx.x; i < STAGES * NOTHING / 4; i += THREADS)
    *(int*)(shared + (i / (NOTHING / 4) + 1) * stage - NOTHING + i % (NOTHING / 4) * 4) = 0;
  __syncthreads();
  // This thread's results: where each tap is in a row, in bytes, and its weight.
  int at[EACH][TAPS_X], entry[EACH], channel[EACH];
  float weights[EACH][TAPS_X];
  {
    const int step = transposed ? ax.stride : 1, advance = transposed ? 1 : ax.stride;
    const int every = transposed ? ax.stride / ax.common : 1;
    const int turn = transposed ? -(ax.dilation / ax.common) : ax.dilation;
#pragma unroll
    for (int e = 0; e < EACH; ++e) {
      const int i = begin + (ALIGNED ? (e / LANES * THREADS + threadIdx.x) * LANES + e % LANES
                                     : threadIdx.x + THREADS * e);
      const int ix = i / channels, c = i - ix * channels, j = ix / step;
      const Phase p = of_x[i < width ? ix - j * step : 0];
      entry[e] = i, channel[e] = c;
#pragma unroll
      for (int t = 0; t < TAPS_X; ++t) {
        const int s = p.origin + advance * j + turn * t;
        const bool there = i < width && t < p.taps && (unsigned)s < (unsigned)ax.source;
        at[e][t] = there ? (s * channels + c) * (int)sizeof(ELEMENT) - skipped : stage - NOTHING;
        weights[e][t] = there ? along_x[(p.first + every * t) * channels + c] : 0;
      }
    }
  }
  float along[TAPS_Y][EACH];  // what was summed along x, of each of the rows
  const auto take = [&] {
    cp_async_wait<STAGES - 2>();
    __syncthreads();  // the row is there for all, and the one before has been read by all
    copy();
    const unsigned char* row = shared + taken.stage + (int)(taken.start & 15);
    next(taken);
#pragma unroll
    for (int i = TAPS_Y - 1; i > 0; --i)
#pragma unroll
      for (int e = 0; e < EACH; ++e)
        if (TRANSPOSED) along[i][e] = along[i - 1][e];
        else along[TAPS_Y - 1 - i][e] = along[TAPS_Y - i][e];
#pragma unroll
    for (int e = 0; e < EACH; ++e) {
      float sum = 0;
#pragma unroll
      for (int t = 0; t < TAPS_X; ++t)
        sum = __fmaf_rn(wide(*(const ELEMENT*)(row + at[e][t])), weights[e][t], sum);
      along[TRANSPOSED ? 0 : TAPS_Y - 1][e] = sum;
    }
  };
#pragma unroll 1
  for (int t = FRESH; t < TAPS_Y; ++t) take();
  const Finish finish = {scale, bias, residual, activation};
  const Row* here = of_y + (transposed ? first + ay.low - newest * steps : 0);
  ELEMENT* to = result + ((long long)image * ay.result + first) * width;
  for (int row = first; row < last; ++row, to += width) {
    if (here == of_y || row == first)
#pragma unroll 1
      for (int t = 0; t < FRESH; ++t) take();
    const Row of_row = *here;
    if (++here == of_y + steps) here = of_y;
    float sums[EACH] = {};
#pragma unroll
    for (int t = 0; t < TAPS_Y; ++t) {
      if (t >= of_row.taps) break;  // what is not a number stays out of it
#if COMMON
#pragma unroll
      for (int e = 0; e < EACH; ++e) sums[e] = __fmaf_rn(along[t][e], of_row.of[t], sums[e]);
#else
      const int every = transposed ? ay.stride / ay.common : 1;
      const float* k = along_y + (of_row.first + every * t) * channels;
#pragma unroll
      for (int e = 0; e < EACH; ++e) sums[e] = __fmaf_rn(along[t][e], k[channel[e]], sums[e]);
#endif
    }
    if (ALIGNED) {
#pragma unroll
      for (int v = 0; v < EACH; v += LANES) {
        if (entry[v] >= width) break;
        alignas(16) ELEMENT out[LANES];
#pragma unroll
        for (int e = 0; e < LANES; ++e)
          out[e] = PLAIN ? narrow<ELEMENT>(sums[v + e])
                         : finish(sums[v + e], channel[v + e], to - result + entry[v + e]);
        __stcs((uint4*)(to + entry[v]), *(const uint4*)out);  // read by no one soon
      }
    } else {
#pragma unroll
      for (int e = 0; e < EACH; ++e)
        if (entry[e] < width) to[entry[e]] = finish(sums[e], channel[e], to - result + entry[e]);
    }
  }
  cp_async_wait<0>();
}
