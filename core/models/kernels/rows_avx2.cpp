#define TROUPE_ROWS_SET avx2
#include "core/models/kernels/rows_table.inl"
