#include "core/generate/token_scorer.hpp"

#include <algorithm>
#include <stdexcept>
#include <string>

#include "core/generate/decoder_sizes.hpp"

namespace troupe {
namespace {

using kernels::kPageTokens;

constexpr int64_t kPassesGathered = 4;  // worth of tokens computed, before their pages are given back

// Pages of the sequences that go through together; given back whatever happens.
class HeldPages {
 public:
  explicit HeldPages(PagePool& pool) : pool_(pool) {}
  ~HeldPages() { release(); }
  HeldPages(const HeldPages&) = delete;
  HeldPages& operator=(const HeldPages&) = delete;

  // Pages for `length` tokens, the first `shared` of them those of `with`.
  std::vector<int32_t> take(int64_t length, const std::vector<int32_t>& with, int64_t shared) {
    std::vector<int32_t> pages(with.begin(), with.begin() + shared);
    const int64_t own = round_up(length, kPageTokens) / kPageTokens - shared;
    if (own > pool_.num_free())
      throw std::runtime_error("scoring needs room for " + std::to_string(own * kPageTokens) +
                               " tokens in the KV cache, " + std::to_string(pool_.num_free() * kPageTokens) +
                               " are free");
    const std::vector<int32_t> taken = pool_.take(own);
    held_.insert(held_.end(), taken.begin(), taken.end());
    pages.insert(pages.end(), taken.begin(), taken.end());
    return pages;
  }
  int64_t num_free() const { return pool_.num_free(); }
  void release() {
    for (int32_t page : held_) pool_.release(page);
    held_.clear();
  }

 private:
  PagePool& pool_;
  std::vector<int32_t> held_;
};

struct ScoredSequence {
  std::span<const int32_t> tokens;  // prompt and response
  int64_t prompt_length = 0;
  int64_t first_output = 0;  // of its response in the result
  std::vector<int32_t> pages;
  int64_t start = 0;  // tokens before it are in shared pages

  int64_t end() const { return static_cast<int64_t>(tokens.size()) - 1; }  // the last token predicts nothing asked
};

struct Target {
  LogitRequest request;
  int32_t token;
  int64_t output;
};

// The part [begin, end) of a sequence as a slice of the pass, and the targets among its rows.
void add_slice(const ScoredSequence& s, int64_t begin, int64_t end, float inverse_t, int64_t& row,
               std::vector<TokenSlice>& slices, std::vector<Target>& targets) {
  slices.push_back({.pages = s.pages.data(),
                    .start = begin,
                    .tokens = s.tokens.subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin)),
                    .sequence_length = static_cast<int64_t>(s.tokens.size())});
  for (int64_t p = begin; p < end; ++p, ++row) {
    if (p + 1 < s.prompt_length) continue;
    targets.push_back(
        {{row, inverse_t}, s.tokens[static_cast<size_t>(p + 1)], s.first_output + p + 1 - s.prompt_length});
  }
}

class Scorer {
 public:
  Scorer(CachedDecoder& decoder, PagePool& pages, const ScoreLimits& limits, double temperature,
         std::vector<float>& outputs)
      : decoder_(decoder),
        limits_(limits),
        inverse_t_(static_cast<float>(1 / temperature)),
        held_(pages),
        outputs_(outputs) {}

  void add(ScoredSequence s, bool share_prompts) {
    int64_t shared = share_prompts ? pages_shared_with_last(s) : 0;
    const int64_t own = round_up(s.end(), kPageTokens) / kPageTokens - shared;
    const int64_t rows = rows_ + s.end() - shared * kPageTokens;
    if (!batch_.empty() && (rows > kPassesGathered * limits_.max_rows || own > held_.num_free())) {
      flush();
      shared = 0;
    }
    s.pages = held_.take(s.end(), shared ? batch_.back().pages : s.pages, shared);
    s.start = shared * kPageTokens;
    rows_ += s.end() - s.start;
    batch_.push_back(std::move(s));
  }

  void flush() {
    std::vector<TokenSlice> slices;
    std::vector<Target> targets;
    int64_t row = 0;
    const auto pass = [&] {
      decoder_.forward(slices);
      score(targets);
      slices.clear();
      targets.clear();
      row = 0;
    };
    for (const ScoredSequence& s : batch_) {
      for (int64_t begin = s.start; begin < s.end();) {
        const int64_t end = std::min(s.end(), begin + limits_.max_rows - row);
        add_slice(s, begin, end, inverse_t_, row, slices, targets);
        begin = end;
        if (row == limits_.max_rows) pass();
      }
    }
    if (row > 0) pass();
    batch_.clear();
    rows_ = 0;
    held_.release();
  }

 private:
  // Of the full pages at its front, those that hold the same tokens as the sequence before it. The last prompt token
  // is computed for each sequence: it predicts the first of the response.
  int64_t pages_shared_with_last(const ScoredSequence& s) const {
    if (batch_.empty()) return 0;
    const ScoredSequence& last = batch_.back();
    const auto computed = last.tokens.first(static_cast<size_t>(last.end()));
    const auto wanted = s.tokens.first(static_cast<size_t>(s.prompt_length - 1));
    return (std::ranges::mismatch(wanted, computed).in1 - wanted.begin()) / kPageTokens;
  }

  void score(const std::vector<Target>& targets) {
    const auto n = static_cast<int64_t>(targets.size());
    for (int64_t first = 0; first < n; first += limits_.max_logits) {
      const int64_t count = std::min(limits_.max_logits, n - first);
      std::vector<LogitRequest> requests;
      for (int64_t i = 0; i < count; ++i) requests.push_back(targets[static_cast<size_t>(first + i)].request);
      decoder_.compute_logits(requests);
      for (int64_t i = 0; i < count; ++i) {
        const Target& t = targets[static_cast<size_t>(first + i)];
        outputs_[static_cast<size_t>(t.output)] = token_logprob(decoder_.logits(i), inverse_t_, t.token);
      }
    }
  }

  CachedDecoder& decoder_;
  const ScoreLimits limits_;
  const float inverse_t_;
  HeldPages held_;
  std::vector<float>& outputs_;
  std::vector<ScoredSequence> batch_;
  int64_t rows_ = 0;
};

}  // namespace

std::vector<float> score_tokens(CachedDecoder& decoder, PagePool& pages, const ScoreLimits& limits,
                                std::span<const int32_t> tokens, std::span<const int32_t> prompt_lengths,
                                std::span<const int32_t> response_lengths, double temperature, bool share_prompts) {
  int64_t num_outputs = 0;
  for (int32_t length : response_lengths) num_outputs += length;
  std::vector<float> outputs(static_cast<size_t>(num_outputs));
  Scorer scorer(decoder, pages, limits, temperature, outputs);
  size_t first = 0;
  int64_t output = 0;
  for (size_t i = 0; i < prompt_lengths.size(); ++i) {
    const auto length = static_cast<size_t>(prompt_lengths[i] + response_lengths[i]);
    if (response_lengths[i] > 0) {
      scorer.add({.tokens = tokens.subspan(first, length),
                  .prompt_length = prompt_lengths[i],
                  .first_output = output,
                  .pages = {}},
                 share_prompts);
    }
    first += length;
    output += response_lengths[i];
  }
  scorer.flush();
  return outputs;
}

std::vector<float> sequence_logits(CachedDecoder& decoder, PagePool& pages, const ScoreLimits& limits,
                                   std::span<const int32_t> tokens, int64_t rows) {
  HeldPages held(pages);
  const auto n = static_cast<int64_t>(tokens.size());
  const std::vector<int32_t> own = held.take(n, {}, 0);
  std::vector<float> out;
  for (int64_t begin = 0; begin < n; begin += limits.max_rows) {
    const int64_t end = std::min(n, begin + limits.max_rows);
    const TokenSlice slice{.pages = own.data(),
                           .start = begin,
                           .tokens = tokens.subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin)),
                           .sequence_length = n};
    decoder.forward({&slice, 1});
    for (int64_t p = std::max(begin, n - rows); p < end; ++p) {
      const LogitRequest request{.row = p - begin};
      decoder.compute_logits({&request, 1});
      const LogitRow row = decoder.logits(0);
      out.insert(out.end(), row.values, row.values + row.vocab_size);
    }
  }
  return out;
}

}  // namespace troupe
