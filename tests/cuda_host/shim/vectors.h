// CUDA's vector types, sized and aligned as CUDA's, so that a misaligned 16-byte load is one here.
#pragma once

#define CUDA_HOST_VECTORS(name, T)                                           \
  struct alignas(2 * sizeof(T)) name##2 { T x, y; };                         \
  struct name##3 { T x, y, z; };                                             \
  struct alignas(4 * sizeof(T)) name##4 { T x, y, z, w; };                   \
  inline name##2 make_##name##2(T x, T y) { return {x, y}; }                 \
  inline name##3 make_##name##3(T x, T y, T z) { return {x, y, z}; }         \
  inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }
CUDA_HOST_VECTORS(float, float)
CUDA_HOST_VECTORS(int, int)
CUDA_HOST_VECTORS(uint, unsigned)
CUDA_HOST_VECTORS(short, short)
CUDA_HOST_VECTORS(ushort, unsigned short)
CUDA_HOST_VECTORS(char, signed char)
CUDA_HOST_VECTORS(uchar, unsigned char)
#undef CUDA_HOST_VECTORS
struct alignas(16) double2 { double x, y; };
struct alignas(16) longlong2 { long long x, y; };
struct alignas(16) ulonglong2 { unsigned long long x, y; };
inline double2 make_double2(double x, double y) { return {x, y}; }
inline longlong2 make_longlong2(long long x, long long y) { return {x, y}; }
inline ulonglong2 make_ulonglong2(unsigned long long x, unsigned long long y) { return {x, y}; }

struct dim3 { unsigned x, y, z; };
static_assert(alignof(float4) == 16 && alignof(uint2) == 8 && alignof(uint3) == 4, "as CUDA's");
