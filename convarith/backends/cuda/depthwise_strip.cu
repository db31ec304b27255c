// W x of a depthwise kernel of few taps, TAPS_Y by TAPS_X and undilated: a block makes some columns of
// some channels and walks down a strip of rows of them, with the sums of the rows that a row of sources
// has a part in. Rows of sources are copied to shared memory STAGES - 1 rows ahead: each is read from
// memory once a strip, but for the columns at a block's sides, where `depthwise` reads one a tap, and
// no thread waits for one. A thread makes VECTOR channels of COLUMNS neighbouring results.
#include "finish.cuh"
#include "walk.cuh"

constexpr int STAGE = COPIES * THREADS * 16;
typedef Several<ELEMENT, VECTOR> Vector;
typedef Computed<ELEMENT>::type Sum;
constexpr int SPAN = (COLUMNS - 1) * ADVANCE_X + TAPS_X;
constexpr int LIVE = (TAPS_Y + ADVANCE_Y - 1) / ADVANCE_Y;  // rows of results that one source is in
constexpr int OLD = TAPS_Y - ADVANCE_Y;  // taps that rows before have read

// The sum of one result, of one channel, as the specification has it: `source` is the channel's first
// in the image, and no tap in the padding is multiplied.
DEV Sum sum_plainly(const Axis& ay, const Axis& ax, const ELEMENT* source, const ELEMENT* weights,
                    int channels, int row, int column) {
  Sum sum = 0;
#pragma unroll 1
  for (int tap = 0; tap < TAPS_Y * TAPS_X; ++tap) {
    const int sy = row * ADVANCE_Y - ay.low + tap / TAPS_X;
    const int sx = column * ADVANCE_X - ax.low + tap % TAPS_X;
    if ((unsigned)sy >= (unsigned)ay.source || (unsigned)sx >= (unsigned)ax.source) continue;
    sum = multiply_add(wide(source[((long long)sy * ax.source + sx) * channels]),
                       wide(weights[(long long)tap * channels]), sum);
  }
  return sum;
}

// source (n, h, w, channels), weights (TAPS_Y, TAPS_X, channels), both from a multiple of 16 bytes, as
// are a pixel's channels. The strides are ADVANCE_Y and ADVANCE_X, at most the taps. A block has `slice`
// vectors of channels of `beside` times COLUMNS columns, whose sources are COPIES times THREADS chunks
// of 16 bytes at most; blockIdx: x is the slice and the columns, y the `strip` rows of all images' rows,
// one image after the other. `careful`: a flag that a weight is not finite. PLAIN: there is no epilogue.
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
depthwise_strip(const ELEMENT* __restrict__ source, const ELEMENT* __restrict__ weights,
                ELEMENT* __restrict__ result, const PART* __restrict__ scale,
                const PART* __restrict__ bias, const RESIDUAL* residual, int activation,
                const int* careful, Map map, int slice, int beside, int batch, int strip) {
  DYN_SMEM(shared);
  const Axis &ay = map.axes[1], &ax = map.axes[2];
  const int channels = map.groups, slices = (channels / VECTOR + slice - 1) / slice;
  const int tile = blockIdx.x / slices, first_channel = (blockIdx.x - tile * slices) * slice * VECTOR;
  const int group = threadIdx.x / slice, v = threadIdx.x - group * slice;
  const int c = first_channel + v * VECTOR, column = (tile * beside + group) * COLUMNS;
  const bool mine = group < beside && c < channels && column < ax.result;
  const Finish finish = {scale, bias, residual, activation};
  if (mine) weights += c;
  // The rows of results to make: of this image from `row` on, where this thread's results are, up to
  // `last`, and of those after it.
  const int begin_row = blockIdx.y * strip;
  int image = (unsigned)begin_row / ay.result, row = begin_row - image * ay.result;
  int to_make = min(strip, batch * ay.result - begin_row), last;
  ELEMENT* to = result + ((long long)begin_row * ax.result + column) * channels + c;
  const long long below = (long long)ax.result * channels;
  const long long pixels = (long long)ay.source * ax.source;
  if (careful && load_flag(careful)) {  // 0*inf, of a zero that stands for the padding, is no 0
    if (!mine) return;
    for (; to_make > 0; --to_make, to += below) {
      for (int j = 0; j < COLUMNS && column + j < ax.result; ++j)
        for (int v = 0; v < VECTOR; ++v) {
          const Sum sum = sum_plainly(ay, ax, source + image * pixels * channels + c + v, weights + v,
                                      channels, row, column + j);
          to[j * channels + v] = finish(sum, c + v, to - result + j * channels + v);
        }
      if (++row == ay.result) row = 0, ++image;
    }
    return;
  }
  // Where this thread's chunks are in a row of sources, in bytes, or -1; the c-th goes to the c-th of
  // a stage.
  int chunk[COPIES];
  {
    const int across = slice * VECTOR * (int)sizeof(ELEMENT) / 16;  // chunks a column
    const int left = tile * beside * COLUMNS * ADVANCE_X - ax.low;
    const int columns = (beside * COLUMNS - 1) * ADVANCE_X + TAPS_X;
#pragma unroll
    for (int i = 0; i < COPIES; ++i) {
      const int at = threadIdx.x + i * THREADS, of_column = at / across, x = left + of_column;
      const int from = first_channel * (int)sizeof(ELEMENT) + (at - of_column * across) * 16;
      const bool there = of_column < columns && (unsigned)x < (unsigned)ax.source &&
                         from < channels * (int)sizeof(ELEMENT);
      chunk[i] = there ? x * channels * (int)sizeof(ELEMENT) + from : -1;
    }
  }
  const long long pitch = (long long)ax.source * channels * sizeof(ELEMENT);
  // The next row of sources to copy, where it begins, and the last that is asked for; how many have been
  // copied, each to the stage after the last one's.
  int s = 0, final = 0;
  const char* from = (const char*)source;
  unsigned copied = 0;
  const auto copy = [&] {
    const bool there = (unsigned)s < (unsigned)ay.source && s <= final;
#pragma unroll
    for (int i = 0; i < COPIES; ++i)
      cp_async16_of(shared + copied % STAGES * STAGE + (threadIdx.x + i * THREADS) * 16,
                    from + max(chunk[i], 0), there && chunk[i] >= 0 ? 16 : 0);
    cp_async_commit();
    ++copied, ++s, from += pitch;
  };
  const auto start = [&] {  // on the rows of results from `row` on
    last = min(row + to_make, ay.result);
    s = (row - (LIVE - 1)) * ADVANCE_Y - ay.low + OLD;
    final = (last - 1) * ADVANCE_Y - ay.low + TAPS_Y - 1;
    from = (const char*)source + ((long long)image * ay.source + s) * pitch;
    copied = 0;
#pragma unroll 1
    for (int i = 0; i < STAGES - 1; ++i) copy();
  };
  start();
  // A thread without results reads as the first one does, and writes none.
  Sum w[TAPS_Y][TAPS_X][VECTOR];
#pragma unroll
  for (int tap = 0; tap < TAPS_Y * TAPS_X; ++tap)
    widen(*(const Vector*)(weights + (long long)tap * channels), w[tap / TAPS_X][tap % TAPS_X]);
  const int place = mine ? (group * COLUMNS * ADVANCE_X * slice + v) * (int)sizeof(Vector) : 0;
  const int on = slice * (int)sizeof(Vector), there = mine ? min(COLUMNS, ax.result - column) : 0;
  Sum sums[LIVE][COLUMNS][VECTOR] = {};  // of LIVE rows of results, each row in its turn
  while (true) {
    for (int begin = row - (LIVE - 1); begin < last; begin += LIVE) {
#pragma unroll
      for (int turn = 0; turn < LIVE; ++turn) {
        if (begin + turn >= last) break;
#pragma unroll
        for (int t = OLD; t < TAPS_Y; ++t) {
          cp_async_wait<STAGES - 2>();
          __syncthreads();  // the row is there for all, and the one before has been read by all
          copy();           // the stage that comes after it is that of the row
          const unsigned char* x = shared + copied % STAGES * STAGE + place;
#pragma unroll
          for (int i = 0; i < SPAN; ++i) {
            Sum here[VECTOR];
            widen(*(const Vector*)(x + i * on), here);
#pragma unroll
            for (int a = 0; a < LIVE; ++a)
#pragma unroll
              for (int j = 0; j < COLUMNS; ++j) {
                const int ty = t - a * ADVANCE_Y, tx = i - j * ADVANCE_X;
                if (ty < 0 || tx < 0 || tx >= TAPS_X) continue;
#pragma unroll
                for (int v = 0; v < VECTOR; ++v) {
                  Sum& sum = sums[(turn + a) % LIVE][j][v];
                  sum = multiply_add(here[v], w[ty][tx][v], ty || tx ? sum : 0);  // the first: anew
                }
              }
          }
        }
        if (begin + turn >= row) {
#pragma unroll
          for (int j = 0; j < COLUMNS; ++j) {
            if (j >= there) continue;
            Vector out;
            if (PLAIN) {
#pragma unroll
              for (int v = 0; v < VECTOR; ++v) out.of[v] = narrow<ELEMENT>(sums[turn][j][v]);
            } else {
              out = FinishSeveral<VECTOR>(finish, c)(sums[turn][j], to - result + j * channels);
            }
            *(Vector*)(to + j * channels) = out;
          }
          to += below;
        }
      }
    }
    cp_async_wait<0>();
    to_make -= last - row;
    if (to_make == 0) return;
    __syncthreads();  // all has been read, and no copy is under way
    ++image, row = 0;
    start();
  }
}
