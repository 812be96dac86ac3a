#include "core/models/kernels/rows.hpp"

namespace troupe::rows {

extern const Kernels kernels_portable, kernels_avx2, kernels_avx512;

const Kernels& kernels() {
  static const Kernels& best = []() -> const Kernels& {
    if (__builtin_cpu_supports("x86-64-v4")) return kernels_avx512;
    if (__builtin_cpu_supports("x86-64-v3")) return kernels_avx2;
    return kernels_portable;
  }();
  return best;
}

}  // namespace troupe::rows
