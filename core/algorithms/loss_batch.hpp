// What a policy loss is computed from and what it gives back; shared by the algorithms.
// Legend: B sequences, N response tokens of all of them, packed one after another without padding.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <limits>
#include <map>
#include <string>

namespace troupe {

// Whole sequences of one micro-batch (or of the whole update). Tensors share one device; float tensors one dtype
// (float32; float64 in gradient checks). Values at masked tokens may be anything, NaN included: they are never read.
// All log-probabilities are of logits divided by the sampling temperature.
struct LossBatch {
  at::Tensor logprobs;            // L      float [N], carries the gradient
  at::Tensor old_logprobs;        // L_old  float [N], policy before this update's first step; undefined: sg(L)
  at::Tensor behaviour_logprobs;  // L_mu   float [N], from generation; undefined: no importance correction
  at::Tensor reference_logprobs;  // L_ref  float [N], undefined without a reference
  at::Tensor entropy;             // H      float [N], of the policy's next-token distribution; or undefined
  at::Tensor mask;                // m      uint8 or bool [N], 1 where the token counts
  at::Tensor lengths;             // int64 [B], response tokens of each sequence, masked ones included; sums to N
  at::Tensor advantages;          // A      float [B]
};

// The denominators, counted once over the whole update (all micro-batches, all data-parallel ranks) before it is cut
// into micro-batches: so the micro-batches' losses and gradients add up to the full batch's, however it was cut.
// Tokens rejected later (importance mask, off-policy mask, entropy quantile) stay counted, as in AReaL: a rejection
// must not inflate the weight of the rest.
struct LossScale {
  double num_tokens = 0;                                                // sum of m
  double num_sequences = 0;                                             // B, sequences without a counted token included
  double max_completion_length = 0;                                     // dr_grpo only
  double entropy_threshold = -std::numeric_limits<double>::infinity();  // tokens of lower entropy are not trained on
  double num_entropy_tokens = 0;  // tokens at or above it: the entropy bonus's denominator
};

// Sums that add over micro-batches and ranks and become averages at the end.
class LossMetrics {
 public:
  void add_mean(const std::string& name, double sum, double count);  // reported as sum / count; absent if count is 0
  void add_total(const std::string& name, double value);             // reported as the sum
  void add_deviation(const std::string& name, double sum, double sum_of_squares, double count);  // of a population
  void add_max(const std::string& name, double value);  // reported as the maximum
  void add(const LossMetrics& other);
  // Between processes, to the bit: what text() gave, added. Throws std::invalid_argument for anything else.
  std::string text() const;
  void add_text(const std::string& text);
  std::map<std::string, double> values() const;

 private:
  struct Mean {
    double sum = 0;
    double count = 0;
  };
  struct Moments {
    double sum = 0;
    double squares = 0;
    double count = 0;
  };
  std::map<std::string, Mean> means_;
  std::map<std::string, Moments> deviations_;
  std::map<std::string, double> totals_;
  std::map<std::string, double> maxima_;
};

struct LossResult {
  at::Tensor loss;  // scalar, carries the gradient: this micro-batch's share of the update's loss
  LossMetrics metrics;
};

// Sums over, and copies to, the tokens of each sequence. Holds index tensors only.
class Sequences {
 public:
  // Throws std::invalid_argument unless the lengths are non-negative and sum to num_tokens.
  Sequences(const at::Tensor& lengths, int64_t num_tokens);
  at::Tensor sum(const at::Tensor& per_token) const;        // [N] -> [B], differentiable
  at::Tensor spread(const at::Tensor& per_sequence) const;  // [B] -> [N], differentiable
  int64_t count() const { return count_; }

 private:
  int64_t count_;
  at::Tensor sequence_of_token_;  // int64 [N]
};

// Throws std::invalid_argument naming the tensor whose shape or dtype does not fit the others.
void check(const LossBatch& batch);

}  // namespace troupe
