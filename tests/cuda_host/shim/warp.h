// What the lanes of a warp do together: shuffles and __syncwarp.
#pragma once
#include "threads.h"

#define CUDA_HOST_ALL_LANES 0xffffffffu
#define __shfl_sync(mask, value, lane) \
  cuda_host::shuffle(mask, value, (lane) & 31, CUDA_HOST_HERE)
#define __shfl_xor_sync(mask, value, lanes) \
  cuda_host::shuffle(mask, value, cuda_host::running->lane ^ (lanes), CUDA_HOST_HERE)
#define __shfl_down_sync(mask, value, lanes) \
  cuda_host::shuffle(mask, value, cuda_host::running->lane + (lanes), CUDA_HOST_HERE)
#define __syncwarp cuda_host::SyncWarp{CUDA_HOST_HERE}

namespace cuda_host {
struct Shuffle {
  unsigned long long in, out;
  int from;
};
void exchange(unsigned mask, Shuffle& mine, const char* where);

template <class T> T shuffle(unsigned mask, T value, int from, const char* where) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8, "as CUDA's");
  Shuffle mine = {0, 0, from < 32 ? from : running->lane};
  __builtin_memcpy(&mine.in, &value, sizeof value);
  exchange(mask, mine, where);
  __builtin_memcpy(&value, &mine.out, sizeof value);
  return value;
}
struct SyncWarp {
  const char* where;
  void operator()(unsigned mask = CUDA_HOST_ALL_LANES) const {
    CUDA_HOST_RELEASE(warp_tags + running->warp);
    meet(mask, nullptr, [](void**, const void*) {}, nullptr, where);
    CUDA_HOST_ACQUIRE(warp_tags + running->warp);
  }
};
}  // namespace cuda_host
