#include "roles/roll_loop.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace troupe {
namespace {

template <class T>
void append(std::vector<T>& out, const Attachment& values) {
  const auto span = values.as<T>();
  out.insert(out.end(), span.begin(), span.end());
}

double seconds(Instant from, Instant to) {
  return std::chrono::duration<double>(to - from).count();
}

void check_rollouts(const Rollouts& r, int64_t group_size) {
  const auto lengths = r.lengths.as<int32_t>();
  const int64_t tokens = std::accumulate(lengths.begin(), lengths.end(), int64_t{0});
  if (r.lengths.numel() != group_size || r.finish.numel() != group_size ||
      static_cast<int64_t>(r.texts.size()) != group_size || r.tokens.numel() != tokens ||
      r.logprobs.numel() != tokens || r.versions.numel() != tokens)
    throw std::runtime_error("rollouts of draw " + std::to_string(r.draw) + " contradict themselves: expected " +
                             std::to_string(group_size) + " answers of " + std::to_string(tokens) + " tokens in all");
}

}  // namespace

void check_scores(const Scores& scores, std::size_t expected, const std::string& node) {
  if (scores.scores.size() != expected)
    throw std::runtime_error(node + ": " + std::to_string(scores.scores.size()) + " scores for " +
                             std::to_string(expected) + " answers");
  for (const double score : scores.scores)
    if (!std::isfinite(score)) throw std::runtime_error(node + ": a score is not a finite number");
  for (const auto& [rule, values] : scores.parts)
    if (values.size() != expected)
      throw std::runtime_error(node + ": rule " + rule + " has " + std::to_string(values.size()) + " values for " +
                               std::to_string(expected) + " answers");
}

RollLoop::RollLoop(const Topology& topology, const ConductorConfig& config, Algorithm algorithm,
                   std::vector<TokenizedPrompt> prompts, Roles roles, const Context& context,
                   std::function<void(std::size_t)> bring_up_to_date)
    : topology_(topology),
      context_(context),
      config_(config),
      algorithm_(std::move(algorithm)),
      prompts_(std::move(prompts)),
      order_(topology.run.seed, prompts_.size()),
      reward_(roles.reward),
      reference_(roles.reference),
      deadline_(static_cast<int64_t>(topology.transport.ask_timeout_s * 1000)),
      generation_(std::move(roles.actors), deadline_, std::move(bring_up_to_date)) {}

const TokenizedPrompt& RollLoop::prompt_of(uint64_t draw) const {
  return prompts_[order_.prompt_of(draw)];
}

// The bound on staleness, token by token; in a deterministic run there is one right version.
void RollLoop::check_versions(const Rollouts& rollouts, uint64_t asked) const {
  const auto step = static_cast<int64_t>(step_of(rollouts.draw));
  const int64_t low = std::max(static_cast<int64_t>(asked), step - 1 - config_.max_staleness);
  const int64_t high = topology_.run.deterministic ? static_cast<int64_t>(asked) : step - 1;
  const auto versions = rollouts.versions.as<int32_t>();
  const auto wrong = std::find_if(versions.begin(), versions.end(), [&](int32_t v) { return v < low || v > high; });
  if (wrong == versions.end()) return;
  throw std::runtime_error("rollouts of draw " + std::to_string(rollouts.draw) + ", step " + std::to_string(step) +
                           ": token " + std::to_string(wrong - versions.begin()) + " was sampled by version " +
                           std::to_string(*wrong) + ", expected " + std::to_string(low) + " to " +
                           std::to_string(high) + " (max_staleness " + std::to_string(config_.max_staleness) + ")");
}

void RollLoop::start(uint64_t number, uint64_t version) {
  steps_[number].started = context_.now();
  steps_[number].version = version;
  const auto count = static_cast<uint64_t>(config_.prompts_per_update);
  for (uint64_t draw = (number - 1) * count; draw < number * count; ++draw)
    generation_.start({.seed = topology_.run.seed,
                       .draw = draw,
                       .num_samples = static_cast<uint64_t>(config_.group_size),
                       .policy_version = version,
                       .exact = topology_.run.deterministic,
                       .prompt = Attachment::of(prompt_of(draw).ids),
                       .sampling = topology_.sampling});
}

void RollLoop::pump() {
  take_rollouts();
  for (auto& [number, step] : steps_) {
    take_scores(step);
    const bool scored = step.scored == static_cast<std::size_t>(config_.prompts_per_update);
    if (!scored || step.rolled) continue;
    if (reference_ && !step.reference.valid()) ask_reference(number, step);
    if (!reference_ || step.reference.ready()) finish(number, step);
  }
}

void RollLoop::take_rollouts() {
  while (auto rollouts = generation_.take()) {
    check_rollouts(*rollouts, config_.group_size);
    const uint64_t draw = rollouts->draw;
    Step& step = steps_.at(step_of(draw));
    check_versions(*rollouts, step.version);
    Group& group = step.groups[draw];
    group.rollouts = std::move(*rollouts);
    const auto lengths = group.rollouts.lengths.as<int32_t>();
    const auto finish = group.rollouts.finish.as<uint8_t>();
    Score score{.prompt = prompt_of(draw).text,
                .answer = prompt_of(draw).answer,
                .responses = group.rollouts.texts,
                .num_tokens = {lengths.begin(), lengths.end()},
                .max_new_tokens = topology_.sampling.max_new_tokens};
    for (const uint8_t f : finish) score.truncated.push_back(f == static_cast<uint8_t>(FinishReason::kLength));
    group.asked = reward_.ask(score, {.deadline = deadline_, .what = "score draw " + std::to_string(draw)});
    if (step.groups.size() < static_cast<std::size_t>(config_.prompts_per_update)) continue;
    step.generated = context_.now();
    step.started = std::max(step.started, std::exchange(last_generated_, step.generated));  // the one before it
  }
}

void RollLoop::take_scores(Step& step) {
  for (auto& [draw, group] : step.groups) {
    if (group.scores || !group.asked.ready()) continue;
    group.scores = group.asked.get();
    check_scores(*group.scores, group.rollouts.texts.size(), reward_.peer());
    if (++step.scored == static_cast<std::size_t>(config_.prompts_per_update)) step.rewarded = context_.now();
  }
}

void RollLoop::ask_reference(uint64_t number, Step& step) {
  const Experience packed = assemble(number, step);
  step.reference = reference_->ask(LogProbs{.tokens = packed.tokens,
                                            .prompt_lengths = packed.prompt_lengths,
                                            .response_lengths = packed.response_lengths,
                                            .temperature = topology_.sampling.temperature},
                                   {.deadline = deadline_, .what = "logprobs step " + std::to_string(number)});
}

GroupAdvantages RollLoop::advantages_of(const Step& step) const {
  GroupRewards answers;
  for (const auto& [draw, group] : step.groups) {
    const auto lengths = group.rollouts.lengths.as<int32_t>();
    const auto finish = group.rollouts.finish.as<uint8_t>();
    for (std::size_t i = 0; i < group.scores->scores.size(); ++i) {
      answers.rewards.push_back(group.scores->scores[i]);
      answers.groups.push_back(draw);
      answers.num_tokens.push_back(lengths[i]);
      answers.truncated.push_back(finish[i] == static_cast<uint8_t>(FinishReason::kLength));
    }
    for (const auto& [rule, values] : group.scores->parts) {
      auto& all = answers.parts[rule];
      all.insert(all.end(), values.begin(), values.end());
    }
  }
  return algorithm_.advantages(answers);
}

// Everything but rewards, advantages and reference log-probabilities.
Experience RollLoop::assemble(uint64_t number, const Step& step) const {
  std::vector<int32_t> tokens, prompts, responses, versions;
  std::vector<float> behaviour;
  Experience out{.step = number};
  for (const auto& [draw, group] : step.groups) {
    const std::vector<int32_t>& prompt = prompt_of(draw).ids;
    const auto answers = group.rollouts.tokens.as<int32_t>();
    std::size_t at = 0;
    uint64_t sample = 0;
    for (const int32_t length : group.rollouts.lengths.as<int32_t>()) {
      tokens.insert(tokens.end(), prompt.begin(), prompt.end());
      tokens.insert(tokens.end(), answers.begin() + at, answers.begin() + at + length);
      prompts.push_back(static_cast<int32_t>(prompt.size()));
      responses.push_back(length);
      out.draws.push_back(draw);
      out.samples.push_back(sample++);
      at += static_cast<std::size_t>(length);
    }
    append(behaviour, group.rollouts.logprobs);
    append(versions, group.rollouts.versions);
  }
  out.tokens = Attachment::of(std::move(tokens));
  out.prompt_lengths = Attachment::of(std::move(prompts));
  out.response_lengths = Attachment::of(std::move(responses));
  out.behaviour_logprobs = Attachment::of(std::move(behaviour));
  out.reference_logprobs = Attachment::of(std::vector<float>());
  out.versions = Attachment::of(std::move(versions));
  return out;
}

void RollLoop::finish(uint64_t number, Step& step) {
  Rolled rolled{.batch = assemble(number, step)};
  Experience& batch = rolled.batch;
  if (reference_) {
    batch.reference_logprobs = step.reference.get().logprobs;
    if (batch.reference_logprobs.numel() != batch.behaviour_logprobs.numel())
      throw std::runtime_error(reference_->peer() + ": " + std::to_string(batch.reference_logprobs.numel()) +
                               " log-probabilities for " + std::to_string(batch.behaviour_logprobs.numel()) +
                               " answer tokens");
  }
  const GroupAdvantages advantages = advantages_of(step);
  std::vector<float> rewards;
  std::map<std::string, std::pair<double, double>> parts;  // sum, count
  double truncated = 0;
  for (const auto& [draw, group] : step.groups) {
    const auto finish = group.rollouts.finish.as<uint8_t>();
    truncated += std::count(finish.begin(), finish.end(), static_cast<uint8_t>(FinishReason::kLength));
    for (const double score : group.scores->scores) rewards.push_back(static_cast<float>(score));
    for (const auto& [rule, values] : group.scores->parts)
      for (const double value : values) parts[rule].first += value, parts[rule].second += 1;
  }
  std::vector<uint8_t> mask;
  const auto lengths = batch.response_lengths.as<int32_t>();
  for (std::size_t i = 0; i < lengths.size(); ++i)
    mask.insert(mask.end(), static_cast<std::size_t>(lengths[i]), advantages.count_tokens[i]);
  const auto count = static_cast<double>(rewards.size());
  batch.rewards = Attachment::of(std::move(rewards));
  batch.advantages = Attachment::of(advantages.advantages);
  batch.keep = Attachment::of(advantages.keep);
  batch.loss_mask = Attachment::of(std::move(mask));

  rolled.metrics = metrics_of(batch);
  for (const auto& [rule, sum] : parts) rolled.metrics[std::string(kRewardPartPrefix) + rule] = sum.first / sum.second;
  rolled.metrics["truncated_fraction"] = truncated / count;
  rolled.metrics["groups_without_signal"] = advantages.zero_variance_fraction;
  rolled.metrics["seconds_generate"] = seconds(step.started, step.generated);
  rolled.metrics["seconds_reward"] = seconds(step.generated, step.rewarded);
  rolled.metrics["seconds_reference"] = seconds(step.rewarded, context_.now());
  rolled.metrics["tokens_per_s_generate"] =
      static_cast<double>(batch.behaviour_logprobs.numel()) / rolled.metrics["seconds_generate"];
  step.rolled = std::move(rolled);
}

std::optional<Rolled> RollLoop::take(uint64_t number) {
  const auto it = steps_.find(number);
  if (it == steps_.end() || !it->second.rolled) return std::nullopt;
  std::optional<Rolled> rolled = std::move(it->second.rolled);
  steps_.erase(it);
  return rolled;
}

void RollLoop::add_slots(std::vector<std::shared_ptr<AnswerSlot>>& out) const {
  generation_.add_slots(out);
  for (const auto& [number, step] : steps_) {
    for (const auto& [draw, group] : step.groups)
      if (group.asked.valid()) out.push_back(group.asked.slot());
    if (step.reference.valid()) out.push_back(step.reference.slot());
  }
}

std::string RollLoop::progress() const {
  if (steps_.empty()) return "";
  const auto& [number, step] = *steps_.begin();
  return "step " + std::to_string(number) + ": " + std::to_string(step.groups.size()) + " of " +
         std::to_string(config_.prompts_per_update) + " prompts answered";
}

MetricValues metrics_of(const Experience& batch) {
  MetricValues out;
  const auto rewards = batch.rewards.as<float>();
  const auto lengths = batch.response_lengths.as<int32_t>();
  const auto n = static_cast<double>(rewards.size());
  const double mean = std::accumulate(rewards.begin(), rewards.end(), 0.0) / n;
  double squares = 0;
  for (const float reward : rewards) squares += (reward - mean) * (reward - mean);
  out["reward_mean"] = mean;
  out["reward_std"] = rewards.size() > 1 ? std::sqrt(squares / (n - 1)) : 0.0;
  out["reward_min"] = *std::min_element(rewards.begin(), rewards.end());
  out["reward_max"] = *std::max_element(rewards.begin(), rewards.end());
  out["response_length_mean"] = std::accumulate(lengths.begin(), lengths.end(), 0.0) / n;
  out["response_length_max"] = *std::max_element(lengths.begin(), lengths.end());
  double total = 0;
  std::map<int64_t, int64_t> tokens_of_lag;
  const auto versions = batch.versions.as<int32_t>();
  for (const int32_t version : versions) {
    const int64_t lag = static_cast<int64_t>(batch.step) - 1 - version;
    total += static_cast<double>(lag);
    ++tokens_of_lag[lag];
  }
  const auto tokens = static_cast<double>(std::max<std::size_t>(versions.size(), 1));
  out["staleness"] = total / tokens;
  for (const auto& [lag, count] : tokens_of_lag)
    out[std::string(kStalenessPrefix) + std::to_string(lag)] = static_cast<double>(count) / tokens;
  return out;
}

}  // namespace troupe
