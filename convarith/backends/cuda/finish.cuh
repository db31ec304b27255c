// The epilogue: activation(scale*sum + bias + residual), in what sums are computed in.
#pragma once
#include "element.cuh"

// Of results of ELEMENT. PART is the type of `scale` and `bias`, RESIDUAL that of `residual`: each
// ELEMENT or what it is computed in; an absent one is null. Activations: 0 none, 1 relu, 2 relu6; both
// let NaN pass.
struct Finish {
  typedef Computed<ELEMENT>::type Sum;
  const PART *scale, *bias;
  const RESIDUAL* residual;
  int activation;

  // Whether there is nothing to do: asked once, where a result costs little else.
  DEV bool none() const { return !scale && !bias && !residual && !activation; }
  DEV ELEMENT operator()(Sum sum, int channel, long long at) const {
    if (scale) sum *= (Sum)wide(scale[channel]);
    if (bias) sum += (Sum)wide(bias[channel]);
    if (residual) sum += (Sum)wide(residual[at]);
    return active(sum);
  }
  DEV ELEMENT active(Sum sum) const { return activation ? rectified(sum) : narrow<ELEMENT>(sum); }
  DEV ELEMENT rectified(f32 sum) const { return narrow<ELEMENT>(bounded(sum)); }
  DEV ELEMENT rectified(f64 sum) const { return narrow<ELEMENT>(bounded(sum)); }
  template <class T> DEV ELEMENT rectified(T sum) const {  // of integers, which wrap first
    return bounded(narrow<ELEMENT>(sum));
  }
  template <class T> DEV T bounded(T x) const {
    if (!(x != x)) x = x > T(0) ? x : T(0);
    return activation == 2 && x > T(6) ? T(6) : x;
  }
};

// Loads neighbouring entries, 16 bytes at a time where they begin at a multiple of 16.
template <class T, int N, class Sum> DEV void load_wide(const T* from, bool aligned, Sum (&to)[N]) {
  constexpr int SIZE = N * sizeof(T) < 16 ? N : 16 / sizeof(T);
  if (aligned) {
#pragma unroll
    for (int i = 0; i < N; i += SIZE) {
      const Several<T, SIZE> some = *(const Several<T, SIZE>*)(from + i);
#pragma unroll
      for (int e = 0; e < SIZE; ++e) to[i + e] = (Sum)wide(some.of[e]);
    }
  } else {
#pragma unroll
    for (int i = 0; i < N; ++i) to[i] = (Sum)wide(from[i]);
  }
}

// The same of N neighbouring channels, the first one a multiple of N, for results of several pixels:
// what belongs to the channels is loaded once, where they are `there`.
template <int N> struct FinishSeveral {
  typedef Finish::Sum Sum;
  Finish finish;
  Sum scale[N], bias[N];
  bool aligned;

  DEV FinishSeveral(const Finish& finish, int channel, bool there = true) : finish(finish) {
    if (there && finish.scale) load_wide(finish.scale + channel, begins(finish.scale), scale);
    if (there && finish.bias) load_wide(finish.bias + channel, begins(finish.bias), bias);
    aligned = begins(finish.residual);
  }
  DEV static bool begins(const void* at) { return (unsigned long long)at % 16 == 0; }
  // `at` is where the first result is, a multiple of N.
  DEV Several<ELEMENT, N> operator()(const Sum (&sums)[N], long long at) const {
    Sum sum[N], there[N];
    if (finish.residual) load_wide(finish.residual + at, aligned, there);
    Several<ELEMENT, N> result;
#pragma unroll
    for (int i = 0; i < N; ++i) {
      sum[i] = sums[i];
      if (finish.scale) sum[i] *= scale[i];
      if (finish.bias) sum[i] += bias[i];
      if (finish.residual) sum[i] += there[i];
      result.of[i] = finish.active(sum[i]);
    }
    return result;
  }
};
