// The tables that kernels_*.cpp define; kernels.cpp chooses among them.
#pragma once

#include "core/generate/kernels.hpp"

namespace troupe::kernels {

extern const KernelTable kPortableFloat32, kPortableBFloat16;
extern const KernelTable kAvx2Float32, kAvx2BFloat16;      // AVX2 and FMA
extern const KernelTable kAvx512Float32, kAvx512BFloat16;  // AVX-512 F, BW, DQ, VL; bfloat16 widened to float32
extern const KernelTable kAvx512Bf16BFloat16;              // and AVX512-BF16
extern const KernelTable kAmxBFloat16;                     // and AMX-TILE, AMX-BF16

// Asks the kernel for the tile registers, once per process. False where there are none.
bool allow_amx();

}  // namespace troupe::kernels
