// y = rows of 64 of x added up: three stages of asynchronous copies, and the ways to get it wrong.
// Every thread copies one entry of a row and reads one that a thread of the other warp copied.
#include "ptx80.cuh"

constexpr int STAGES = 3, THREADS = 64;

extern "C" __global__ void __launch_bounds__(THREADS)
pipeline(const float* x, float* y, int rows) {
  DYN_SMEM(shared);
  float* stages = (float*)shared;
  const int thread = threadIdx.x;
  auto load = [&](int row) {
    const bool ok = row < rows;
    cp_async4(stages + row % STAGES * THREADS + thread, x + (ok ? row * THREADS + thread : 0), ok);
#ifndef BUG_NO_COMMIT
    cp_async_commit();
#endif
  };
  load(0), load(1);
  float sum = 0;
  for (int row = 0; row < rows; ++row) {
#if defined(BUG_WAIT_FOR_TOO_FEW)
    cp_async_wait<2>();
#elif !defined(BUG_NO_WAIT)
    cp_async_wait<1>();
#endif
#ifndef BUG_NO_BARRIER
    __syncthreads();  // the row is there for all, and the one before has been read by all
#endif
#ifdef BUG_EARLY_RELEASE
    load(row + 3);  // into the stage that is read below
#else
    load(row + 2);
#endif
    sum += stages[row % STAGES * THREADS + (thread ^ 33)];
  }
  y[thread] = sum;
}
