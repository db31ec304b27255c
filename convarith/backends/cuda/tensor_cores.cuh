// The tensor-core product of each element type: d += a*b over a warp, sums in float32.
#pragma once
#include "element.cuh"

// A number whose leading 19 bits, all that the unit reads, are the nearest TF32, ties away from zero;
// but the largest float32s, whose nearest is no finite one, infinities and NaNs stay. cvt.rna.tf32
// would take about nine instructions.
DEV unsigned nearest_tf32(unsigned x) {
  return fabsf(__uint_as_float(x)) < __uint_as_float(0x7f7ff000) ? x + 0x1000 : x;
}

DEV void multiply(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1, f16) {
  mma_f16_16816(d, a, b0, b1);
}
DEV void multiply(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1, bf16) {
  mma_bf16_16816(d, a, b0, b1);
}
DEV void multiply(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1, f32) {
  mma_tf32_1688(d, a, b0, b1);  // of operands that are rounded to TF32
}
