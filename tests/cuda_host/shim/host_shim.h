// CUDA C++ on a CPU: the kernels' ptx80.cuh takes this in the place of its inline PTX. It gives the
// same names, and CUDA's own as far as the kernels use them. See ../README.md for what is modelled.
//
// Whatever reads or writes a kernel's memory is in these headers: it is compiled with the kernel,
// and the sanitizers see it as done by the thread that the kernel's text says. What the machine
// does is in the two .cpp files, which no sanitizer instruments.
#pragma once
#include "vectors.h"
#include "numbers.h"
#include "threads.h"
#include "memory.h"
#include "warp.h"
#include "tensor_cores.h"
#include "launch.h"
