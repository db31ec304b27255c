// The arithmetic of tensor_cores.h and warp.h, by the last lane for all: the registers of a warp.
#include "tensor_cores.h"

#include "numbers.h"

namespace cuda_host {
void exchange(unsigned mask, Shuffle& mine, const char* where) {
  meet(mask, &mine, [](void** lanes, const void* with) {
        const unsigned mask = *(const unsigned*)with;
        for (int lane = 0; lane < 32; ++lane) {
          if (!(mask >> lane & 1)) continue;
          Shuffle& to = *(Shuffle*)lanes[lane];
          if (!(mask >> to.from & 1)) fail("shuffle: from a lane outside the mask", "");
          to.out = ((Shuffle*)lanes[to.from])->in;
        }
      }, &mask, where);
}

void distribute(MatrixRow& mine, bool transposed, const char* where) {
  meet(CUDA_HOST_ALL_LANES, &mine, [](void** lanes, const void* with) {
        const bool transposed = *(const bool*)with;
        for (int matrix = 0; matrix < 4; ++matrix) {
          unsigned short entry[8][8];
          for (int row = 0; row < 8; ++row)
            __builtin_memcpy(entry[row], &((MatrixRow*)lanes[matrix * 8 + row])->entries, 16);
          for (int lane = 0; lane < 32; ++lane) {
            const int i = lane >> 2, j = (lane & 3) * 2;
            const unsigned low = transposed ? entry[j][i] : entry[i][j];
            const unsigned high = transposed ? entry[j + 1][i] : entry[i][j + 1];
            ((MatrixRow*)lanes[lane])->fragment[matrix] = low | high << 16;
          }
        }
      }, &transposed, where);
}

static float factor(Factors factors, unsigned bits, int which) {
  if (factors == Factors::tf32)  // the low 13 bits are not read
    return __uint_as_float(bits & 0xffffe000u);
  const unsigned short half = (unsigned short)(which ? bits >> 16 : bits);
  return factors == Factors::half ? half_to_float(half) : bfloat_to_float(half);
}

// One m16n8k16 or, of TF32, m16n8k8. The GPU adds products in wider fixed point in an order that
// it does not tell; here they are added in float32, in the order of k.
static void multiply_warp(void** lanes, const void* with) {
  const Factors factors = *(const Factors*)with;
  const int each = factors == Factors::tf32 ? 1 : 2, depth = 8 * each;  // factors in a register
  float a[16][16], b[16][8];
  for (int lane = 0; lane < 32; ++lane) {
    const Product& mine = *(const Product*)lanes[lane];
    const int group = lane >> 2, k = (lane & 3) * each;
    for (int which = 0; which < each; ++which) {
      for (int r = 0; r < 4; ++r)
        a[group + (r & 1) * 8][k + which + (r >> 1) * (depth / 2)] =
            factor(factors, mine.a[r], which);
      for (int r = 0; r < 2; ++r)
        b[k + which + r * (depth / 2)][group] = factor(factors, mine.b[r], which);
    }
  }
  float product[16][8] = {};
  for (int i = 0; i < 16; ++i)
    for (int k = 0; k < depth; ++k)
      for (int j = 0; j < 8; ++j) product[i][j] += a[i][k] * b[k][j];
  for (int lane = 0; lane < 32; ++lane)
    for (int e = 0; e < 4; ++e)
      ((Product*)lanes[lane])->d[e] +=
          product[(lane >> 2) + (e >> 1) * 8][(lane & 3) * 2 + (e & 1)];
}
void multiply(Factors factors, Product& mine, const char* where) {
  meet(CUDA_HOST_ALL_LANES, &mine, multiply_warp, &factors, where);
}
}  // namespace cuda_host
