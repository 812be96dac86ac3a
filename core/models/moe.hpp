// A feed-forward layer of experts in training (see MoeConfig), forward and backward:
//   p = softmax(x G^T); the token's best experts e with weights w_e; y = sum_e w_e expert_e(x) + sum shared(x).
// Rows are grouped by expert (expert_groups.hpp), so that each expert is one product over its rows. A weight is
// multiplied into its expert's activations before the last product: w (act W^T) = (w act) W^T.
//
// Router scores, p, w and their gradients are float32. S tokens, E experts, R rows (S * (K + shared), and rows of zeros
// that fill up blocks), T the compute dtype.
#pragma once

#include <vector>

#include "core/models/expert_groups.hpp"
#include "core/models/linear.hpp"
#include "core/models/workspace.hpp"

namespace troupe::trunk {

// down(silu(gate) * up).
struct FeedForward {
  Linear gate_up;  // [2 I, D]: gate, up
  Linear down;     // [D, I]
};

// What the backward pass needs besides the experts' gate | up.
struct ExpertActivations {
  std::vector<int64_t> bounds;  // see ExpertGroups
  at::Tensor token, rows;       // int64 [R], [S, K + shared]
  at::Tensor chosen;            // int64 [S, K]
  at::Tensor probabilities;     // float32 [S, E]
  at::Tensor weight;            // float32 [R]; 1 for shared experts, 0 where nobody's row is
  at::Tensor balance;           // float32 [S, E]: the layer's auxiliary loss is sum(balance * p); or undefined
};

// Written anew by every layer.
struct ExpertTemporaries {
  at::Tensor ends;    // T [R or more, D]: the rows' inputs, then their outputs; or their gradients, the other way round
  at::Tensor act;     // T [block_rows, I]: of one block at a time
  at::Tensor inputs;  // T [block_rows, D]
};

struct Experts {
  ParameterView router;             // G [E, D]; undefined: the layer is dense
  std::vector<FeedForward> blocks;  // the experts, then the shared ones

  // y [S, D] is written, gate_up T [R or more, 2 I] too. `sequences`: bounds of the sequences
  // (PackedTokens::cu_seqlens) when the auxiliary loss is wanted, else nullptr.
  void forward(const MoeConfig& config, const at::Tensor& x, const std::vector<int32_t>* sequences,
               ExpertActivations& kept, at::Tensor& gate_up, ExpertTemporaries& t, at::Tensor& y) const;

  // From dy [S, D]: adds to the gradients of what is trained, writes dx [S, D]. `aux_gradient` is d loss / d aux.
  // Overwrites gate_up.
  void backward(const MoeConfig& config, const at::Tensor& x, const at::Tensor& dy, float aux_gradient,
                const ExpertActivations& kept, at::Tensor& gate_up, ExpertTemporaries& t, at::Tensor& dx) const;
};

// The most that R can be, and a block's part of it.
int64_t expert_rows(const MoeConfig& config, int64_t tokens);
int64_t block_rows(int64_t tokens);

}  // namespace troupe::trunk
