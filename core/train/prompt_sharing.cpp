#include "core/train/prompt_sharing.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <unordered_map>

namespace troupe {
namespace {

DistinctRows distinct(const std::vector<int64_t>& wanted) {
  std::vector<int64_t> rows, which;
  std::unordered_map<int64_t, int64_t> place;
  for (const int64_t row : wanted) {
    const auto [at, is_new] = place.try_emplace(row, static_cast<int64_t>(rows.size()));
    if (is_new) rows.push_back(row);
    which.push_back(at->second);
  }
  const bool repeated = rows.size() < wanted.size();
  return {at::tensor(rows, at::kLong), repeated ? at::tensor(which, at::kLong) : at::Tensor()};
}

}  // namespace

bool same_prompt(const PackedBatch& batch, std::size_t i, int64_t begin_before, int64_t begin) {
  const int64_t length = batch.prompt_lengths[i];
  if (length == 1 || batch.prompt_lengths[i - 1] != length) return false;  // one token is not worth a split
  const int64_t* tokens = batch.tokens.const_data_ptr<int64_t>();
  return std::equal(tokens + begin_before, tokens + begin_before + length, tokens + begin);
}

PackedPrompts pack_prompts(const PackedBatch& batch, bool share, at::Device device) {
  const PackedBatch on_host{batch.tokens.cpu().contiguous(), batch.prompt_lengths, batch.response_lengths};
  const std::size_t count = batch.prompt_lengths.size();
  std::vector<int64_t> begin{0};
  for (std::size_t i = 0; i < count; ++i)
    begin.push_back(begin.back() + batch.prompt_lengths[i] + batch.response_lengths[i]);
  const auto repeats = [&](std::size_t i) {
    return share && i > 0 && i < count && same_prompt(on_host, i, begin[i - 1], begin[i]);
  };
  PackedPrompts out;
  std::vector<int64_t> lengths;
  std::vector<int32_t> continues;
  std::vector<at::Tensor> pieces;
  int64_t total = 0, prompt_end = 0;
  int32_t root = -1;
  bool any = false;
  const auto lay = [&](int64_t from, int64_t length, int32_t continued) {
    if (length == 0) return;
    pieces.push_back(on_host.tokens.narrow(0, from, length));
    lengths.push_back(length);
    continues.push_back(continued);
    any = any || continued >= 0;
    total += length;
  };
  for (std::size_t i = 0; i < count; ++i) {
    const int64_t prompt = batch.prompt_lengths[i], response = batch.response_lengths[i];
    if (!repeats(i) && !repeats(i + 1)) {  // alone: prompt and answer are one sequence
      out.prompt_end.push_back(total + prompt - 1);
      out.response_begin.push_back(total + prompt);
      lay(begin[i], prompt + response, -1);
      continue;
    }
    if (!repeats(i)) {
      root = static_cast<int32_t>(lengths.size());
      lay(begin[i], prompt, -1);
      prompt_end = total - 1;
    }
    out.prompt_end.push_back(prompt_end);
    out.response_begin.push_back(total);
    lay(begin[i] + prompt, response, root);
  }
  out.packed = pack_tokens(at::cat(pieces).to(device), lengths, any ? continues : std::vector<int32_t>());
  return out;
}

DistinctRows answer_rows(const PackedBatch& batch, const PackedPrompts& laid) {
  std::vector<int64_t> wanted;
  std::size_t answer = 0;
  for (std::size_t i = 0; i < batch.response_lengths.size(); ++i)
    for (int64_t t = 0; t < batch.response_lengths[i]; ++t, ++answer)
      if (batch.scored.empty() || batch.scored[answer])
        wanted.push_back(t == 0 ? laid.prompt_end[i] : laid.response_begin[i] + t - 1);
  return distinct(wanted);
}

DistinctRows last_rows(const PackedBatch& batch, const PackedPrompts& laid) {
  std::vector<int64_t> wanted;
  for (std::size_t i = 0; i < batch.response_lengths.size(); ++i)
    wanted.push_back(batch.response_lengths[i] == 0 ? laid.prompt_end[i]
                                                    : laid.response_begin[i] + batch.response_lengths[i] - 1);
  return distinct(wanted);
}

}  // namespace troupe
