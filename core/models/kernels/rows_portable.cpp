#define TROUPE_ROWS_SET portable
#include "core/models/kernels/rows_table.inl"
