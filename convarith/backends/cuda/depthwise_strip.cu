// W x of a depthwise kernel of few taps, TAPS_Y by TAPS_X and undilated: as `depthwise` it makes
// VECTOR channels of COLUMNS neighbouring results a thread, but walks down a strip of rows of them,
// with the sums of the rows that a row of sources has a part in. So every source is loaded once a
// strip and column, not once a tap: `depthwise` is bound by what the L2 cache delivers.
#include "finish.cuh"
#include "walk.cuh"

typedef Several<ELEMENT, VECTOR> Vector;
typedef Computed<ELEMENT>::type Sum;
constexpr int SPAN = (COLUMNS - 1) * ADVANCE_X + TAPS_X;
constexpr int LIVE = (TAPS_Y + ADVANCE_Y - 1) / ADVANCE_Y;  // rows of results that one source is in
constexpr int OLD = TAPS_Y > ADVANCE_Y ? TAPS_Y - ADVANCE_Y : 0;  // taps that rows before have read

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

// source (n, h, w, channels), weights (TAPS_Y, TAPS_X, channels); a thread has `strip` rows of one of
// the `strips` of an image. The strides are ADVANCE_Y and ADVANCE_X. `careful`: a flag that a weight
// is not finite. PLAIN: there is no epilogue.
extern "C" __global__ void __launch_bounds__(128, BLOCKS)
depthwise_strip(const ELEMENT* __restrict__ source, const ELEMENT* __restrict__ weights,
                ELEMENT* __restrict__ result, const PART* __restrict__ scale,
                const PART* __restrict__ bias, const PART* residual, int activation,
                const int* careful, Map map, int batch, int strip, int strips) {
  const Axis &ay = map.axes[1], &ax = map.axes[2];
  const int channels = map.groups, vectors = channels / VECTOR;
  const unsigned blocks = (ax.result + COLUMNS - 1) / COLUMNS;
  unsigned at = blockIdx.x * blockDim.x + threadIdx.x;
  const int c = at % vectors * VECTOR;
  at /= vectors;
  const int column = at % blocks * COLUMNS;
  at /= blocks;
  const int first = at % strips * strip, image = at / strips;
  if (image >= batch) return;
  const int last = min(first + strip, ay.result), left = column * ADVANCE_X - ax.low;
  const Finish finish = {scale, bias, residual, activation};
  source += (long long)image * ay.source * ax.source * channels + c;
  weights += c;
  // Of the first row: where its results begin.
  long long to = (((long long)image * ay.result + first) * ax.result + column) * channels + c;
  if (careful && load_flag(careful)) {  // 0*inf, of a zero that stands for the padding, is no 0
    for (int row = first; row < last; ++row, to += (long long)ax.result * channels)
      for (int j = 0; j < COLUMNS && column + j < ax.result; ++j)
        for (int v = 0; v < VECTOR; ++v) {
          const long long here = to + j * channels + v;
          result[here] = finish(
              sum_plainly(ay, ax, source + v, weights + v, channels, row, column + j), c + v, here);
        }
    return;
  }
  bool inside[SPAN];
#pragma unroll
  for (int i = 0; i < SPAN; ++i) inside[i] = (unsigned)(left + i) < (unsigned)ax.source;
  Sum w[TAPS_Y][TAPS_X][VECTOR];
#pragma unroll
  for (int tap = 0; tap < TAPS_Y * TAPS_X; ++tap)
    widen(*(const Vector*)(weights + (long long)tap * channels), w[tap / TAPS_X][tap % TAPS_X]);
  const int next = channels * (int)sizeof(ELEMENT);  // bytes
  const long long next_row = (long long)ax.source * next;
  int s = (first - (LIVE - 1)) * ADVANCE_Y - ay.low + OLD;  // the next row of sources
  const char* from = (const char*)source + s * next_row + (long long)left * next;
  const auto load = [&](Vector (&x)[SPAN], bool wanted) {
    const bool there = wanted && (unsigned)s < (unsigned)ay.source;
#pragma unroll
    for (int i = 0; i < SPAN; ++i) {
      x[i] = Vector();
      if (there && inside[i]) x[i] = *(const Vector*)(from + i * next);
    }
  };
  Sum sums[LIVE][COLUMNS][VECTOR] = {};  // of this row of results and those below it
  Vector ahead[SPAN];
  load(ahead, true);
  for (int row = first - (LIVE - 1); row < last; ++row) {
#pragma unroll
    for (int t = OLD; t < TAPS_Y; ++t) {
      Vector x[SPAN];
#pragma unroll
      for (int i = 0; i < SPAN; ++i) x[i] = ahead[i];
      const int step = t + 1 < TAPS_Y ? 1 : ADVANCE_Y - (TAPS_Y - OLD) + 1;
      s += step, from += step * next_row;
      load(ahead, t + 1 < TAPS_Y || row + 1 < last);  // while this row is multiplied
#pragma unroll
      for (int i = 0; i < SPAN; ++i) {
        Sum here[VECTOR];
        widen(x[i], here);
#pragma unroll
        for (int a = 0; a < LIVE; ++a)
#pragma unroll
          for (int j = 0; j < COLUMNS; ++j) {
            const int ty = t - a * ADVANCE_Y, tx = i - j * ADVANCE_X;
            if (ty < 0 || tx < 0 || tx >= TAPS_X) continue;
#pragma unroll
            for (int v = 0; v < VECTOR; ++v)
              sums[a][j][v] = multiply_add(here[v], w[ty][tx][v], sums[a][j][v]);
          }
      }
    }
    if (row >= first) {
#pragma unroll
      for (int j = 0; j < COLUMNS; ++j) {
        if (column + j >= ax.result) break;
        Vector out;
#pragma unroll
        for (int v = 0; v < VECTOR; ++v)
          out.of[v] = PLAIN ? narrow<ELEMENT>(sums[0][j][v])
                            : finish(sums[0][j][v], c + v, to + j * channels + v);
        *(Vector*)(result + to + j * channels) = out;
      }
      to += (long long)ax.result * channels;
    }
#pragma unroll
    for (int a = 0; a < LIVE; ++a)
#pragma unroll
      for (int j = 0; j < COLUMNS; ++j)
#pragma unroll
        for (int v = 0; v < VECTOR; ++v)
          sums[a][j][v] = a + 1 < LIVE ? sums[a + 1 < LIVE ? a + 1 : 0][j][v] : 0;
  }
}
