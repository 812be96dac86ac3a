#include "roles/journal_command.hpp"

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <numeric>

#include "core/config.hpp"
#include "core/io/disk.hpp"
#include "roles/ledger.hpp"
#include "roles/model_source.hpp"
#include "roles/run_journal.hpp"
#include "roles/topology.hpp"

namespace troupe {
namespace {

// The values of answer tokens [begin, begin + count) as JSON; null for an attachment that is empty.
template <class T>
Json slice(const Attachment& values, std::size_t begin, std::size_t count) {
  if (values.numel() == 0) return nullptr;
  const auto span = values.as<T>().subspan(begin, count);
  return std::vector<T>(span.begin(), span.end());
}

// One sample a line, in the order of the batch.
void export_batch(std::ostream& out, const Experience& batch, const Tokenizer& tokenizer, bool with_tokens) {
  const auto tokens = batch.tokens.as<int32_t>();
  const auto prompts = batch.prompt_lengths.as<int32_t>();
  const auto answers = batch.response_lengths.as<int32_t>();
  const auto versions = batch.versions.as<int32_t>();
  std::size_t token = 0, answer_token = 0;
  for (std::size_t i = 0; i < answers.size(); ++i) {
    const auto prompt_length = static_cast<std::size_t>(prompts[i]), length = static_cast<std::size_t>(answers[i]);
    const auto prompt = tokens.subspan(token, prompt_length);
    const auto answer = tokens.subspan(token + prompt_length, length);
    const auto used = versions.subspan(answer_token, length);
    Json line{{"step", batch.step},
              {"draw", batch.draws[i]},
              {"sample", batch.samples[i]},
              {"prompt", tokenizer.decode(prompt, false)},
              {"answer", tokenizer.decode(answer, true)},
              {"reward", batch.rewards.as<float>()[i]},
              {"advantage", batch.advantages.as<float>()[i]},
              {"trained_on", batch.keep.as<uint8_t>()[i] != 0},
              {"prompt_tokens", prompt_length},
              {"answer_tokens", length},
              {"versions", nullptr}};
    if (!used.empty()) {
      const auto [low, high] = std::minmax_element(used.begin(), used.end());
      line["versions"] = {*low, *high};
    }
    if (with_tokens) {
      line["prompt_ids"] = std::vector<int32_t>(prompt.begin(), prompt.end());
      line["answer_ids"] = std::vector<int32_t>(answer.begin(), answer.end());
      line["logprobs"] = slice<float>(batch.behaviour_logprobs, answer_token, length);
      line["reference_logprobs"] = slice<float>(batch.reference_logprobs, answer_token, length);
      line["loss_mask"] = slice<uint8_t>(batch.loss_mask, answer_token, length);
    }
    out << line.dump(-1, ' ', false, Json::error_handler_t::replace) << '\n';
    token += prompt_length + length;
    answer_token += length;
  }
}

uint64_t export_samples(const JournalChoice& choice) {
  namespace fs = std::filesystem;
  const Tokenizer tokenizer = load_tokenizer(*read_run_topology(choice.run).model);
  const fs::path& to = *choice.export_to;
  if (fs::is_directory(to)) throw std::runtime_error(to.string() + ": is a folder, expected a file");
  // Only a regular file can be replaced, where its link leads: a pipe or a device is written into.
  const bool in_place = fs::exists(fs::symlink_status(to)) && !fs::is_regular_file(to);
  const fs::path file = in_place ? to : fs::weakly_canonical(to);
  const fs::path aside = in_place ? to : fs::path(file.string() + ".tmp");
  std::ofstream out(aside, std::ios::binary);
  if (!out) throw std::runtime_error(aside.string() + ": cannot be written");
  uint64_t samples = 0;
  try {
    visit_experiences(choice.run / "journal", [&](uint64_t, const Experience& batch) {
      export_batch(out, batch, tokenizer, choice.tokens);
      samples += batch.draws.size();
    });
    out.close();
    if (!out) throw std::runtime_error(aside.string() + ": cannot be written to its end (disk full?)");
    if (!in_place) fs::rename(aside, file);
  } catch (...) {
    std::error_code ignored;
    if (!in_place) fs::remove(aside, ignored);
    throw;
  }
  return samples;
}

void print_summary(const JournalChoice& choice, const Ledger& ledger) {
  const auto n = [](auto value) { return static_cast<unsigned long long>(value); };
  std::printf("journal of %s: %llu steps, %llu samples of %llu draws (%llu recorded but not trained on)\n",
              choice.run.c_str(), n(ledger.steps), n(ledger.samples), n(ledger.draws), n(ledger.left_out));
  std::printf("%llu answer tokens, %llu prompt tokens, %llu bytes in records\n", n(ledger.answer_tokens),
              n(ledger.prompt_tokens), n(ledger.bytes));
  if (ledger.steps > 0)
    std::printf("policy versions %lld to %lld, the stalest token %lld behind its update\n",
                static_cast<long long>(ledger.oldest_version), static_cast<long long>(ledger.newest_version),
                static_cast<long long>(ledger.staleness));
  if (ledger.torn_bytes > 0)
    std::printf("torn tail: %llu bytes of a record that was being written; troupe resume cuts them off\n",
                n(ledger.torn_bytes));
  std::string names;
  for (const std::string& name : ledger.checkpoints) names += (names.empty() ? "" : ", ") + name;
  std::printf("checkpoints: %s\n", names.empty() ? "none" : names.c_str());
}

}  // namespace

int journal_command(const JournalChoice& choice) {
  const Ledger ledger = choice.check ? check_ledger(choice.run) : read_ledger(choice.run);
  print_summary(choice, ledger);
  std::fflush(stdout);
  for (const std::string& line : ledger.violations) std::fprintf(stderr, "troupe: %s\n", line.c_str());
  if (!ledger.violations.empty()) return 1;
  if (choice.export_to)
    std::printf("%llu samples -> %s\n", static_cast<unsigned long long>(export_samples(choice)),
                choice.export_to->c_str());
  std::printf("%s\n", choice.check ? "every invariant holds" : "every record checks");
  return 0;
}

}  // namespace troupe
