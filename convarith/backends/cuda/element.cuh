// What arrays hold, what sums of it are computed in, and the way from one to the other.
#pragma once
#include "ptx80.cuh"

typedef float f32;
typedef double f64;
struct f16 { unsigned short bits; };
struct bf16 { unsigned short bits; };
typedef signed char i8;
typedef short i16;
typedef int i32;
typedef long long i64;
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

// Integers are computed modulo a power of two that the dtype's own divides.
template <class T> struct Computed { typedef u32 type; };
template <> struct Computed<f32> { typedef f32 type; };
template <> struct Computed<f16> { typedef f32 type; };
template <> struct Computed<bf16> { typedef f32 type; };
template <> struct Computed<f64> { typedef f64 type; };
template <> struct Computed<i64> { typedef u64 type; };
template <> struct Computed<u64> { typedef u64 type; };

template <class T> DEV typename Computed<T>::type wide(T x) { return x; }
template <> DEV f32 wide<f16>(f16 x) { return half_to_float(x.bits); }
template <> DEV f32 wide<bf16>(bf16 x) { return bfloat_to_float(x.bits); }

template <class T> DEV T narrow(typename Computed<T>::type x) { return (T)x; }
template <> DEV f16 narrow<f16>(f32 x) { return f16{float_to_half(x)}; }
template <> DEV bf16 narrow<bf16>(f32 x) { return bf16{float_to_bfloat(x)}; }

DEV f32 multiply_add(f32 a, f32 b, f32 c) { return __fmaf_rn(a, b, c); }
DEV f64 multiply_add(f64 a, f64 b, f64 c) { return fma(a, b, c); }
DEV u32 multiply_add(u32 a, u32 b, u32 c) { return a * b + c; }
DEV u64 multiply_add(u64 a, u64 b, u64 c) { return a * b + c; }

// Zero, infinities and NaN at once: x - x is 0 for finite numbers alone.
template <class T> DEV bool finite(T x) { return wide(x) - wide(x) == 0; }

// Neighbouring entries of an array, and the same as sums have them. Of two bfloat16s in a word each is
// one instruction; as halfwords they would be two.
template <class T, int N> struct alignas(N * sizeof(T)) Several {
  T of[N];
};
template <class T, int N>
DEV void widen(const Several<T, N>& from, typename Computed<T>::type (&to)[N]) {
#pragma unroll
  for (int i = 0; i < N; ++i) to[i] = wide(from.of[i]);
}
DEV void widen(const Several<bf16, 8>& from, f32 (&to)[8]) {
  const uint4 words = *(const uint4*)&from;
  const unsigned word[4] = {words.x, words.y, words.z, words.w};
#pragma unroll
  for (int i = 0; i < 8; ++i)
    to[i] = __uint_as_float(i % 2 ? word[i / 2] & 0xffff0000u : word[i / 2] << 16);
}
