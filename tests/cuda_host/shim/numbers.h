// Arithmetic that CUDA C++ has and C++ has not: conversions of half types, bits, min and max.
#pragma once
#include <cmath>

template <class To, class From> inline To cuda_host_bits(From from) {
  static_assert(sizeof(To) == sizeof(From), "as many bits");
  To to;
  __builtin_memcpy(&to, &from, sizeof to);
  return to;
}
inline unsigned __float_as_uint(float x) { return cuda_host_bits<unsigned>(x); }
inline int __float_as_int(float x) { return cuda_host_bits<int>(x); }
inline float __uint_as_float(unsigned x) { return cuda_host_bits<float>(x); }
inline float __int_as_float(int x) { return cuda_host_bits<float>(x); }
inline float __fmaf_rn(float a, float b, float c) { return std::fmaf(a, b, c); }
inline double __fma_rn(double a, double b, double c) { return std::fma(a, b, c); }
template <class T> inline T __ldg(const T* p) { return *p; }
// A store that hints that no one reads it soon.
template <class T> inline void __stcs(T* p, T x) { *p = x; }

// CUDA overloads min and max for mixed arguments too, and takes the common type.
template <class A, class B> inline auto min(A a, B b) -> decltype(a + b) {
  using T = decltype(a + b);
  return T(b) < T(a) ? T(b) : T(a);
}
template <class A, class B> inline auto max(A a, B b) -> decltype(a + b) {
  using T = decltype(a + b);
  return T(a) < T(b) ? T(b) : T(a);
}
inline float min(float a, float b) { return std::fmin(a, b); }  // of a NaN and a number, the number
inline float max(float a, float b) { return std::fmax(a, b); }
inline double min(double a, double b) { return std::fmin(a, b); }
inline double max(double a, double b) { return std::fmax(a, b); }

inline float fabsf(float x) { return std::fabs(x); }

inline float bfloat_to_float(unsigned short x) { return __uint_as_float((unsigned)x << 16); }
inline unsigned short float_to_bfloat(float x) {
  if (x != x) return 0x7fff;  // the GPU's one NaN
  const unsigned u = __float_as_uint(x);
  return (unsigned short)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

inline float half_to_float(unsigned short x) {
  const unsigned sign = (x & 0x8000u) << 16, exponent = x >> 10 & 31, fraction = x & 0x3ffu;
  if (exponent == 31) return __uint_as_float(sign | 0x7f800000u | fraction << 13);
  if (exponent) return __uint_as_float(sign | (exponent + 112) << 23 | fraction << 13);
  const float tiny = (float)fraction * 0x1p-24f;  // exact, subnormal or zero
  return sign ? -tiny : tiny;
}
inline unsigned short float_to_half(float x) {
  if (x != x) return 0x7fff;
  const unsigned u = __float_as_uint(x), size = u & 0x7fffffffu;
  const unsigned short sign = (unsigned short)(u >> 16 & 0x8000u);
  if (size >= 0x477ff000u) return sign | 0x7c00;  // 65520 and more round to infinity
  if (size < 0x38800000u) {                       // below 2^-14: float's own rounding at 2^-24
    const float aligned = __uint_as_float(size) + 0.5f;
    return sign | (unsigned short)(__float_as_uint(aligned) - 0x3f000000u);
  }
  return sign | (unsigned short)((size + 0xfff + (size >> 13 & 1) - 0x38000000u) >> 13);
}
