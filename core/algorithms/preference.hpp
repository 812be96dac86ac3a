// Losses over preference pairs: direct preference optimisation and pairwise reward modelling. P pairs; all float32.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace troupe {

// [B]: the sum of each sequence's values (mean: divided by their number, at least 1e-8) from x [N], of which sequence i
// owns the next counts[i]. Differentiable. Throws std::invalid_argument when the counts do not add up to N.
at::Tensor sequence_sums(const at::Tensor& x, const std::vector<int64_t>& counts, bool mean = false);

struct PairLosses {
  at::Tensor loss;    // [P], differentiable
  at::Tensor margin;  // [P], detached: > 0 where the chosen one is preferred
};

// Direct preference optimisation (Rafailov et al. 2023, eq. 7), label smoothing as conservative DPO (Mitchell 2023):
//   margin = beta ((policy_chosen - policy_rejected) - (reference_chosen - reference_rejected))
//   loss = -(1 - s) log sigmoid(margin) - s log sigmoid(-margin)
// policy, reference [P, 2]: log-probability of each sequence, chosen first. Published with sums over a sequence's
// tokens; MiniMind's code of March 2026 takes means.
PairLosses dpo_loss(const at::Tensor& policy, const at::Tensor& reference, double beta, double label_smoothing = 0.0);

// Bradley-Terry: loss = -log sigmoid(score_chosen - score_rejected - least_margin). scores [P, 2], chosen first.
PairLosses reward_pair_loss(const at::Tensor& scores, double least_margin = 0.0);

}  // namespace troupe
