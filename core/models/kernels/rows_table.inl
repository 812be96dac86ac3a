// Included once per instruction set, with TROUPE_ROWS_SET naming it: all loops and their table.
#include "core/models/kernels/rows.hpp"

namespace troupe::rows {
namespace {

// In this order.
// clang-format off
#include "core/models/kernels/rows_scalar.inl"
#include "core/models/kernels/rows_layers.inl"
#include "core/models/kernels/rows_attention.inl"
#include "core/models/kernels/rows_training.inl"
// clang-format on

template <class T>
constexpr Typed<T> typed_table() {
  return {.add_norm = add_norm<T>,
          .scale = scale<T>,
          .norm_backward = norm_backward<T>,
          .swiglu = swiglu<T>,
          .swiglu_backward = swiglu_backward<T>,
          .rotate = rotate<T>,
          .rotate_backward = rotate_backward<T>,
          .softmax_panels = softmax_panels<T>,
          .attention_backward = attention_backward,
          .pack = pack,
          .pack_transposed = pack_transposed,
          .transpose = transpose<T>,
          .store = store<T>,
          .dot = dot<T>,
          .accumulate = accumulate<T>,
          .logit_gradient = logit_gradient<T>};
}

}  // namespace

#define TROUPE_ROWS_JOIN(a, b) a##b
#define TROUPE_ROWS_TABLE(set) TROUPE_ROWS_JOIN(kernels_, set)
#define TROUPE_ROWS_TEXT(x) #x
#define TROUPE_ROWS_NAME(set) TROUPE_ROWS_TEXT(set)

extern const Kernels TROUPE_ROWS_TABLE(TROUPE_ROWS_SET);
constinit const Kernels TROUPE_ROWS_TABLE(TROUPE_ROWS_SET) = {.f32 = typed_table<float>(),
                                                              .bf16 = typed_table<Bf16>(),
                                                              .logit_statistics = logit_statistics,
                                                              .sum_of_squares = sum_of_squares,
                                                              .adamw = adamw,
                                                              .instruction_set = TROUPE_ROWS_NAME(TROUPE_ROWS_SET)};

}  // namespace troupe::rows
