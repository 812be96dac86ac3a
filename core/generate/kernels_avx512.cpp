// Compiled with -mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma.
#include "core/generate/kernels_sets.hpp"
#include "core/generate/simd_avx512.hpp"

namespace troupe::kernels {

const KernelTable kAvx512Float32 = make_table<Avx512, Float32<Avx512>>("avx512");
const KernelTable kAvx512BFloat16 = make_table<Avx512, BFloat16<Avx512>>("avx512");

}  // namespace troupe::kernels
