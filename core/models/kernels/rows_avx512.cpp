#define TROUPE_ROWS_SET avx512
#include "core/models/kernels/rows_table.inl"
