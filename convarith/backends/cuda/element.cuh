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

// One of the two entries of a word.
template <class T> DEV typename Computed<T>::type half_of(u32 word, bool upper) {
  return wide(T{(unsigned short)(upper ? word >> 16 : word)});
}
template <> DEV f32 half_of<bf16>(u32 word, bool upper) {
  return __uint_as_float(upper ? word & 0xffff0000u : word << 16);
}

template <class T> DEV T narrow(typename Computed<T>::type x) { return (T)x; }
template <> DEV f16 narrow<f16>(f32 x) { return f16{float_to_half(x)}; }
template <> DEV bf16 narrow<bf16>(f32 x) { return bf16{float_to_bfloat(x)}; }

DEV f32 multiply_add(f32 a, f32 b, f32 c) { return __fmaf_rn(a, b, c); }
DEV f64 multiply_add(f64 a, f64 b, f64 c) { return fma(a, b, c); }
DEV u32 multiply_add(u32 a, u32 b, u32 c) { return a * b + c; }
DEV u64 multiply_add(u64 a, u64 b, u64 c) { return a * b + c; }

// Zero, infinities and NaN at once: x - x is 0 for finite numbers alone.
template <class T> DEV bool finite(T x) { return wide(x) - wide(x) == 0; }

// Neighbouring entries of an array, and the word of as many bytes.
template <class T, int N> struct alignas(N * sizeof(T)) Several {
  T of[N];
};
template <int BYTES> struct Word;
template <> struct Word<2> { typedef unsigned short type; };
template <> struct Word<4> { typedef unsigned type; };
template <> struct Word<8> { typedef uint2 type; };
template <> struct Word<16> { typedef uint4 type; };

// The same entries as sums have them. Those of two bytes are read as whole words, of which each is a
// half; one by one the compiler would load them so.
template <class T, int N>
DEV void widen(const Several<T, N>& from, typename Computed<T>::type (&to)[N]) {
  if constexpr (sizeof(T) == 2 && N % 2 == 0) {
    union {
      typename Word<N * sizeof(T)>::type bits;
      unsigned word[N / 2];
    } words;
    words.bits = *(const typename Word<N * sizeof(T)>::type*)&from;
#pragma unroll
    for (int i = 0; i < N; ++i) to[i] = half_of<T>(words.word[i / 2], i % 2);
  } else {
#pragma unroll
    for (int i = 0; i < N; ++i) to[i] = wide(from.of[i]);
  }
}

// Stores them at once, where they will not be read soon.
template <class T, int N> DEV void store_streaming(T* to, const Several<T, N>& from) {
  typedef typename Word<N * sizeof(T)>::type Bits;
  __stcs((Bits*)to, *(const Bits*)&from);
}
