// The tensor-core product of each element type: d += a*b over a warp, sums in float32.
#pragma once
#include "element.cuh"

// To TF32, the nearest; but the largest float32s, whose nearest is no finite one, towards zero, as the
// unit itself rounds.
DEV unsigned nearest_tf32(unsigned x) {
  const unsigned r = round_tf32(x);
  return (r & 0x7f800000) == 0x7f800000 ? x : r;
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
