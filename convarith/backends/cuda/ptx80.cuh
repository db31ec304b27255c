// All inline PTX of the kernels for sm_80 and newer; no other file but ptx90.cuh, when there is one,
// may hold any. tests/cuda_host defines CONVARITH_HOST and gives the same names on a CPU.
#pragma once
#ifdef CONVARITH_HOST
#include "host_shim.h"
#else
#define DEV __device__ __forceinline__
#define SHARED(T, name, dims) __shared__ T name dims
#define DYN_SMEM(name) extern __shared__ __align__(1024) unsigned char name[]

DEV unsigned shared_address(const void* p) { return (unsigned)__cvta_generic_to_shared(p); }

// Copies some of 16 bytes to shared memory, from the first on, some time before the wait for its group,
// and zeros for the rest. Of 0 bytes nothing is read, wherever `from` is. Both addresses are multiples
// of 16.
DEV void cp_async16_of(void* to, const void* from, int bytes) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(shared_address(to)),
               "l"(from), "r"(bytes)
               : "memory");
}
DEV void cp_async16(void* to, const void* from, bool ok) { cp_async16_of(to, from, ok ? 16 : 0); }
DEV void cp_async_commit() { asm volatile("cp.async.commit_group;\n" ::: "memory"); }
// Waits until at most N of this thread's groups are under way; a barrier shows them to the others.
template <int N> DEV void cp_async_wait() {
  asm volatile("cp.async.wait_group %0;\n" ::"n"(N) : "memory");
}

// Four 8 x 8 matrices of 2-byte entries (or 8 x 4 of 4-byte ones); lane l gives the address of row
// l % 8 of matrix l / 8, and gets entries 2*(l % 4) and the next of row l / 4 of each.
DEV void ldmatrix_x4(unsigned (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];\n"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}
// The same with each matrix of 2-byte entries transposed.
DEV void ldmatrix_x4_trans(unsigned (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];\n"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}

// d += a*b for a 16 x 16 (tf32: 16 x 8) and b 16 x 8 (8 x 8), over a warp.
DEV void mma_f16_16816(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
      "{%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};\n"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
DEV void mma_bf16_16816(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
      "{%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};\n"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
DEV void mma_tf32_1688(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
      "{%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};\n"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

DEV float half_to_float(unsigned short x) {
  float r;
  asm("cvt.f32.f16 %0, %1;" : "=f"(r) : "h"(x));
  return r;
}
DEV unsigned short float_to_half(float x) {
  unsigned short r;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(r) : "f"(x));
  return r;
}
DEV float bfloat_to_float(unsigned short x) { return __uint_as_float((unsigned)x << 16); }
DEV unsigned short float_to_bfloat(float x) {
  unsigned short r;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(r) : "f"(x));
  return r;
}

// A flag that any thread may raise, read by later launches.
DEV void raise_flag(int* flag) { atomicOr(flag, 1); }
DEV int load_flag(const int* flag) { return __ldg(flag); }
#endif
