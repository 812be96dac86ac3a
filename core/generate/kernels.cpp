// What this machine can do, and the choice among the tables.
#include "core/generate/kernels.hpp"

#include <cpuid.h>

#include <stdexcept>

#include "core/generate/kernels_sets.hpp"

namespace troupe::kernels {
namespace {

struct CpuidLeaf {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
};

CpuidLeaf cpuid(unsigned leaf, unsigned subleaf) {
  CpuidLeaf r;
  __get_cpuid_count(leaf, subleaf, &r.eax, &r.ebx, &r.ecx, &r.edx);
  return r;
}

bool has_avx512() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

bool has_avx512bf16() {
  return has_avx512() && (cpuid(7, 1).eax >> 5 & 1);
}

bool has_amx() {
  const unsigned features = cpuid(7, 0).edx;
  const bool tile = features >> 24 & 1, bf16 = features >> 22 & 1;
  static const bool usable = has_avx512bf16() && tile && bf16 && allow_amx();
  return usable;
}

std::vector<const KernelTable*> tables(bool bf16) {
  std::vector<const KernelTable*> found;
  if (bf16 && has_amx()) found.push_back(&kAmxBFloat16);
  if (bf16 && has_avx512bf16()) found.push_back(&kAvx512Bf16BFloat16);
  if (has_avx512()) found.push_back(bf16 ? &kAvx512BFloat16 : &kAvx512Float32);
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
    found.push_back(bf16 ? &kAvx2BFloat16 : &kAvx2Float32);
  found.push_back(bf16 ? &kPortableBFloat16 : &kPortableFloat32);
  return found;
}

}  // namespace

std::vector<std::string> available(bool bf16) {
  std::vector<std::string> names;
  for (const KernelTable* t : tables(bf16)) names.emplace_back(t->name);
  return names;
}

const KernelTable& choose(const std::string& choice, bool bf16) {
  const auto found = tables(bf16);
  if (choice == "auto") return *found.front();
  std::string names = "auto";
  for (const KernelTable* t : found) {
    if (choice == t->name) return *t;
    names += std::string(", ") + t->name;
  }
  throw std::invalid_argument("kernels \"" + choice + "\" for " + (bf16 ? "bfloat16" : "float32") +
                              ": this machine has " + names);
}

}  // namespace troupe::kernels
