#include "roles/multiple_choice.hpp"

#include <algorithm>
#include <cmath>

namespace troupe {
namespace {

constexpr double kZ = 1.959964;
constexpr size_t kTokensAtOnce = 16384;

// Centre and half width of Wilson's interval.
std::pair<double, double> wilson(const Accuracy& a) {
  const auto n = static_cast<double>(a.questions);
  const double p = a.share(), z2 = kZ * kZ;
  const double scale = 1 / (1 + z2 / n);
  return {scale * (p + z2 / (2 * n)), scale * kZ * std::sqrt(p * (1 - p) / n + z2 / (4 * n * n))};
}

// Sequences gathered and scored together; each is a prompt and a candidate.
class Gathered {
 public:
  Gathered(Engine& engine, bool normalise, std::vector<std::vector<double>>& scores)
      : engine_(engine), normalise_(normalise), scores_(scores) {}

  void add(size_t question, std::span<const int32_t> prompt, std::span<const int32_t> candidate) {
    tokens_.insert(tokens_.end(), prompt.begin(), prompt.end());
    tokens_.insert(tokens_.end(), candidate.begin(), candidate.end());
    prompts_.push_back(static_cast<int32_t>(prompt.size()));
    candidates_.push_back(static_cast<int32_t>(candidate.size()));
    questions_.push_back(question);
  }
  bool full() const { return tokens_.size() >= kTokensAtOnce; }

  void flush() {
    const std::vector<float> logprobs = engine_.logprobs(tokens_, prompts_, candidates_, 1.0);
    size_t at = 0;
    for (size_t i = 0; i < questions_.size(); ++i) {
      double sum = 0;
      for (int32_t t = 0; t < candidates_[i]; ++t) sum += static_cast<double>(logprobs[at++]);
      scores_[questions_[i]].push_back(normalise_ ? sum / candidates_[i] : sum);
    }
    tokens_.clear();
    prompts_.clear();
    candidates_.clear();
    questions_.clear();
  }

 private:
  Engine& engine_;
  const bool normalise_;
  std::vector<std::vector<double>>& scores_;
  std::vector<int32_t> tokens_, prompts_, candidates_;
  std::vector<size_t> questions_;
};

std::string asked(const ChoiceQuestion& question, const ChoiceOptions& options) {
  std::string text = question.question + "\n";
  if (!options.options)
    for (size_t i = 0; i < question.options.size(); ++i)
      text += std::string(1, static_cast<char>('A' + i)) + ". " + question.options[i] + "\n";
  return text + options.cue;
}

}  // namespace

double Accuracy::low() const {
  const auto [centre, half] = wilson(*this);
  return std::max(0.0, centre - half);
}

double Accuracy::high() const {
  const auto [centre, half] = wilson(*this);
  return std::min(1.0, centre + half);
}

std::string choice_candidate(const ChoiceQuestion& question, int64_t option, const ChoiceOptions& options) {
  const std::string text =
      options.options ? question.options[static_cast<size_t>(option)] : std::string(1, static_cast<char>('A' + option));
  return (options.space ? " " : "") + text;
}

std::string choice_prompt(const ChoiceQuestion& question, std::span<const ChoiceQuestion> examples,
                          const ChoiceOptions& options) {
  std::string text;
  for (const ChoiceQuestion& example : examples)
    text += asked(example, options) + choice_candidate(example, example.answer, options) + "\n\n";
  return text + asked(question, options);
}

std::vector<std::vector<double>> score_choices(Engine& engine, const Tokenizer& tokenizer, const ChoiceSubject& subject,
                                               const ChoiceOptions& options, int64_t* examples_left_out) {
  std::vector<std::vector<double>> scores(subject.questions.size());
  Gathered gathered(engine, options.normalise, scores);
  for (size_t q = 0; q < subject.questions.size(); ++q) {
    const ChoiceQuestion& question = subject.questions[q];
    const std::string where = subject.file.string() + ":" + std::to_string(question.line);
    std::vector<std::vector<int32_t>> candidates;
    size_t longest = 0;
    for (size_t i = 0; i < question.options.size(); ++i) {
      candidates.push_back(tokenizer.encode(choice_candidate(question, static_cast<int64_t>(i), options)));
      if (candidates.back().empty()) throw std::runtime_error(where + ": an option has no token");
      longest = std::max(longest, candidates.back().size());
    }
    std::span<const ChoiceQuestion> examples = subject.examples;
    std::vector<int32_t> prompt;
    while (true) {
      prompt = tokenizer.encode_with_bos(choice_prompt(question, examples, options));
      if (options.bos && (prompt.empty() || prompt[0] != *options.bos)) prompt.insert(prompt.begin(), *options.bos);
      if (static_cast<int64_t>(prompt.size() + longest) <= options.context) break;
      if (examples.empty())
        throw std::runtime_error(where + ": the question has " + std::to_string(prompt.size() + longest) +
                                 " tokens, the model's context is " + std::to_string(options.context));
      examples = examples.subspan(1);
      if (examples_left_out) ++*examples_left_out;
    }
    for (const auto& candidate : candidates) gathered.add(q, prompt, candidate);
    if (gathered.full()) gathered.flush();
  }
  gathered.flush();
  return scores;
}

std::vector<SubjectAccuracy> answer_choices(Engine& engine, const Tokenizer& tokenizer, const ChoiceData& data,
                                            const ChoiceOptions& options,
                                            const std::function<void(const SubjectAccuracy&)>& on_subject) {
  std::vector<SubjectAccuracy> out;
  for (const ChoiceSubject& subject : data.subjects) {
    SubjectAccuracy result{.name = subject.name};
    const auto scores = score_choices(engine, tokenizer, subject, options, &result.examples_left_out);
    for (size_t q = 0; q < scores.size(); ++q) {
      const auto best = std::ranges::max_element(scores[q]) - scores[q].begin();
      ++result.accuracy.questions;
      result.accuracy.right += best == subject.questions[q].answer;
    }
    out.push_back(result);
    on_subject(result);
  }
  return out;
}

}  // namespace troupe
