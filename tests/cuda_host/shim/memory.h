// Shared memory, asynchronous copies to it, and flags in global memory.
#pragma once
#include <cstddef>
#include <cstdint>

#include "threads.h"

#define SHARED(T, name, dims)  \
  static char name##_key;      \
  using name##_type = T dims;  \
  name##_type& name = *(name##_type*)cuda_host::static_shared(&name##_key, sizeof(name##_type))
#define DYN_SMEM(name) unsigned char* const name = cuda_host::dynamic_shared

namespace cuda_host {
extern unsigned char* dynamic_shared;
// The array of this block that belongs to `key`: of exactly `size` bytes, of NaNs at first.
void* static_shared(const void* key, size_t size);

struct Copy {
  void* to;
  const void* from;
  int size, given;  // zeros after as many bytes as are given
};
void copy_later(const Copy& copy);
void commit_copies();
// Gives the next copy of this thread that must be made before at most `left` groups are under way
// (-1: before the thread ends, committed or not).
bool next_copy(int left, Copy& copy);

template <class T> void make_copy_of(const Copy& copy) {
  *(T*)copy.to = copy.given == sizeof(T) ? *(const T*)copy.from : T{};
  for (int i = 0; copy.given < copy.size && i < copy.given; ++i)
    ((char*)copy.to)[i] = ((const char*)copy.from)[i];
}
inline void make_copy(const Copy& copy) {
  copy.size == 16 ? make_copy_of<uint4>(copy) : make_copy_of<unsigned>(copy);
}
inline void cp_async(const Copy& copy, const char* where) {
  if (((uintptr_t)copy.to | (uintptr_t)copy.from) % copy.size)
    fail("cp.async: an address is not a multiple of the size", where);
  if (copy.given < 0 || copy.given > copy.size) fail("cp.async: expected 0 to 16 bytes", where);
  copies_at_once() ? make_copy(copy) : copy_later(copy);
}
inline void finish_copies(int left) {
  Copy copy;
  while (next_copy(left, copy)) make_copy(copy);
}
}  // namespace cuda_host

#define cp_async16_of(to, from, bytes) \
  cuda_host::cp_async({(to), (from), 16, (bytes)}, CUDA_HOST_HERE)
#define cp_async16(to, from, ok) cp_async16_of(to, from, (ok) ? 16 : 0)
#define cp_async4(to, from, ok) \
  cuda_host::cp_async({(to), (from), 4, (ok) ? 4 : 0}, CUDA_HOST_HERE)
inline void cp_async_commit() { cuda_host::commit_copies(); }
template <int N> inline void cp_async_wait() { cuda_host::finish_copies(N); }

inline void raise_flag(int* flag) { __atomic_fetch_or(flag, 1, __ATOMIC_RELAXED); }
inline int load_flag(const int* flag) { return __atomic_load_n(flag, __ATOMIC_RELAXED); }
