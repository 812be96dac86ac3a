#include "core/train/packed_batch.hpp"

#include <ATen/ATen.h>

#include <numeric>
#include <stdexcept>
#include <string>
#include <utility>

#include "core/train/prompt_sharing.hpp"

namespace troupe {
namespace {

struct Extent {
  int64_t first_token, first_response;
};

// Part of `batch` that consists of sequences [begin, end).
MicroBatch part_of(const PackedBatch& batch, const std::vector<Extent>& at, size_t begin, size_t end) {
  const auto cut = [&](const std::vector<int64_t>& x) {
    return std::vector<int64_t>(x.begin() + static_cast<int64_t>(begin), x.begin() + static_cast<int64_t>(end));
  };
  MicroBatch part;
  part.batch = {batch.tokens.slice(0, at[begin].first_token, at[end].first_token), cut(batch.prompt_lengths),
                cut(batch.response_lengths)};
  part.sequences.resize(end - begin);
  std::iota(part.sequences.begin(), part.sequences.end(), static_cast<int64_t>(begin));
  part.tokens_of = at::arange(at[begin].first_response, at[end].first_response, at::kLong);
  return part;
}

}  // namespace

int64_t PackedBatch::response_tokens() const {
  return std::accumulate(response_lengths.begin(), response_lengths.end(), int64_t{0});
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
  const auto [low, high] = batch.tokens.aminmax();
  for (int64_t id : {low.item<int64_t>(), high.item<int64_t>()})
    if (id < 0 || id >= vocab_size)
      fail("token id " + std::to_string(id) + " is outside the vocabulary of " + std::to_string(vocab_size));
}

std::vector<MicroBatch> split_batch(const PackedBatch& batch, int64_t token_budget, bool shared_prompts) {
  if (token_budget < 0)
    throw std::invalid_argument("micro-batch budget is " + std::to_string(token_budget) + " tokens, expected >= 0");
  const size_t count = batch.prompt_lengths.size();
  std::vector<Extent> at{{0, 0}};
  for (size_t i = 0; i < count; ++i)
    at.push_back({at.back().first_token + batch.prompt_lengths[i] + batch.response_lengths[i],
                  at.back().first_response + batch.response_lengths[i]});
  std::vector<MicroBatch> parts;
  size_t begin = 0;
  int64_t tokens = 0;
  for (size_t i = 0; i < count; ++i) {
    const int64_t whole = batch.prompt_lengths[i] + batch.response_lengths[i];
    const bool repeats = shared_prompts && i > begin && same_prompt(batch, i, at[i - 1].first_token, at[i].first_token);
    const int64_t more = repeats ? batch.response_lengths[i] : whole;
    if (i > begin && token_budget > 0 && tokens + more > token_budget) {
      parts.push_back(part_of(batch, at, std::exchange(begin, i), i));
      tokens = whole;
    } else {
      tokens += more;
    }
  }
  parts.push_back(part_of(batch, at, begin, count));
  return parts;
}

}  // namespace troupe
