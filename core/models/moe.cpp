#include "core/models/moe.hpp"

#include <ATen/ATen.h>

#include "core/models/layer_ops.hpp"
#include "core/models/matrix_product.hpp"

namespace troupe::trunk {
namespace {

constexpr int64_t kRowAlignment = 32;

// d aux / d p of each token (see MoeConfig): the counts are constants, so a sequence's tokens have one row in common.
// A sequence that continues another is one of its own, with the tokens that are its own.
at::Tensor balance_of(const MoeConfig& c, const std::vector<int32_t>& chosen, const std::vector<int32_t>& bounds) {
  const auto experts = static_cast<size_t>(c.experts), per_token = static_cast<size_t>(c.per_token);
  const auto tokens = static_cast<size_t>(bounds.back());
  const at::Tensor balance = at::empty({static_cast<int64_t>(tokens), c.experts}, at::kFloat);
  float* out = balance.mutable_data_ptr<float>();
  const std::vector<int32_t> whole = {0, bounds.back()};
  const std::vector<int32_t>& parts = c.per_sequence ? bounds : whole;
  const double sequences = static_cast<double>(parts.size() - 1);
  for (size_t b = 0; b + 1 < parts.size(); ++b) {
    const auto begin = static_cast<size_t>(parts[b]), end = static_cast<size_t>(parts[b + 1]);
    std::vector<double> count(experts, 0.0);
    for (size_t i = begin * per_token; i < end * per_token; ++i) count[static_cast<size_t>(chosen[i])] += 1;
    // Both forms are the coefficient * (share of the choices * experts) * mean of p, of a sequence or of all tokens.
    const double length = static_cast<double>(end - begin);
    const double factor = c.aux_coefficient * static_cast<double>(experts) / (length * static_cast<double>(per_token)) /
                          length / sequences;
    for (size_t s = begin; s < end; ++s)
      for (size_t e = 0; e < experts; ++e) out[s * experts + e] = static_cast<float>(factor * count[e]);
  }
  return balance;
}

void route(const MoeConfig& c, const ParameterView& router, const at::Tensor& x, const std::vector<int32_t>* sequences,
           ExpertActivations& kept) {
  const int64_t tokens = x.size(0), per_token = c.per_token;
  at::Tensor scores = at::empty({tokens, c.experts}, x.options().dtype(at::kFloat));
  wide_product(x, router.value, scores);
  kept.probabilities = at::softmax(scores, 1);
  // The choice and the grouping are made on the host, wherever the rows are.
  const at::Tensor probabilities = kept.probabilities.cpu();
  const float* p = probabilities.const_data_ptr<float>();
  std::vector<int32_t> chosen(static_cast<size_t>(tokens * per_token));
  std::vector<float> weights(chosen.size());
  for (int64_t s = 0; s < tokens; ++s)
    choose_experts(c, p + s * c.experts, chosen.data() + s * per_token, weights.data() + s * per_token);
  // The library compiles a bfloat16 product anew for every number of rows it meets on the CPU: let there be few.
  ExpertGroups groups;
  groups.assign(c, chosen, x.is_cpu() && x.scalar_type() == at::kBFloat16 ? kRowAlignment : 1);

  const int64_t slots = per_token + c.shared_experts;
  const at::Tensor weight = at::zeros({groups.bounds.back()}, at::kFloat);
  float* of_row = weight.mutable_data_ptr<float>();
  for (int64_t s = 0; s < tokens; ++s)
    for (int64_t k = 0; k < slots; ++k)
      of_row[groups.rows[static_cast<size_t>(s * slots + k)]] =
          k < per_token ? weights[static_cast<size_t>(s * per_token + k)] : 1.0f;
  const auto device = x.device();
  kept.bounds = std::move(groups.bounds);
  kept.token = at::tensor(groups.token, at::kLong).to(device);
  kept.rows = at::tensor(groups.rows, at::kLong).view({tokens, slots}).to(device);
  kept.chosen = at::tensor(chosen, at::kInt).to(at::kLong).view({tokens, per_token}).to(device);
  kept.weight = weight.to(device);
  kept.balance = sequences ? balance_of(c, chosen, *sequences).to(device) : at::Tensor();
}

// Gradient of the scores, float32 [S, E], from that of the rows' weights [R].
at::Tensor scores_gradient(const MoeConfig& c, const ExpertActivations& kept, const at::Tensor& dweight,
                           float aux_gradient) {
  const at::Tensor& p = kept.probabilities;
  const auto of_choices = [&](const at::Tensor& of_rows) {
    return of_rows.index_select(0, kept.rows.narrow(1, 0, c.per_token).reshape({-1})).view_as(kept.chosen);
  };
  at::Tensor dchosen = of_choices(dweight);
  if (c.normalise && c.per_token > 1) {  // w = p / sum
    const at::Tensor sum = p.gather(1, kept.chosen).sum(1, true).add_(1e-20);
    dchosen = (dchosen - (dchosen * of_choices(kept.weight)).sum(1, true)) / sum;
  }
  at::Tensor dp = at::zeros_like(p).scatter_(1, kept.chosen, dchosen);
  if (kept.balance.defined()) dp.add_(kept.balance, aux_gradient);
  return p * (dp - (dp * p).sum(1, true));
}

// Those of one block.
struct Rows {
  int64_t begin, count;
  at::Tensor of(const at::Tensor& x) const { return x.narrow(0, begin, count); }
  at::Tensor first(const at::Tensor& x) const { return x.narrow(0, 0, count); }
};

// Calls work(block, its rows) for the blocks that have rows. A block passes through all its products at a time: what
// lies between them stays in the cache.
template <class Work>
void for_blocks(const std::vector<FeedForward>& blocks, const std::vector<int64_t>& bounds, const Work& work) {
  for (size_t j = 0; j < blocks.size(); ++j)
    if (bounds[j + 1] > bounds[j]) work(blocks[j], Rows{bounds[j], bounds[j + 1] - bounds[j]});
}

}  // namespace

int64_t block_rows(int64_t tokens) {
  return tokens + kRowAlignment - 1;
}

int64_t expert_rows(const MoeConfig& config, int64_t tokens) {
  return tokens * (config.per_token + config.shared_experts) + config.experts * (kRowAlignment - 1);
}

void Experts::forward(const MoeConfig& config, const at::Tensor& x, const std::vector<int32_t>* sequences,
                      ExpertActivations& kept, at::Tensor& gate_up, ExpertTemporaries& t, at::Tensor& y) const {
  route(config, router, x, sequences, kept);
  for_blocks(blocks, kept.bounds, [&](const FeedForward& block, const Rows& rows) {
    at::Tensor ends = rows.of(t.ends), both = rows.of(gate_up), act = rows.first(t.act);
    gather_rows(x, rows.of(kept.token), ends);
    block.gate_up.forward(ends, both, false);
    swiglu(both, act, rows.of(kept.weight));
    block.down.forward(act, ends, false);
  });
  sum_rows({}, t.ends, kept.rows, y);
}

void Experts::backward(const MoeConfig& config, const at::Tensor& x, const at::Tensor& dy, float aux_gradient,
                       const ExpertActivations& kept, at::Tensor& gate_up, ExpertTemporaries& t, at::Tensor& dx) const {
  const at::Tensor dweight = at::empty_like(kept.weight);
  for_blocks(blocks, kept.bounds, [&](const FeedForward& block, const Rows& rows) {
    const at::Tensor token = rows.of(kept.token);
    at::Tensor ends = rows.of(t.ends), both = rows.of(gate_up), act = rows.first(t.act);
    gather_rows(dy, token, ends);
    block.down.backward_input(ends, act, false);
    swiglu_backward(both, act, rows.of(kept.weight), rows.of(dweight));
    block.down.backward_weight(act, ends, false);
    block.gate_up.backward_input(both, ends, false);  // in place of dy, which is needed no more
    if (!router.grad.defined()) return;
    at::Tensor inputs = rows.first(t.inputs);
    gather_rows(x, token, inputs);
    block.gate_up.backward_weight(inputs, both, false);
  });
  const at::Tensor dscores = scores_gradient(config, kept, dweight, aux_gradient);
  sum_rows(at::mm(dscores, router.value.to(at::kFloat)), t.ends, kept.rows, dx);
  if (router.grad.defined()) add_product(router.grad, dscores, x.to(at::kFloat));
}

}  // namespace troupe::trunk
