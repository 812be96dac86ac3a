// Multiple-choice questions answered by probability: no text is generated; the choice is the candidate to which the
// model gives the largest (log-)probability after the question.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "core/data/choice_questions.hpp"
#include "core/generate/engine.hpp"
#include "core/text/tokenizer.hpp"

namespace troupe {

// The prompt, with letters A, B, C, ...:
//   letters:  [example\n\n ...]QUESTION\nA. OPTION\nB. OPTION\n...CUE        candidates: the letters
//   options:  [example\n\n ...]QUESTION\nCUE                                 candidates: the options' texts
// An example is a question of the same form with its right candidate after the cue.
struct ChoiceOptions {
  bool options = false;    // the candidates are the options' texts
  bool space = false;      // a space stands between the cue and the candidate
  bool normalise = false;  // the mean over a candidate's tokens instead of the sum
  std::string cue = "Answer:";
  std::optional<int32_t> bos;  // put before the prompt, unless the tokenizer has done so
  int64_t context = 2048;      // tokens; examples that do not fit are left out, the first ones first
};

// The share of right answers, and Wilson's 95 % interval for it (Wilson 1927, z = 1.959964).
struct Accuracy {
  int64_t questions = 0;
  int64_t right = 0;

  double share() const { return static_cast<double>(right) / static_cast<double>(questions); }
  double low() const;
  double high() const;
};

struct SubjectAccuracy {
  std::string name;
  Accuracy accuracy;
  int64_t examples_left_out = 0;
};

// Prompt and candidates as text, as above. `examples` are the ones to use.
std::string choice_prompt(const ChoiceQuestion& question, std::span<const ChoiceQuestion> examples,
                          const ChoiceOptions& options);
std::string choice_candidate(const ChoiceQuestion& question, int64_t option, const ChoiceOptions& options);

// The candidates' log-probabilities (per token with `normalise`) by question; what the choice is made from.
// Throws std::runtime_error naming file and line of a question that exceeds the context by itself.
std::vector<std::vector<double>> score_choices(Engine& engine, const Tokenizer& tokenizer, const ChoiceSubject& subject,
                                               const ChoiceOptions& options, int64_t* examples_left_out = nullptr);

// Of equal scores the first counts. Calls on_subject after each.
std::vector<SubjectAccuracy> answer_choices(Engine& engine, const Tokenizer& tokenizer, const ChoiceData& data,
                                            const ChoiceOptions& options,
                                            const std::function<void(const SubjectAccuracy&)>& on_subject);

}  // namespace troupe
