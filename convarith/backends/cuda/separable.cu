// W x or W^T y where every channel is by itself and its kernel is rows times columns, as for bilinear
// upsampling: taps along x first, then along y. A thread makes EACH neighbouring results of many rows,
// one below the other, and keeps what it summed along x of the last TAPS_Y rows of sources: of the
// `stride` rows of results that an upsampling makes between two, each then takes two products and no
// load. It is bound by writing, where `depthwise` multiplies all taps for every result.
#include "finish.cuh"
#include "walk.cuh"

constexpr int THREADS = 128, EACH = 16 / sizeof(ELEMENT);
// Results of a coordinate modulo the stride: kernel entries first + every*t, t < taps, read sources
// from `origin` on.
struct Phase {
  int first, taps, origin, unused;
};
// The weights of a phase along y, where the channels have them in common.
struct Weights {
  float of[TAPS_Y];
};

// source (n, h, w, channels); along_y (kh, channels), or (kh) where the channels have it in COMMON,
// along_x (kw, channels), all finite. TAPS_X and TAPS_Y are the most of a phase. blockIdx: x is the
// piece of THREADS*EACH entries of a row of results, y the strip of `strip` of the `rows` of all
// images. ALIGNED: rows of results begin at multiples of 16 bytes, and a thread writes so many.
// PLAIN: there is no epilogue.
extern "C" __global__ void __launch_bounds__(THREADS)
separable(const ELEMENT* __restrict__ source, const float* __restrict__ along_y,
          const float* __restrict__ along_x, ELEMENT* __restrict__ result,
          const PART* __restrict__ scale, const PART* __restrict__ bias, const PART* residual,
          int activation, Map map, int strip, int rows) {
  DYN_SMEM(shared);
  const Axis &ay = map.axes[1], &ax = map.axes[2];
  const bool transposed = TRANSPOSED;
  const int channels = map.groups, width = ax.result * channels;
  Phase *of_x = (Phase*)shared, *of_y = of_x + ax.phases;
#if COMMON
  Weights* common = (Weights*)(of_y + ay.phases);
#endif
  for (int i = threadIdx.x; i < ax.phases + ay.phases; i += THREADS) {
    const bool along = i < ax.phases;
    const Walk w = walk(along ? ax : ay, along ? i : i - ax.phases, transposed);
    of_x[i] = {w.first, w.taps, w.origin, 0};
#if COMMON
    if (!along)
#pragma unroll
      for (int t = 0; t < TAPS_Y; ++t)
        common[i - ax.phases].of[t] = t < w.taps ? along_y[w.first + w.every * t] : 0;
#endif
  }
  __syncthreads();
  // This thread's results: where each tap reads in a row of sources, in bytes, or -1, and its
  // weight.
  int at[EACH][TAPS_X], entry[EACH], channel[EACH];
  float weights[EACH][TAPS_X];
  {
    const int step = transposed ? ax.stride : 1, advance = transposed ? 1 : ax.stride;
    const int every = transposed ? ax.stride / ax.common : 1;
    const int turn = transposed ? -(ax.dilation / ax.common) : ax.dilation;
    const int begin = blockIdx.x * (THREADS * EACH);
#pragma unroll
    for (int e = 0; e < EACH; ++e) {
      const int i = begin + (ALIGNED ? threadIdx.x * EACH + e : threadIdx.x + THREADS * e);
      const int ix = i / channels, c = i - ix * channels, j = ix / step;
      const Phase p = of_x[i < width ? ix - j * step : 0];
      entry[e] = i, channel[e] = c;
#pragma unroll
      for (int t = 0; t < TAPS_X; ++t) {
        const int s = p.origin + advance * j + turn * t;
        const bool there = i < width && t < p.taps && (unsigned)s < (unsigned)ax.source;
        at[e][t] = there ? (s * channels + c) * (int)sizeof(ELEMENT) : -1;
        weights[e][t] = there ? along_x[(p.first + every * t) * channels + c] : 0;
      }
    }
    if (ALIGNED && entry[0] >= width) return;
  }
  const int advance = transposed ? 1 : ay.stride;
#if !COMMON
  const int every = transposed ? ay.stride / ay.common : 1;
#endif
  const int turn = transposed ? -(ay.dilation / ay.common) : ay.dilation;
  const int pitch = ax.source * channels * (int)sizeof(ELEMENT);  // of a row of sources
  const Finish finish = {scale, bias, residual, activation};
  const int first = blockIdx.y * strip, last = min(first + strip, rows);
  int image = first / ay.result, iy = first - image * ay.result;
  int j = transposed ? iy / ay.stride : iy, phase = transposed ? iy - j * ay.stride : 0;
  int have[TAPS_Y];  // the rows of sources, of all images, that were summed along x; -1: zeros
  float along[TAPS_Y][EACH] = {};
#pragma unroll
  for (int t = 0; t < TAPS_Y; ++t) have[t] = -1;
  for (int row = first; row < last; ++row) {
    const Phase p = of_y[phase];
#pragma unroll
    for (int i = 0; i < TAPS_Y; ++i) {
      // In the order in which what is there can move on: an upsampling reads upwards.
      const int t = TRANSPOSED ? TAPS_Y - 1 - i : i, next = TRANSPOSED ? t - 1 : t + 1;
      const int s = p.origin + advance * j + turn * t;
      const int want =
          t < p.taps && (unsigned)s < (unsigned)ay.source ? image * ay.source + s : -1;
      if (want == have[t]) continue;
      have[t] = want;
      if (i + 1 < TAPS_Y && want == have[next]) {
#pragma unroll
        for (int e = 0; e < EACH; ++e) along[t][e] = along[next][e];
        continue;
      }
      const char* from = (const char*)source + (long long)want * pitch;
      ELEMENT x[EACH][TAPS_X];
#pragma unroll
      for (int e = 0; e < EACH; ++e)
#pragma unroll
        for (int tx = 0; tx < TAPS_X; ++tx) {
          x[e][tx] = ELEMENT();
          if (want >= 0 && at[e][tx] >= 0) x[e][tx] = *(const ELEMENT*)(from + at[e][tx]);
        }
#pragma unroll
      for (int e = 0; e < EACH; ++e) {
        along[t][e] = 0;
#pragma unroll
        for (int tx = 0; tx < TAPS_X; ++tx)
          along[t][e] = __fmaf_rn(wide(x[e][tx]), weights[e][tx], along[t][e]);
      }
    }
#if COMMON
    const Weights weights_y = common[phase];
#endif
    float sums[EACH] = {};
#pragma unroll
    for (int t = 0; t < TAPS_Y; ++t) {
#if COMMON
      const float k = weights_y.of[t];
#pragma unroll
      for (int e = 0; e < EACH; ++e) sums[e] = __fmaf_rn(along[t][e], k, sums[e]);
#else
      const float* k = along_y + (t < p.taps ? p.first + every * t : 0) * channels;
#pragma unroll
      for (int e = 0; e < EACH; ++e) sums[e] = __fmaf_rn(along[t][e], k[channel[e]], sums[e]);
#endif
    }
    const long long start = (long long)row * width;
    if (ALIGNED) {
      alignas(16) ELEMENT out[EACH];
#pragma unroll
      for (int e = 0; e < EACH; ++e)
        out[e] = PLAIN ? narrow<ELEMENT>(sums[e]) : finish(sums[e], channel[e], start + entry[e]);
      __stcs((uint4*)(result + start + entry[0]), *(const uint4*)out);  // read by no one soon
    } else {
#pragma unroll
      for (int e = 0; e < EACH; ++e)
        if (entry[e] < width)
          result[start + entry[e]] = finish(sums[e], channel[e], start + entry[e]);
    }
    ++iy, ++phase;
    if (!transposed || phase == ay.stride) phase = 0, ++j;
    if (iy == ay.result) iy = 0, j = 0, phase = 0, ++image;
  }
}
