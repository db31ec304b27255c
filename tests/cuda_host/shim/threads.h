// The threads of one block, each a fiber; who waits for what; and how a thread reports an error.
//
// A thread runs until it waits: for the barrier, or for the other lanes of its warp. Then the
// scheduler (scheduler.cpp) takes another at random. Blocks run one by one, in random order.
#pragma once
#include "vectors.h"

#if defined(__SANITIZE_THREAD__)
extern "C" {
void __tsan_acquire(void*);
void __tsan_release(void*);
}
#define CUDA_HOST_ACQUIRE(tag) __tsan_acquire(tag)
#define CUDA_HOST_RELEASE(tag) __tsan_release(tag)
#else
#define CUDA_HOST_ACQUIRE(tag) (void)0
#define CUDA_HOST_RELEASE(tag) (void)0
#endif

// Where a call stands in the kernel: threads that meet must have come from the same line.
#define CUDA_HOST_TEXT_(x) #x
#define CUDA_HOST_TEXT(x) CUDA_HOST_TEXT_(x)
#define CUDA_HOST_HERE __FILE__ ":" CUDA_HOST_TEXT(__LINE__)

#define __global__ __attribute__((visibility("default")))
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__
#define __constant__ static
#define __align__(n) alignas(n)
#define DEV inline

#define threadIdx (cuda_host::running->index)
#define blockIdx (cuda_host::block_index)
#define blockDim (cuda_host::block_size)
#define gridDim (cuda_host::grid_size)
#define __syncthreads() cuda_host::barrier(CUDA_HOST_HERE)

namespace cuda_host {
struct Thread {
  uint3 index;
  int lane, warp;
};
extern Thread* running;
extern uint3 block_index;
extern dim3 block_size, grid_size;

// Ends the launch with an error; does not return to the kernel.
[[noreturn]] void fail(const char* error, const char* where);
// True for half of all asks, or always or never: whether an asynchronous copy is made at once.
bool copies_at_once();

void wait_for_block(const char* where);
// Waits for the lanes of `mask`; the last to come calls `act` with what each laid down.
void meet(unsigned mask, void* mine, void (*act)(void** of_lane, const void* with),
          const void* with, const char* where);

extern char barrier_tag, warp_tags[32];  // what happens before what, for the race checker
inline void barrier(const char* where) {
  CUDA_HOST_RELEASE(&barrier_tag);
  wait_for_block(where);
  CUDA_HOST_ACQUIRE(&barrier_tag);
}
}  // namespace cuda_host
