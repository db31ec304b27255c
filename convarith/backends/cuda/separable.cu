// W x or W^T y where every channel is by itself and its kernel is rows times columns, as for bilinear
// upsampling: the taps along y first, one row of sources for all the results of a row, and then
// those along x. A block makes the same piece of many rows, LINES at a time, so that where a thread's
// results lie and what they weigh is found once. It is bound by writing, where `depthwise` multiplies
// all taps for every result.
#include "finish.cuh"
#include "walk.cuh"

constexpr int THREADS = 256, EACH = 16 / sizeof(ELEMENT);  // neighbouring results of a thread
// Results of a column modulo the stride: kernel entries first + every*t, t < taps, read from
// `origin` on.
struct Phase {
  int first, taps, origin, unused;
};
// A row of results: for each tap along y its entry of the kernel, and where the row of sources that
// it reads begins; -1 where there is none.
struct Line {
  long long from[TAPS_Y];
  int k[TAPS_Y];
};

// source (n, h, w, channels); along_y (kh, channels), along_x (kw, channels), all finite. TAPS_X and
// TAPS_Y are the most of a phase. blockIdx: x is the piece of THREADS*EACH entries of a row of
// results, y the first LINES of its `rows` (of all images). `span`: sources that a piece can read
// along x, SOURCES*THREADS entries at most. ALIGNED: rows of results begin at multiples of 16 bytes.
extern "C" __global__ void __launch_bounds__(THREADS, 2)
separable(const ELEMENT* __restrict__ source, const float* __restrict__ along_y,
          const float* __restrict__ along_x, ELEMENT* __restrict__ result,
          const PART* __restrict__ scale, const PART* __restrict__ bias, const PART* residual,
          int activation, Map map, int span, int rows) {
  DYN_SMEM(shared);
  SHARED(Line, lines, [LINES]);
  const Axis &ay = map.axes[1], &ax = map.axes[2];
  const int channels = map.groups, width = ax.result * channels;
  const int begin = blockIdx.x * (THREADS * EACH), entries = span * channels;
  const int pitch = entries + 1;  // of a row of sources; its last entry is 0
  float* row = (float*)shared;
  Phase* phases = (Phase*)(row + (LINES * pitch + 3) / 4 * 4);
  const int step = map.transposed ? ax.stride : 1, advance = map.transposed ? 1 : ax.stride;
  const int every = map.transposed ? ax.stride / ax.common : 1;
  const int turn = map.transposed ? -(ax.dilation / ax.common) : ax.dilation;
  const int column = begin / channels;  // the first, and the first source that it reads
  const int low = map.transposed
                      ? (column + ax.low - (ax.taps - 1) * ax.dilation) / ax.stride - 1
                      : column * ax.stride - ax.low;
  for (int i = threadIdx.x; i < ax.phases; i += THREADS) {
    const Walk w = walk(ax, i, map.transposed);
    phases[i] = {w.first, w.taps, w.origin - low, 0};
  }
  if (threadIdx.x < LINES) row[threadIdx.x * pitch + entries] = 0;
  __syncthreads();
  // This thread's results: where in a row of sources each tap reads, and its weight. A tap that is
  // not there weighs 0 and reads the 0.
  int at[EACH][TAPS_X], channel[EACH];
  float weights[EACH][TAPS_X];
#pragma unroll
  for (int e = 0; e < EACH; ++e) {
    const int i = begin + (ALIGNED ? threadIdx.x * EACH + e : threadIdx.x + THREADS * e);
    const int ix = i / channels, c = i - ix * channels, j = ix / step;
    const Phase p = phases[i < width ? ix - j * step : 0];
    channel[e] = c;
#pragma unroll
    for (int t = 0; t < TAPS_X; ++t) {
      const bool there = i < width && t < p.taps;
      at[e][t] = there ? (p.origin + advance * j + turn * t) * channels + c : entries;
      weights[e][t] = there ? along_x[(p.first + every * t) * channels + c] : 0;
    }
  }
  // What this thread reads of every row of sources; outside, -1.
  int source_of[SOURCES], source_channel[SOURCES];
#pragma unroll
  for (int m = 0; m < SOURCES; ++m) {
    const int i = threadIdx.x + m * THREADS, sx = low + i / channels;
    source_channel[m] = i % channels;
    source_of[m] = i < entries && (unsigned)sx < (unsigned)ax.source
                       ? sx * channels + source_channel[m]
                       : -1;
  }
  const Finish finish = {scale, bias, residual, activation};
  for (int first = blockIdx.y * LINES; first < rows; first += gridDim.y * LINES) {
    if (threadIdx.x < LINES && first + threadIdx.x < rows) {
      Line& line = lines[threadIdx.x];
      const int number = first + threadIdx.x, image = number / ay.result;
      const int iy = number - image * ay.result, j = map.transposed ? iy / ay.stride : iy;
      const Walk w = walk(ay, map.transposed ? iy - j * ay.stride : 0, map.transposed);
#pragma unroll
      for (int t = 0; t < TAPS_Y; ++t) {
        const int sy = w.origin + w.advance * j + w.turn * t;
        const bool there = t < w.taps && (unsigned)sy < (unsigned)ay.source;
        line.from[t] = there ? ((long long)image * ay.source + sy) * ax.source * channels : -1;
        line.k[t] = there ? (w.first + w.every * t) * channels : 0;
      }
    }
    __syncthreads();  // and the rows of sources before these have been read
    const int some = min(LINES, rows - first);
#pragma unroll
    for (int l = 0; l < LINES; ++l) {
      if (l >= some) break;
      float x[SOURCES][TAPS_Y];
#pragma unroll
      for (int t = 0; t < TAPS_Y; ++t) {
        const long long from = lines[l].from[t];
#pragma unroll
        for (int m = 0; m < SOURCES; ++m)
          x[m][t] = from >= 0 && source_of[m] >= 0 ? wide(source[from + source_of[m]]) : 0;
      }
#pragma unroll
      for (int m = 0; m < SOURCES; ++m) {
        float sum = 0;
#pragma unroll
        for (int t = 0; t < TAPS_Y; ++t)
          if (lines[l].from[t] >= 0)
            sum = __fmaf_rn(x[m][t], along_y[lines[l].k[t] + source_channel[m]], sum);
        if (threadIdx.x + m * THREADS < entries) row[l * pitch + threadIdx.x + m * THREADS] = sum;
      }
    }
    __syncthreads();
    for (int l = 0; l < some; ++l) {
      const float* x = row + l * pitch;
      const long long start = (long long)(first + l) * width;
      alignas(16) ELEMENT out[EACH];
#pragma unroll
      for (int e = 0; e < EACH; ++e) {
        const int i = begin + (ALIGNED ? threadIdx.x * EACH + e : threadIdx.x + THREADS * e);
        float sum = 0;
#pragma unroll
        for (int t = 0; t < TAPS_X; ++t) sum = __fmaf_rn(x[at[e][t]], weights[e][t], sum);
        if (ALIGNED) {
          if (i < width) out[e] = finish(sum, channel[e], start + i);
        } else if (i < width) {
          result[start + i] = finish(sum, channel[e], start + i);
        }
      }
      if (ALIGNED && begin + threadIdx.x * EACH < width)
        *(uint4*)(result + start + begin + threadIdx.x * EACH) = *(const uint4*)out;
    }
    __syncthreads();
  }
}
