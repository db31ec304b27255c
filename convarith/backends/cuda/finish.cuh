// The epilogue: activation(scale*sum + bias + residual), in what sums are computed in.
#pragma once
#include "element.cuh"

// Of results of ELEMENT; PART is the type of all three arrays, ELEMENT or what it is computed in; an
// absent one is null. Activations: 0 none, 1 relu, 2 relu6; both let NaN pass.
struct Finish {
  typedef Computed<ELEMENT>::type Sum;
  const PART *scale, *bias, *residual;
  int activation;

  // Whether there is nothing to do: asked once, where a result costs little else.
  DEV bool none() const { return !scale && !bias && !residual && !activation; }
  DEV ELEMENT operator()(Sum sum, int channel, long long at) const {
    if (scale) sum *= (Sum)wide(scale[channel]);
    if (bias) sum += (Sum)wide(bias[channel]);
    if (residual) sum += (Sum)wide(residual[at]);
    return activation ? active(sum) : narrow<ELEMENT>(sum);
  }
  DEV ELEMENT active(f32 sum) const { return narrow<ELEMENT>(bounded(sum)); }
  DEV ELEMENT active(f64 sum) const { return narrow<ELEMENT>(bounded(sum)); }
  template <class T> DEV ELEMENT active(T sum) const {  // of integers, which wrap first
    return bounded(narrow<ELEMENT>(sum));
  }
  template <class T> DEV T bounded(T x) const {
    if (!(x != x)) x = x > T(0) ? x : T(0);
    return activation == 2 && x > T(6) ? T(6) : x;
  }
};
