#include "roles/perplexity.hpp"

#include <cmath>

#include "core/data/json_records.hpp"
#include "core/io/disk.hpp"

namespace troupe {
namespace {

constexpr size_t kTokensAtOnce = 8192;  // that short texts are gathered to

class Windows {
 public:
  Windows(Engine& engine, const WindowOptions& options) : engine_(engine), options_(options) {}

  void add(std::span<const int32_t> text) {
    ++result_.texts;
    const auto n = static_cast<int64_t>(text.size());
    result_.tokens += n;
    for (int64_t begin = 0, scored_to = 1; scored_to < n; begin += options_.stride) {
      const int64_t end = std::min(n, begin + options_.max_length);
      take(text.subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin)), end - scored_to);
      scored_to = end;
    }
  }

  PerplexityResult finish() {
    flush();
    return result_;
  }

 private:
  void take(std::span<const int32_t> window, int64_t scored) {
    tokens_.insert(tokens_.end(), window.begin(), window.end());
    prompts_.push_back(static_cast<int32_t>(static_cast<int64_t>(window.size()) - scored));
    responses_.push_back(static_cast<int32_t>(scored));
    ++result_.windows;
    result_.scored += scored;
    if (tokens_.size() >= kTokensAtOnce) flush();
  }

  void flush() {
    for (const float logprob : engine_.logprobs(tokens_, prompts_, responses_, 1.0))
      result_.log_likelihood += static_cast<double>(logprob);
    tokens_.clear();
    prompts_.clear();
    responses_.clear();
  }

  Engine& engine_;
  const WindowOptions options_;
  PerplexityResult result_;
  std::vector<int32_t> tokens_, prompts_, responses_;
};

}  // namespace

double PerplexityResult::perplexity() const {
  return std::exp(mean_loss());
}

PerplexityResult measure_perplexity(Engine& engine, const Tokenizer& tokenizer, const std::filesystem::path& data,
                                    const WindowOptions& options) {
  Windows windows(engine, options);
  const auto add = [&](const std::string& text) {
    std::vector<int32_t> ids = tokenizer.encode_with_bos(text);
    if (options.bos && (ids.empty() || ids[0] != *options.bos)) ids.insert(ids.begin(), *options.bos);
    windows.add(ids);
  };
  if (data.extension() == ".jsonl")
    for_each_json_record(
        data, [&](const Json& object, const std::string& where, int64_t) { add(record_text(object, "text", where)); });
  else
    add(read_file(real_disk(), data, uint64_t{1} << 30));
  const PerplexityResult result = windows.finish();
  if (result.scored == 0) throw std::runtime_error(data.string() + ": holds no text of at least two tokens");
  return result;
}

}  // namespace troupe
