#include "core/train/packed_batch.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <numeric>
#include <stdexcept>
#include <string>
#include <utility>

#include "core/train/prompt_sharing.hpp"

namespace troupe {
namespace {

struct Extent {
  int64_t first_token, first_response, first_scored;
};

// Part of `batch` that consists of sequences [begin, end).
MicroBatch part_of(const PackedBatch& batch, const std::vector<Extent>& at, size_t begin, size_t end) {
  const auto cut = [&](const std::vector<int64_t>& x) {
    return std::vector<int64_t>(x.begin() + static_cast<int64_t>(begin), x.begin() + static_cast<int64_t>(end));
  };
  MicroBatch part;
  part.batch = {batch.tokens.slice(0, at[begin].first_token, at[end].first_token), cut(batch.prompt_lengths),
                cut(batch.response_lengths)};
  if (!batch.scored.empty())
    part.batch.scored = {batch.scored.begin() + at[begin].first_response,
                         batch.scored.begin() + at[end].first_response};
  part.batch.unit = batch.unit;
  part.sequences.resize(end - begin);
  std::iota(part.sequences.begin(), part.sequences.end(), static_cast<int64_t>(begin));
  part.tokens_of = at::arange(at[begin].first_scored, at[end].first_scored, at::kLong);
  return part;
}

}  // namespace

int64_t PackedBatch::response_tokens() const {
  return std::accumulate(response_lengths.begin(), response_lengths.end(), int64_t{0});
}

int64_t PackedBatch::scored_tokens() const {
  return scored.empty() ? response_tokens() : std::count(scored.begin(), scored.end(), uint8_t{1});
}

void check_batch(const PackedBatch& batch, int64_t vocab_size) {
  const auto fail = [](const std::string& what) { throw std::invalid_argument("batch: " + what); };
  if (!batch.tokens.defined() || batch.tokens.dim() != 1 || batch.tokens.scalar_type() != at::kLong)
    fail("tokens must be int64 [S]");
  if (batch.prompt_lengths.empty()) fail("no sequences");
  if (batch.prompt_lengths.size() != batch.response_lengths.size())
    fail(std::to_string(batch.prompt_lengths.size()) + " prompt_lengths, " +
         std::to_string(batch.response_lengths.size()) + " response_lengths");
  int64_t rest = batch.tokens.size(0);
  for (size_t i = 0; i < batch.prompt_lengths.size(); ++i) {
    const int64_t prompt = batch.prompt_lengths[i], response = batch.response_lengths[i];
    if (prompt < 1) fail("prompt_lengths[" + std::to_string(i) + "] is " + std::to_string(prompt) + ", expected >= 1");
    if (response < 0) fail("response_lengths[" + std::to_string(i) + "] is " + std::to_string(response));
    if (prompt > rest || response > rest - prompt)
      fail("lengths add up to more than the " + std::to_string(batch.tokens.size(0)) + " tokens");
    rest -= prompt + response;
  }
  if (rest != 0)
    fail("lengths add up to " + std::to_string(batch.tokens.size(0) - rest) + ", but there are " +
         std::to_string(batch.tokens.size(0)) + " tokens");
  if (!batch.scored.empty() && static_cast<int64_t>(batch.scored.size()) != batch.response_tokens())
    fail("scored has " + std::to_string(batch.scored.size()) + " marks for " + std::to_string(batch.response_tokens()) +
         " answer tokens");
  if (batch.unit < 1 || batch.sequences() % batch.unit != 0)
    fail("unit is " + std::to_string(batch.unit) + ", expected a divisor of the " + std::to_string(batch.sequences()) +
         " sequences");
  const auto [low, high] = batch.tokens.aminmax();
  for (int64_t id : {low.item<int64_t>(), high.item<int64_t>()})
    if (id < 0 || id >= vocab_size)
      fail("token id " + std::to_string(id) + " is outside the vocabulary of " + std::to_string(vocab_size));
}

std::vector<MicroBatch> split_batch(const PackedBatch& batch, int64_t token_budget, bool shared_prompts) {
  if (token_budget < 0)
    throw std::invalid_argument("micro-batch budget is " + std::to_string(token_budget) + " tokens, expected >= 0");
  const size_t count = batch.prompt_lengths.size(), unit = static_cast<size_t>(batch.unit);
  std::vector<Extent> at{{0, 0, 0}};
  for (size_t i = 0; i < count; ++i) {
    const int64_t first = at.back().first_response, response = batch.response_lengths[i];
    const int64_t scored = batch.scored.empty() ? response
                                                : std::count(batch.scored.begin() + first,
                                                             batch.scored.begin() + first + response, uint8_t{1});
    at.push_back({at.back().first_token + batch.prompt_lengths[i] + response, first + response,
                  at.back().first_scored + scored});
  }
  // Tokens that sequence i adds to a micro-batch that begins at `begin`.
  const auto added = [&](size_t i, size_t begin) {
    const bool repeats = shared_prompts && i > begin && same_prompt(batch, i, at[i - 1].first_token, at[i].first_token);
    return batch.response_lengths[i] + (repeats ? 0 : batch.prompt_lengths[i]);
  };
  std::vector<MicroBatch> parts;
  size_t begin = 0;
  int64_t tokens = 0;
  for (size_t i = 0; i < count; i += unit) {
    int64_t more = 0, alone = 0;
    for (size_t j = i; j < i + unit; ++j) more += added(j, begin), alone += added(j, i);
    if (i > begin && token_budget > 0 && tokens + more > token_budget) {
      parts.push_back(part_of(batch, at, std::exchange(begin, i), i));
      tokens = alone;
    } else {
      tokens += more;
    }
  }
  parts.push_back(part_of(batch, at, begin, count));
  return parts;
}

}  // namespace troupe
