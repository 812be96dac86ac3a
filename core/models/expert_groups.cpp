#include "core/models/expert_groups.hpp"

#include <algorithm>
#include <stdexcept>
#include <string>

namespace troupe {

void check_experts(const MoeConfig& c) {
  const auto expect = [](bool fine, const char* name, int64_t value, const std::string& expected) {
    if (!fine)
      throw std::invalid_argument(std::string("moe: ") + name + " is " + std::to_string(value) + ", expected " +
                                  expected);
  };
  expect(c.experts >= 0, "experts", c.experts, "0 or more");
  if (c.experts == 0) return;
  expect(c.per_token >= 1 && c.per_token <= c.experts, "per_token", c.per_token,
         "1 to the number of experts, " + std::to_string(c.experts));
  expect(c.shared_experts >= 0, "shared_experts", c.shared_experts, "0 or more");
}

void choose_experts(const MoeConfig& config, const float* probabilities, int32_t* chosen, float* weights) {
  const auto taken = [&](int64_t k, int32_t e) { return std::find(chosen, chosen + k, e) != chosen + k; };
  for (int64_t k = 0; k < config.per_token; ++k) {
    int32_t best = -1;  // some expert is found even among NaNs
    for (int32_t e = 0; e < config.experts; ++e)
      if (!taken(k, e) && (best < 0 || probabilities[e] > probabilities[best])) best = e;
    chosen[k] = best;
    weights[k] = probabilities[best];
  }
  if (!config.normalise || config.per_token == 1) return;
  float sum = 0;
  for (int64_t k = 0; k < config.per_token; ++k) sum += weights[k];
  for (int64_t k = 0; k < config.per_token; ++k) weights[k] /= sum + 1e-20f;
}

void ExpertGroups::assign(const MoeConfig& config, std::span<const int32_t> chosen, int64_t alignment) {
  const auto per_token = static_cast<size_t>(config.per_token), experts = static_cast<size_t>(config.experts),
             shared = static_cast<size_t>(config.shared_experts), slots = per_token + shared,
             tokens = chosen.size() / per_token;
  bounds.assign(experts + shared + 1, 0);
  for (const int32_t e : chosen) ++bounds[static_cast<size_t>(e) + 1];
  for (size_t j = 1; j <= experts; ++j) bounds[j] = (bounds[j] + alignment - 1) / alignment * alignment;
  for (size_t j = experts; j < experts + shared; ++j) bounds[j + 1] = static_cast<int64_t>(tokens);
  for (size_t j = 0; j < experts + shared; ++j) bounds[j + 1] += bounds[j];
  token.assign(static_cast<size_t>(bounds.back()), -1);
  rows.resize(tokens * slots);
  std::vector<int64_t> next(bounds.begin(), bounds.end() - 1);
  for (size_t s = 0; s < tokens; ++s) {
    for (size_t k = 0; k < slots; ++k) {
      const size_t block = k < per_token ? static_cast<size_t>(chosen[s * per_token + k]) : experts + k - per_token;
      const int64_t row = next[block]++;
      rows[s * slots + k] = row;
      token[static_cast<size_t>(row)] = static_cast<int64_t>(s);
    }
  }
}

}  // namespace troupe
