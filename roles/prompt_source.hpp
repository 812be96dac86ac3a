// The prompts of a run as token ids: which prompt a draw gives, and what the actors see of it. Immutable.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "core/data/prompts.hpp"
#include "core/rewards/rules.hpp"
#include "core/text/tokenizer.hpp"
#include "roles/topology.hpp"

namespace troupe {

struct TokenizedPrompt {
  std::vector<int32_t> ids;
  std::string text;
  std::string answer;
  int64_t line = 0;  // of its file
};

// Reads a prompt file and renders every line through the model's chat template (without one: the plain text, with the
// beginning-of-sequence token where the tokenizer has it so). Throws std::runtime_error naming file and line of a
// prompt longer than max_prompt_tokens.
std::vector<TokenizedPrompt> read_tokenized_prompts(const std::filesystem::path& file, const Tokenizer& tokenizer,
                                                    const PromptsSection& section);

// Before the first answer is there to be scored: every rule reads every expected answer. Throws std::runtime_error
// naming the prompts' file and line of one that can't be scored, and the rule.
void check_expected_answers(const std::vector<TokenizedPrompt>& prompts, const std::filesystem::path& file,
                            const RuleSet& rules, int64_t max_new_tokens);

}  // namespace troupe
