// ldmatrix and mma.sync: fragments go between lanes as the PTX manual draws them.
#pragma once
#include <cstdint>

#include "warp.h"

#define ldmatrix_x4(r, row) cuda_host::ldmatrix(r, row, false, CUDA_HOST_HERE)
#define ldmatrix_x4_trans(r, row) cuda_host::ldmatrix(r, row, true, CUDA_HOST_HERE)
#define mma_f16_16816(d, a, b0, b1) \
  cuda_host::mma(cuda_host::Factors::half, d, a, b0, b1, CUDA_HOST_HERE)
#define mma_bf16_16816(d, a, b0, b1) \
  cuda_host::mma(cuda_host::Factors::bfloat, d, a, b0, b1, CUDA_HOST_HERE)
#define mma_tf32_1688(d, a, b0, b1) \
  cuda_host::mma(cuda_host::Factors::tf32, d, a, b0, b1, CUDA_HOST_HERE)

namespace cuda_host {
struct MatrixRow {
  uint4 entries;
  unsigned* fragment;
};
void distribute(MatrixRow& mine, bool transposed, const char* where);

inline void ldmatrix(unsigned (&fragment)[4], const void* row, bool transposed,
                     const char* where) {
  if ((uintptr_t)row % 16) fail("ldmatrix: a row is not aligned to 16 bytes", where);
  MatrixRow mine = {*(const uint4*)row, fragment};  // read by the lane that gave the address
  distribute(mine, transposed, where);
}

enum class Factors { half, bfloat, tf32 };
struct Product {
  float* d;
  const unsigned* a;
  unsigned b[2];
};
void multiply(Factors factors, Product& mine, const char* where);

inline void mma(Factors factors, float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1,
                const char* where) {
  Product mine = {d, a, {b0, b1}};
  multiply(factors, mine, where);
}
}  // namespace cuda_host
