// What examples/data holds is what it is said to be: every line is a sample, and nothing held out is trained on.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <set>

#include "core/data/jsonl.hpp"
#include "core/data/prompts.hpp"
#include "core/data/training_samples.hpp"

namespace troupe {
namespace {

const std::filesystem::path kData = TROUPE_SOURCE_DIR "/examples/data";

const SampleMaker& maker() {
  static const SampleMaker kMaker(Tokenizer::from_folder(TROUPE_SOURCE_DIR "/tests/oracles/data/text/minimind"),
                                  {.max_length = 1000});
  return kMaker;
}

template <class Check>
void for_each_line(const std::string& name, Check check) {
  const JsonLines lines(kData / name);
  for (int64_t i = 0; i < lines.size(); ++i) {
    SCOPED_TRACE(name + ":" + std::to_string(lines.line_number(i)));
    check(lines.line(i));
  }
}

// The last message of the user, or the text.
std::set<std::string> questions(const std::string& name) {
  std::set<std::string> found;
  for_each_line(name, [&](std::string_view text) {
    const nlohmann::json line = nlohmann::json::parse(text);
    if (line.contains("text")) {
      found.insert(line["text"].get<std::string>());
      return;
    }
    for (const auto& message : line.contains("chosen") ? line["chosen"] : line["conversations"])
      if (message["role"] == "user") found.insert(message["content"].get<std::string>());
  });
  return found;
}

TEST(ExampleData, EveryLineIsASample) {
  for (const char* name : {"pretrain.jsonl", "pretrain_heldout.jsonl"})
    for_each_line(name, [](std::string_view line) { EXPECT_GT(maker().pretrain(line).num_scored(), 3); });
  for (const char* name :
       {"sft.jsonl", "sft_heldout.jsonl", "reason.jsonl", "reason_heldout.jsonl", "lora_identity.jsonl", "rl.jsonl"})
    for_each_line(name, [](std::string_view line) { EXPECT_GT(maker().conversation(line).num_scored(), 2); });
  for (const char* name : {"dpo.jsonl", "dpo_heldout.jsonl"})
    for_each_line(name, [](std::string_view line) {
      const PreferencePair pair = maker().preference(line);
      EXPECT_NE(pair.chosen.tokens, pair.rejected.tokens);
    });
  for (const char* name : {"rl.jsonl", "rl_heldout.jsonl"})
    for (const Prompt& prompt : read_prompts(kData / name).prompts) EXPECT_FALSE(prompt.answer.empty());
}

TEST(ExampleData, ReasoningHasItsForm) {
  for (const char* name : {"reason.jsonl", "reason_heldout.jsonl"})
    for_each_line(name, [](std::string_view text) {
      const std::string answer = nlohmann::json::parse(text)["conversations"].back()["content"];
      EXPECT_TRUE(answer.starts_with("<think>\n"));
      EXPECT_NE(answer.find("\n</think>\n<answer>\n"), std::string::npos);
      EXPECT_TRUE(answer.ends_with("\n</answer>"));
    });
}

TEST(ExampleData, NothingHeldOutIsTrainedOn) {
  for (const char* name : {"pretrain", "sft", "dpo", "reason", "rl"}) {
    const std::set<std::string> held_out = questions(std::string(name) + "_heldout.jsonl");
    EXPECT_GE(held_out.size(), 70u) << name;
    for (const std::string& question : questions(std::string(name) + ".jsonl"))
      EXPECT_FALSE(held_out.contains(question)) << name << ": " << question;
  }
}

}  // namespace
}  // namespace troupe
