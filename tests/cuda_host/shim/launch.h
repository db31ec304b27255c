// From the outside to a kernel: what its arguments are, and a run of its grid.
#pragma once
#include <string>
#include <type_traits>
#include <utility>

#include "memory.h"

namespace cuda_host {
struct Launch {
  unsigned grid[3], block, shared;
  unsigned seed, copies, sample;  // copies: 0 at random, 1 at issue, 2 at the wait
};
using Call = void (*)(void** arguments);
// Runs all blocks, or about one in `sample`, and returns what went wrong or null.
const char* run(const Launch& launch, Call call, void** arguments);

// One argument as kind and size: f4, i8, s96; pointers begin with P, or C to constants; Pv is void.
template <class T> std::string described() {
  if constexpr (std::is_pointer_v<T>) {
    using To = std::remove_pointer_t<T>;
    const std::string kind = std::is_const_v<To> ? "C" : "P";
    if constexpr (std::is_void_v<To>)
      return kind + "v0";
    else
      return kind + described<std::remove_const_t<To>>();
  } else {
    const char* kind = std::is_floating_point_v<T> ? "f" : std::is_integral_v<T> ? "i" : "s";
    return kind + std::to_string(sizeof(T));
  }
}

template <auto kernel> struct Exported;
template <class... Args, void (*kernel)(Args...)> struct Exported<kernel> {
  static const char* signature() {
    static const std::string text = ((described<std::remove_const_t<Args>>() + " ") + ... + "");
    return text.c_str();
  }
  template <size_t... I> static void call(void** arguments, std::index_sequence<I...>) {
    kernel(*(std::remove_const_t<Args>*)arguments[I]...);
    finish_copies(-1);  // what nobody waited for is made in the end
  }
  static const char* run(const Launch* launch, void** arguments) {
    return cuda_host::run(
        *launch, [](void** a) { call(a, std::index_sequence_for<Args...>()); }, arguments);
  }
};
}  // namespace cuda_host

#define CUDA_HOST_EXPORT(kernel)                                                                \
  extern "C" __global__ const char* kernel##_run(const cuda_host::Launch* l, void** a) {        \
    return cuda_host::Exported<kernel>::run(l, a);                                              \
  }                                                                                             \
  extern "C" __global__ const char* kernel##_signature() {                                      \
    return cuda_host::Exported<kernel>::signature();                                            \
  }
