// The scheduler of threads.h and the state of a block: compiled once for all kernels, and without
// instrumentation, so that of all this no sanitizer sees anything but what it is told.
#include <sys/mman.h>

#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "launch.h"
#include "sanitizers.h"

namespace cuda_host {
Thread* running;
uint3 block_index;
dim3 block_size, grid_size;
unsigned char* dynamic_shared;
char barrier_tag, warp_tags[32];

namespace {
enum State { READY, AT_BARRIER, AT_WARP, DONE };

struct Fiber : Thread {
  State state;
  const char* where;
  void* stack_pointer;
  std::vector<std::pair<Copy, int>> copies;  // and the group of each
  size_t copied;
  int groups;  // committed
  sanitizers::Fiber shadow;
};
struct Warp {
  unsigned arrived = 0;
  void* of_lane[32];
  const char* where;
};
struct SharedArray {
  const void* key;
  unsigned char* data;
  size_t size;
};

std::vector<Fiber> fibers;  // as many as the largest block had; `block_size.x` of them run
std::vector<Warp> warps;
std::vector<int> ready;
std::vector<SharedArray> shared_arrays;
char* stacks;
size_t stacks_size;
void* main_stack_pointer;
sanitizers::Main main_shadow;
Launch launch;
Call call;
void** arguments;
std::string error;
uint64_t random_state;
char start_tag, end_tag;

uint64_t random_below(uint64_t n) {
  random_state ^= random_state << 13, random_state ^= random_state >> 7;
  random_state ^= random_state << 17;
  return (random_state >> 32) * n >> 32;  // n is below 2^32
}
Fiber& self() { return *static_cast<Fiber*>(running); }
bool same(const char* a, const char* b) { return a == b || std::strcmp(a, b) == 0; }

#if !defined(__x86_64__)
#error "switch_stacks is written for x86-64"
#endif
extern "C" void cuda_host_switch_stacks(void** save, void* to);
asm(".text\n.type cuda_host_switch_stacks,@function\ncuda_host_switch_stacks:\n"
    "pushq %rbp\npushq %rbx\npushq %r12\npushq %r13\npushq %r14\npushq %r15\n"
    "movq %rsp,(%rdi)\nmovq %rsi,%rsp\n"
    "popq %r15\npopq %r14\npopq %r13\npopq %r12\npopq %rbx\npopq %rbp\nret\n"
    ".size cuda_host_switch_stacks,.-cuda_host_switch_stacks\n");

void to_scheduler() {
  Fiber& me = self();
  sanitizers::leave(me.shadow, main_shadow, me.state == DONE);
  cuda_host_switch_stacks(&me.stack_pointer, main_stack_pointer);
  sanitizers::entered(me.shadow, main_shadow);
}
void to_fiber(int number) {
  running = &fibers[number];
  sanitizers::enter(self().shadow, main_shadow, stacks + number * sanitizers::STACK);
  cuda_host_switch_stacks(&main_stack_pointer, self().stack_pointer);
  sanitizers::left(main_shadow);
}
void wait(State state, const char* where) {
  self().state = state, self().where = where;
  to_scheduler();
}
void fiber_main() {
  sanitizers::entered(self().shadow, main_shadow);
  sanitizers::acquire(&start_tag);
  call(arguments);
  sanitizers::release(&end_tag);
  wait(DONE, "");
}

// Shared memory begins as NaNs, whatever it is read as, and the last byte is followed by none.
SharedArray shared_array(const void* key, size_t size, size_t alignment) {
  void* data = nullptr;
  if (posix_memalign(&data, alignment, size ? size : 1)) std::abort();
  return {key, (unsigned char*)data, size};
}
void clear_shared() {
  for (SharedArray& array : shared_arrays) {
    if (sanitizers::FORGETFUL) {  // a new block is a new memory to the race checker
      std::free(array.data);
      array = shared_array(array.key, array.size, array.key ? 16 : 1024);
    }
    std::memset(array.data, 0xff, array.size);
  }
  dynamic_shared = shared_arrays[0].data;
}

void make_ready(int number) { fibers[number].state = READY, ready.push_back(number); }

void start_block(int threads) {
  clear_shared();
  warps.assign((threads + 31) / 32, {});
  if (stacks && sanitizers::FORGETFUL) munmap(stacks, stacks_size), stacks = nullptr;
  if (!stacks || stacks_size < threads * sanitizers::STACK) {
    if (stacks) munmap(stacks, stacks_size);
    stacks_size = threads * sanitizers::STACK;
    stacks = (char*)mmap(nullptr, stacks_size, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (stacks == MAP_FAILED) std::abort();
  }
  ready.clear();
  for (int i = 0; i < threads; ++i) {
    Fiber& fiber = fibers[i];
    fiber.index = {(unsigned)i, 0, 0}, fiber.lane = i & 31, fiber.warp = i >> 5;
    fiber.copies.clear(), fiber.copied = fiber.groups = 0;
    sanitizers::renew(fiber.shadow);
    void** top = (void**)(stacks + (i + 1) * sanitizers::STACK) - 2;
    top[0] = (void*)fiber_main, top[1] = nullptr;
    fiber.stack_pointer = top - 6;  // the registers that are popped first
    make_ready(i);
  }
  sanitizers::release(&start_tag);
}

// One warp is held back for a while: bugs show that need a slow reader.
int next_thread(unsigned& slow) {
  if (random_below(256) == 0) slow = (unsigned)random_below(warps.size());
  size_t at = 0;
  for (int attempt = 0; attempt < 4; ++attempt) {
    at = random_below(ready.size());
    if ((unsigned)fibers[ready[at]].warp != slow) break;
  }
  const int number = ready[at];
  ready[at] = ready.back(), ready.pop_back();
  return number;
}

// Opens the barrier if all are at it, on the same line.
bool open_barrier(int threads) {
  for (int i = 0; i < threads; ++i)
    if (fibers[i].state != AT_BARRIER || !same(fibers[i].where, fibers[0].where)) return false;
  for (int i = 0; i < threads; ++i) make_ready(i);
  return true;
}

// Says who waits for what, neighbours together.
std::string deadlock(int threads) {
  static const char* const names[] = {"ready", "at the barrier of ", "in the warp of ", "done"};
  std::string text = "threads wait for each other:";
  for (int i = 0, first = 0, kinds = 0; i < threads && kinds < 6; ++i) {
    const Fiber &fiber = fibers[i], *next = i + 1 < threads ? &fibers[i + 1] : nullptr;
    if (next && next->state == fiber.state && same(next->where, fiber.where)) continue;
    text += " " + std::to_string(i + 1 - first) + " " + names[fiber.state] + fiber.where + ";";
    first = i + 1, ++kinds;
  }
  return text;
}

void run_block(int threads) {
  start_block(threads);
  unsigned slow = (unsigned)random_below(warps.size());
  int done = 0;
  while (done < threads && error.empty()) {
    if (ready.empty() && !open_barrier(threads)) {
      error = deadlock(threads);
      break;
    }
    to_fiber(next_thread(slow));
    done += self().state == DONE;
  }
}
}  // namespace

void fail(const char* what, const char* where) {
  sanitizers::Quiet quiet;
  if (error.empty())
    error = std::string(what) + " at " + where + ", block " + std::to_string(block_index.x) + "," +
            std::to_string(block_index.y) + "," + std::to_string(block_index.z) + " thread " +
            std::to_string(running->index.x);
  for (;;) to_scheduler();  // which ends the launch
}

bool copies_at_once() { return launch.copies ? launch.copies == 1 : random_below(2); }
void copy_later(const Copy& copy) {
  sanitizers::Quiet quiet;
  self().copies.push_back({copy, self().groups});
}
void commit_copies() { ++self().groups; }
bool next_copy(int left, Copy& copy) {
  Fiber& me = self();
  if (me.copied == me.copies.size()) return false;
  const auto& next = me.copies[me.copied];
  if (next.second + left >= me.groups) return false;
  copy = next.first, ++me.copied;
  return true;
}

void* static_shared(const void* key, size_t size) {
  for (const SharedArray& array : shared_arrays)
    if (array.key == key) return array.data;
  sanitizers::Quiet quiet;
  shared_arrays.push_back(shared_array(key, size, 16));
  std::memset(shared_arrays.back().data, 0xff, size);
  return shared_arrays.back().data;
}

void wait_for_block(const char* where) { wait(AT_BARRIER, where); }
void meet(unsigned mask, void* mine, void (*act)(void**, const void*), const void* with,
          const char* where) {
  Warp& warp = warps[running->warp];
  const int lane = running->lane, first = running->warp * 32;
  if (!(mask >> lane & 1)) fail("a lane is not in its own mask", where);
  if (warp.arrived && !same(warp.where, where))
    fail("the lanes of a warp are at two places", where);
  warp.where = where, warp.of_lane[lane] = mine, warp.arrived |= 1u << lane;
  if (warp.arrived != mask) return wait(AT_WARP, where);
  act(warp.of_lane, with);
  warp.arrived = 0;
  for (int other = 0; other < 32; ++other)
    if (other != lane && mask >> other & 1) make_ready(first + other);
}

const char* run(const Launch& asked, Call kernel, void** with) {
  sanitizers::Quiet quiet;
  launch = asked, call = kernel, arguments = with, error.clear();
  grid_size = {launch.grid[0], launch.grid[1], launch.grid[2]}, block_size = {launch.block, 1, 1};
  random_state = launch.seed * 2654435761ull + 88172645463325252ull;
  if (fibers.size() < launch.block) fibers.resize(launch.block);
  shared_arrays.assign(1, shared_array(nullptr, launch.shared, 1024));
  sanitizers::start(main_shadow);
  const uint64_t blocks = (uint64_t)grid_size.x * grid_size.y * grid_size.z;
  std::vector<uint64_t> order(blocks);
  for (uint64_t i = 0; i < blocks; ++i) {
    const uint64_t at = random_below(i + 1);
    order[i] = order[at], order[at] = i;
  }
  order.resize((blocks + launch.sample - 1) / launch.sample);
  for (uint64_t number : order) {
    block_index = {(unsigned)(number % grid_size.x), (unsigned)(number / grid_size.x % grid_size.y),
                   (unsigned)(number / grid_size.x / grid_size.y)};
    run_block((int)launch.block);
    if (!error.empty()) break;
  }
  if (!error.empty() && stacks) {  // threads were left in the midst of what they did
    sanitizers::forget(stacks, stacks_size);
    munmap(stacks, stacks_size), stacks = nullptr;
  }
  sanitizers::acquire(&end_tag);
  for (SharedArray& array : shared_arrays) std::free(array.data);
  return error.empty() ? nullptr : error.c_str();
}
}  // namespace cuda_host
