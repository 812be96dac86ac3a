// Compiled with the flags of kernels_avx512.cpp and -mavx512bf16.
#include "core/generate/kernels_sets.hpp"
#include "core/generate/simd_avx512bf16.hpp"

namespace troupe::kernels {

const KernelTable kAvx512Bf16BFloat16 = make_table<Avx512Bf16, BFloat16<Avx512Bf16>>("avx512bf16");

}  // namespace troupe::kernels
