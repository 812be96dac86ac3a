#include "roles/evaluation.hpp"

#include "roles/roll_loop.hpp"

namespace troupe {
namespace {

constexpr uint64_t kEvaluationDraws = uint64_t{1} << 63;

}  // namespace

bool is_right(const Scores& scores, const std::string& rule, const std::set<std::string>& shaping) {
  if (rule.empty()) {
    bool judged = false;
    for (const auto& [part, values] : scores.parts) {
      if (shaping.contains(part)) continue;
      if (!(values[0] >= 1)) return false;
      judged = true;
    }
    return judged || scores.scores[0] >= 1;
  }
  const auto part = scores.parts.find(rule);
  if (part != scores.parts.end()) return part->second[0] >= 1;
  std::string known;
  for (const auto& [name, values] : scores.parts) known += (known.empty() ? "" : ", ") + name;
  throw std::runtime_error("evaluation.rule: '" + rule + "' is none of the reward model's rules (" + known + ")");
}

Evaluation::Evaluation(Context& context, const EvaluationSection& config, Sampling sampling, uint64_t seed,
                       std::vector<TokenizedPrompt> prompts, Handle<RewardFace> reward, std::set<std::string> shaping,
                       Millis deadline)
    : context_(context),
      config_(config),
      sampling_(std::move(sampling)),
      seed_(seed),
      prompts_(std::move(prompts)),
      reward_(std::move(reward)),
      shaping_(std::move(shaping)),
      deadline_(deadline) {
  sampling_.temperature = config.temperature;
}

Accuracy Evaluation::run(Generation& generation, uint64_t version) {
  for (std::size_t i = 0; i < prompts_.size(); ++i)
    generation.start({.seed = seed_,
                      .draw = kEvaluationDraws | i,
                      .num_samples = 1,
                      .policy_version = version,
                      .prompt = Attachment::of(prompts_[i].ids),
                      .sampling = sampling_});
  std::vector<Pending<Scores>> asked;
  while (generation.open() > 0 && !context_.stopping()) {
    std::vector<std::shared_ptr<AnswerSlot>> slots;
    generation.add_slots(slots);
    context_.mailbox().wait_any(slots, context_.now() + Millis(500));
    while (const auto answer = generation.take()) {
      const TokenizedPrompt& prompt = prompts_[answer->draw & ~kEvaluationDraws];
      const bool truncated = answer->finish.as<uint8_t>()[0] == static_cast<uint8_t>(FinishReason::kLength);
      asked.push_back(reward_.ask(Score{.prompt = prompt.text,
                                        .answer = prompt.answer,
                                        .responses = answer->texts,
                                        .num_tokens = {answer->tokens.numel()},
                                        .truncated = {truncated},
                                        .max_new_tokens = sampling_.max_new_tokens},
                                  {.deadline = deadline_, .what = "score held-out prompt"}));
      context_.beat("evaluate", std::to_string(asked.size()) + " of " + std::to_string(prompts_.size()) + " prompts");
    }
  }
  Accuracy out;
  for (auto& pending : asked) {
    const Scores scores = pending.get();
    check_scores(scores, 1, reward_.peer());
    out.right += is_right(scores, config_.rule, shaping_);
    ++out.prompts;
  }
  out.value = out.prompts > 0 ? static_cast<double>(out.right) / static_cast<double>(out.prompts) : 0.0;
  return out;
}

}  // namespace troupe
