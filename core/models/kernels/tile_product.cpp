// What this machine multiplies with.
#include "core/models/kernels/tile_product.hpp"

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace troupe::tiles {

extern const Kernels kernels_amx, kernels_avx512;

namespace {

bool has_amx() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx)) return false;
  const bool tile = edx >> 24 & 1, products = edx >> 22 & 1;
  if (!tile || !products) return false;
  constexpr long kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

}  // namespace

const Kernels* kernels() {
  static const Kernels* const found = []() -> const Kernels* {
    if (!__builtin_cpu_supports("x86-64-v4") || !__builtin_cpu_supports("avx512bf16")) return nullptr;
    if (has_amx()) return &kernels_amx;
    return __builtin_cpu_is("amd") ? &kernels_avx512 : nullptr;
  }();
  return found;
}

}  // namespace troupe::tiles
