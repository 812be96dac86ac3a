#include "core/generate/sampler.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <string>

namespace troupe {
namespace {

constexpr float kNone = -std::numeric_limits<float>::infinity();

int64_t num_blocks(int64_t vocab_size) {
  return (vocab_size + kernels::kLogitBlock - 1) / kernels::kLogitBlock;
}

struct Total {
  float max = kNone;
  double sum = 0;  // of exp((logit - max) * inverse_temperature)
};

double block_share(const kernels::BlockStats& block, float max, float inverse_t) {
  return block.sum * std::exp((static_cast<double>(block.max) - max) * inverse_t);
}

Total total_of(const LogitRow& row, float inverse_t) {
  Total total;
  const int64_t blocks = num_blocks(row.vocab_size);
  for (int64_t b = 0; b < blocks; ++b) total.max = std::max(total.max, row.stats[b].max);
  for (int64_t b = 0; b < blocks; ++b) total.sum += block_share(row.stats[b], total.max, inverse_t);
  if (!std::isfinite(total.max) || !std::isfinite(total.sum))
    throw std::runtime_error("the model's logits are not finite: no token can be drawn");
  return total;
}

float logprob_of(float logit, const Total& total, float inverse_t) {
  return static_cast<float>((static_cast<double>(logit) - total.max) * inverse_t - std::log(total.sum));
}

// Inverse of the cumulative distribution in order of ids: the block first, then the token within it.
int32_t draw_from_all(const kernels::KernelTable& kernels, const LogitRow& row, const Total& total, float inverse_t,
                      double uniform) {
  double left = uniform * total.sum;
  const int64_t blocks = num_blocks(row.vocab_size);
  int64_t block = 0;
  for (; block + 1 < blocks; ++block) {
    const double share = block_share(row.stats[block], total.max, inverse_t);
    if (left < share) break;
    left -= share;
  }
  const int64_t first = block * kernels::kLogitBlock;
  const int64_t n = std::min(kernels::kLogitBlock, row.vocab_size - first);
  std::array<float, kernels::kLogitBlock> weights;
  kernels.exponentials(row.values + first, (n + 15) / 16 * 16, row.stats[block].max, inverse_t, weights.data());
  left /= std::exp((static_cast<double>(row.stats[block].max) - total.max) * inverse_t);
  int64_t chosen = -1;  // rounding may leave a rest past the last weight: then the last token that has one
  for (int64_t i = 0; i < n; ++i) {
    if (weights[i] <= 0) continue;
    chosen = i;
    if (left < weights[i]) break;
    left -= weights[i];
  }
  return static_cast<int32_t>(first + chosen);
}

struct Candidate {
  float logit;
  int32_t token;
  bool operator<(const Candidate& other) const {  // the likelier first, then the lower id
    return logit != other.logit ? logit > other.logit : token < other.token;
  }
};

std::vector<Candidate> at_least(const LogitRow& row, float limit) {
  std::vector<Candidate> found;
  for (int64_t i = 0; i < row.vocab_size; ++i)
    if (row.values[i] >= limit) found.push_back({row.values[i], static_cast<int32_t>(i)});
  return found;
}

// The k-th largest logit: all k and the ties with it are kept.
float top_k_limit(const LogitRow& row, int64_t k) {
  std::vector<float> heap;  // the k largest so far, the smallest of them in front
  for (int64_t i = 0; i < row.vocab_size; ++i) {
    const float v = row.values[i];
    if (static_cast<int64_t>(heap.size()) < k) {
      heap.push_back(v);
      std::push_heap(heap.begin(), heap.end(), std::greater<>());
    } else if (v > heap.front()) {
      std::pop_heap(heap.begin(), heap.end(), std::greater<>());
      heap.back() = v;
      std::push_heap(heap.begin(), heap.end(), std::greater<>());
    }
  }
  return heap.front();
}

double weight_of(float logit, float max, float inverse_t) {
  return std::exp((static_cast<double>(logit) - max) * inverse_t);
}

// Cuts sorted candidates where the mass before a token reaches top_p of `mass`; the first always stays.
// False when the candidates, a part of all, hold less than that: more are needed.
bool cut_top_p(std::vector<Candidate>& sorted, double mass, double top_p, float max, float inverse_t) {
  double before = 0;
  for (size_t i = 0; i < sorted.size(); ++i) {
    if (i > 0 && before >= top_p * mass) {
      sorted.resize(i);
      return true;
    }
    before += weight_of(sorted[i].logit, max, inverse_t);
  }
  return before >= top_p * mass;
}

// The tokens that top-k, top-p and min-p leave, likeliest first.
std::vector<Candidate> restricted(const LogitRow& row, const Sampling& s, float inverse_t) {
  const float max = *std::max_element(row.values, row.values + row.vocab_size);
  const bool by_k = s.top_k > 0 && s.top_k < row.vocab_size;
  const float k_limit = by_k ? top_k_limit(row, s.top_k) : kNone;
  const float min_p_limit = s.min_p > 0 ? max + static_cast<float>(std::log(s.min_p)) / inverse_t : kNone;
  std::vector<Candidate> kept;
  if (s.top_p < 1) {
    double mass = 0;
    for (int64_t i = 0; i < row.vocab_size; ++i)
      if (row.values[i] >= k_limit) mass += weight_of(row.values[i], max, inverse_t);
    // Most often a few tokens hold the mass: sort only those near the maximum, and more only when they do not suffice.
    for (float depth = 4.0f / inverse_t;; depth *= 2) {
      const float limit = std::max(k_limit, max - depth);
      kept = at_least(row, limit);
      std::sort(kept.begin(), kept.end());
      const bool all = limit == k_limit || static_cast<int64_t>(kept.size()) == row.vocab_size;
      if (cut_top_p(kept, mass, s.top_p, max, inverse_t) || all) break;
    }
  } else {
    kept = at_least(row, std::max(k_limit, min_p_limit));
    std::sort(kept.begin(), kept.end());
  }
  while (kept.size() > 1 && kept.back().logit < min_p_limit) kept.pop_back();
  return kept;
}

// Applies the penalty to the tokens seen and gives the row back as it was when it goes out of scope.
class Penalised {
 public:
  Penalised(const LogitRow& row, double penalty, std::span<const int32_t> prompt, std::span<const int32_t> answer)
      : row_(row) {
    if (penalty == 1) return;
    seen_.assign(prompt.begin(), prompt.end());
    seen_.insert(seen_.end(), answer.begin(), answer.end());
    std::sort(seen_.begin(), seen_.end());
    seen_.erase(std::unique(seen_.begin(), seen_.end()), seen_.end());
    const auto p = static_cast<float>(penalty);
    for (int32_t token : seen_) {
      float& logit = row.values[token];
      before_.push_back(logit);
      logit = logit < 0 ? logit * p : logit / p;
    }
  }
  ~Penalised() {
    for (size_t i = 0; i < seen_.size(); ++i) row_.values[seen_[i]] = before_[i];
  }
  Penalised(const Penalised&) = delete;
  Penalised& operator=(const Penalised&) = delete;

 private:
  const LogitRow& row_;
  std::vector<int32_t> seen_;
  std::vector<float> before_;
};

int32_t draw_restricted(const LogitRow& row, const Sampling& s, float inverse_t, double uniform) {
  if (s.temperature == 0)
    return static_cast<int32_t>(std::max_element(row.values, row.values + row.vocab_size) - row.values);
  const std::vector<Candidate> kept = restricted(row, s, inverse_t);
  const float max = kept.front().logit;
  double mass = 0;
  for (const Candidate& c : kept) mass += weight_of(c.logit, max, inverse_t);
  double left = uniform * mass;
  for (const Candidate& c : kept) {
    const double w = weight_of(c.logit, max, inverse_t);
    if (left < w) return c.token;
    left -= w;
  }
  return kept.back().token;
}

int32_t greedy(const LogitRow& row, float max) {
  int64_t block = 0;
  while (row.stats[block].max < max) ++block;
  int64_t i = block * kernels::kLogitBlock;
  while (row.values[i] < max) ++i;
  return static_cast<int32_t>(i);
}

void check(bool fine, const char* what, double value, const char* expected) {
  if (!fine)
    throw std::invalid_argument(std::string("sampling: ") + what + " is " + std::to_string(value) + ", expected " +
                                expected);
}

}  // namespace

float inverse_temperature(const Sampling& sampling) {
  return sampling.temperature == 0 ? 1.0f : static_cast<float>(1.0 / sampling.temperature);
}

void check_sampling(const Sampling& s) {
  check(s.temperature == 0 || (s.temperature >= 1e-3 && s.temperature <= 1e3), "temperature", s.temperature,
        "0 or a value from 0.001 to 1000");
  check(s.top_k >= 0, "top_k", static_cast<double>(s.top_k), "0 (off) or more");
  check(s.top_p > 0 && s.top_p <= 1, "top_p", s.top_p, "above 0, at most 1");
  check(s.min_p >= 0 && s.min_p <= 1, "min_p", s.min_p, "0 to 1");
  check(s.repetition_penalty > 0 && std::isfinite(s.repetition_penalty), "repetition_penalty", s.repetition_penalty,
        "above 0");
  check(s.max_new_tokens >= 1, "max_new_tokens", static_cast<double>(s.max_new_tokens), "at least 1");
  for (const std::string& stop : s.stop)
    if (stop.empty()) throw std::invalid_argument("sampling: a stop string is empty");
}

Draw draw_token(const kernels::KernelTable& kernels, const LogitRow& row, const Sampling& s,
                std::span<const int32_t> prompt, std::span<const int32_t> answer, double uniform) {
  const float inverse_t = inverse_temperature(s);
  const Total total = total_of(row, inverse_t);
  int32_t token = 0;
  if (s.repetition_penalty != 1 || (s.temperature > 0 && (s.top_k > 0 || s.top_p < 1 || s.min_p > 0))) {
    const Penalised penalised(row, s.repetition_penalty, prompt, answer);
    token = draw_restricted(row, s, inverse_t, uniform);
  } else if (s.temperature == 0) {
    token = greedy(row, total.max);
  } else {
    token = draw_from_all(kernels, row, total, inverse_t, uniform);
  }
  return {token, logprob_of(row.values[token], total, inverse_t)};
}

float token_logprob(const LogitRow& row, float inverse_t, int32_t token) {
  return logprob_of(row.values[token], total_of(row, inverse_t), inverse_t);
}

}  // namespace troupe
