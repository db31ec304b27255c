// W x or W^T y where every channel is by itself and its kernel is rows times columns, as for bilinear
// upsampling. A block makes a piece of a row of results: the taps along y first, one row of sources
// for all of the piece, then those along x, both in shared memory, and then it writes 16 bytes a
// thread. It is bound by writing, where `depthwise` multiplies all taps for every result.
#include "finish.cuh"
#include "walk.cuh"

constexpr int THREADS = 256, WRITTEN = 16 / sizeof(ELEMENT);
// Results of a column modulo the stride: kernel entries first + every*t, t < taps, read from
// `origin` on.
struct Phase {
  int first, taps, origin, unused;
};

// source (n, h, w, channels); along_y (kh, channels), along_x (kw, channels), all finite. blockIdx: x
// is the piece of `columns` results, y the first of its `rows` (of all images). `span`: sources that
// a piece can read along x. EACH phases of a column are a thread's. ALIGNED: pieces begin and end at
// multiples of 16 bytes.
extern "C" __global__ void __launch_bounds__(THREADS)
separable(const ELEMENT* __restrict__ source, const float* __restrict__ along_y,
          const float* __restrict__ along_x, ELEMENT* __restrict__ result,
          const PART* __restrict__ scale, const PART* __restrict__ bias, const PART* residual,
          int activation, Map map, int columns, int span, int rows) {
  DYN_SMEM(shared);
  const Axis &ay = map.axes[1], &ax = map.axes[2];
  const int channels = map.groups, begin = blockIdx.x * columns;
  const int end = min(ax.result, begin + columns), count = (end - begin) * channels;
  ELEMENT* finished = (ELEMENT*)shared;
  Phase* phases = (Phase*)(shared + (columns * channels + WRITTEN - 1) / WRITTEN * 16);
  float *row = (float*)(phases + ax.phases), *weights = row + span * channels;
  const Walk any = walk(ax, 0, map.transposed);  // step and advance are those of all phases
  const int every = map.transposed ? ax.stride / ax.common : 1;
  const int turn = map.transposed ? -(ax.dilation / ax.common) : ax.dilation;
  const int reach = (ax.taps - 1) * ax.dilation;
  const int low = map.transposed ? (begin + ax.low - reach) / ax.stride - 1
                                 : begin * ax.stride - ax.low;  // the first source in `row`
  for (int i = threadIdx.x; i < ax.taps * channels; i += THREADS) weights[i] = along_x[i];
  for (int i = threadIdx.x; i < ax.phases; i += THREADS) {
    const Walk w = walk(ax, i, map.transposed);
    phases[i] = {w.first, w.taps, w.origin - low, 0};
  }
  const int first_j = begin / any.step, js = (end - 1) / any.step - first_j + 1;
  const int blocks = (ax.phases + EACH - 1) / EACH;
  const Finish finish = {scale, bias, residual, activation};
  for (int line = blockIdx.y; line < rows; line += gridDim.y) {
    const int image = line / ay.result, iy = line - image * ay.result;
    const int jy = map.transposed ? iy / ay.stride : iy;
    const Walk wy = walk(ay, map.transposed ? iy - jy * ay.stride : 0, map.transposed);
    const long long image_row = (long long)image * ay.source;
    for (int i = threadIdx.x; i < span * channels; i += THREADS) {
      const int column = i / channels, c = i - column * channels, sx = low + column;
      float sum = 0;
      if ((unsigned)sx < (unsigned)ax.source)
        for (int t = 0; t < wy.taps; ++t) {
          const int sy = wy.origin + wy.advance * jy + wy.turn * t;
          if ((unsigned)sy < (unsigned)ay.source)
            sum = __fmaf_rn(wide(source[((image_row + sy) * ax.source + sx) * channels + c]),
                            along_y[(wy.first + wy.every * t) * channels + c], sum);
        }
      row[i] = sum;
    }
    __syncthreads();  // the row of sources is there, and the tables
    const long long start = ((long long)line * ax.result + begin) * channels;
    for (int i = threadIdx.x; i < js * blocks * channels; i += THREADS) {
      const int unit = i / channels, c = i - unit * channels;
      const int j = unit / blocks + first_j, phase = (unit - (j - first_j) * blocks) * EACH;
      const float* from = row + (any.advance * j) * channels + c;
#pragma unroll
      for (int e = 0; e < EACH; ++e) {
        const int ix = any.step * j + phase + e;
        if (phase + e >= ax.phases || ix < begin || ix >= end) continue;
        const Phase p = phases[phase + e];
        const float *x = from + p.origin * channels, *w = weights + p.first * channels + c;
        float sum = 0;
        for (int t = 0; t < p.taps; ++t, x += turn * channels, w += every * channels)
          sum = __fmaf_rn(*x, *w, sum);
        const int at = (ix - begin) * channels + c;
        finished[at] = finish(sum, c, start + at);
      }
    }
    __syncthreads();  // the results are there, and the row of sources has been read
#if ALIGNED
    for (int i = threadIdx.x; i < count / WRITTEN; i += THREADS)
      ((uint4*)(result + start))[i] = ((const uint4*)finished)[i];
#else
    for (int i = threadIdx.x; i < count; i += THREADS) result[start + i] = finished[i];
#endif
  }
}
