// What AddressSanitizer and ThreadSanitizer must be told of fibers. They are nothing to each other
// but what barriers, and acquire and release, say: so two accesses without a barrier between them
// are a race however the scheduler happened to order them. Only scheduler.cpp includes this.
#pragma once
#include <cstddef>

#if defined(CUDA_HOST_ADDRESS)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#elif defined(CUDA_HOST_THREAD)
#include <sanitizer/tsan_interface.h>
extern "C" {
void AnnotateIgnoreReadsBegin(const char*, int);
void AnnotateIgnoreReadsEnd(const char*, int);
void AnnotateIgnoreWritesBegin(const char*, int);
void AnnotateIgnoreWritesEnd(const char*, int);
}
#endif

namespace cuda_host::sanitizers {
#if defined(CUDA_HOST_THREAD)
constexpr size_t STACK = 64 << 10;
constexpr bool FORGETFUL = true;  // memory is used again only after it was given back
struct Main { void* fiber = nullptr; };
struct Fiber { void* fiber = nullptr; };
// The allocator and memset are instrumented even where the caller is not.
struct Quiet {
  Quiet() { AnnotateIgnoreReadsBegin("", 0), AnnotateIgnoreWritesBegin("", 0); }
  ~Quiet() { AnnotateIgnoreWritesEnd("", 0), AnnotateIgnoreReadsEnd("", 0); }
};
inline void acquire(void* tag) { __tsan_acquire(tag); }
inline void release(void* tag) { __tsan_release(tag); }
inline void start(Main& main) { main.fiber = __tsan_get_current_fiber(); }
inline void renew(Fiber& fiber) {
  if (fiber.fiber) __tsan_destroy_fiber(fiber.fiber);
  fiber.fiber = __tsan_create_fiber(0);
}
inline void enter(Fiber& fiber, Main&, const void*) {
  __tsan_switch_to_fiber(fiber.fiber, __tsan_switch_to_fiber_no_sync);
}
inline void left(Main&) {}
inline void leave(Fiber&, Main& main, bool) {
  __tsan_switch_to_fiber(main.fiber, __tsan_switch_to_fiber_no_sync);
}
inline void entered(Fiber&, Main&) {}
inline void forget(void*, size_t) {}
#else
constexpr size_t STACK = 256 << 10;
constexpr bool FORGETFUL = false;
struct Quiet { ~Quiet() {} };
inline void acquire(void*) {}
inline void release(void*) {}
#if defined(CUDA_HOST_ADDRESS)
struct Main { void* fake = nullptr; const void* bottom = nullptr; size_t size = 0; };
struct Fiber { void* fake = nullptr; };
inline void start(Main&) {}
inline void renew(Fiber& fiber) { fiber.fake = nullptr; }
inline void enter(Fiber&, Main& main, const void* stack) {
  __sanitizer_start_switch_fiber(&main.fake, stack, STACK);
}
inline void left(Main& main) { __sanitizer_finish_switch_fiber(main.fake, nullptr, nullptr); }
inline void leave(Fiber& fiber, Main& main, bool last) {
  __sanitizer_start_switch_fiber(last ? nullptr : &fiber.fake, main.bottom, main.size);
}
inline void entered(Fiber& fiber, Main& main) {
  __sanitizer_finish_switch_fiber(fiber.fake, &main.bottom, &main.size);
}
inline void forget(void* stacks, size_t size) { __asan_unpoison_memory_region(stacks, size); }
#else
struct Main {};
struct Fiber {};
inline void start(Main&) {}
inline void renew(Fiber&) {}
inline void enter(Fiber&, Main&, const void*) {}
inline void left(Main&) {}
inline void leave(Fiber&, Main&, bool) {}
inline void entered(Fiber&, Main&) {}
inline void forget(void*, size_t) {}
#endif
#endif
}  // namespace cuda_host::sanitizers
