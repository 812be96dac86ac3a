// What the machine can do at most, measured now: a bound is only fair when taken in the same minute.
#pragma once

#include <c10/core/ScalarType.h>

#include <string>

namespace troupe::bench {

double memory_bytes_per_s(int threads);                         // reading, best of several passes over 512 MiB
double matmul_flops_per_s(int threads, c10::ScalarType dtype);  // at::matmul of 1536 cubed, best of several
std::string machine_name();                                     // the processor's name and number of threads
double load_average();                                          // of the last minute

}  // namespace troupe::bench
