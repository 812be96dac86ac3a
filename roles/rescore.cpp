#include "roles/rescore.hpp"

#include <algorithm>
#include <stdexcept>

#include "core/generate/answer_text.hpp"
#include "roles/model_source.hpp"

namespace troupe {

Rescorer::Rescorer(const Topology& topology, Algorithm algorithm, std::optional<RuleSet> rules)
    : topology_(topology),
      algorithm_(std::move(algorithm)),
      rules_(std::move(rules)),
      tokenizer_(load_tokenizer(*topology.model)),
      eos_(load_config(*topology.model).eos_tokens),
      prompts_(read_tokenized_prompts(*topology.prompts.file, tokenizer_, topology.prompts)),
      order_(topology.run.seed, prompts_.size()) {}

GroupRewards Rescorer::rewards_of(const Experience& batch) const {
  const TextDecoder decode = [this](std::span<const int32_t> ids) { return tokenizer_.decode(ids, true); };
  const Sampling& sampling = topology_.sampling;
  const auto tokens = batch.tokens.as<int32_t>();
  const auto prompt_lengths = batch.prompt_lengths.as<int32_t>();
  const auto lengths = batch.response_lengths.as<int32_t>();
  GroupRewards out;
  std::size_t at = 0;
  for (std::size_t i = 0; i < lengths.size(); ++i) {
    const auto prompt_length = static_cast<std::size_t>(prompt_lengths[i]),
               length = static_cast<std::size_t>(lengths[i]);
    const auto prompt = tokens.subspan(at, prompt_length), answer = tokens.subspan(at + prompt_length, length);
    at += prompt_length + length;
    const TokenizedPrompt& asked = prompts_[order_.prompt_of(batch.draws[i])];
    if (!std::ranges::equal(asked.ids, prompt))
      throw std::runtime_error(*topology_.prompts.file + ": draw " + std::to_string(batch.draws[i]) + " of step " +
                               std::to_string(batch.step) + " was another prompt; has the file changed since the run?");
    const bool ended = !answer.empty() && !sampling.ignore_eos && std::ranges::find(eos_, answer.back()) != eos_.end();
    const bool truncated = !ended && static_cast<int64_t>(length) >= sampling.max_new_tokens &&
                           !reaches_stop(decode, answer, sampling.stop);
    out.groups.push_back(batch.draws[i]);
    out.num_tokens.push_back(lengths[i]);
    out.truncated.push_back(truncated);
    if (!rules_) {
      out.rewards.push_back(batch.rewards.as<float>()[i]);
      continue;
    }
    const RuleScores scored = rules_->score({.prompt = asked.text,
                                             .answer = asked.answer,
                                             .response = final_text(decode, answer, sampling.stop),
                                             .num_tokens = lengths[i],
                                             .truncated = truncated,
                                             .max_new_tokens = sampling.max_new_tokens});
    out.rewards.push_back(scored.total);
    for (const auto& [rule, value] : scored.parts) out.parts[rule].push_back(value);
  }
  return out;
}

Experience Rescorer::operator()(const Experience& batch) const {
  const GroupRewards rewards = rewards_of(batch);
  const GroupAdvantages made = algorithm_.advantages(rewards);
  const auto lengths = batch.response_lengths.as<int32_t>();
  std::vector<uint8_t> mask;
  for (std::size_t i = 0; i < lengths.size(); ++i)
    mask.insert(mask.end(), static_cast<std::size_t>(lengths[i]), made.count_tokens[i]);
  Experience out = batch;
  out.rewards = Attachment::of(std::vector<float>(rewards.rewards.begin(), rewards.rewards.end()));
  out.advantages = Attachment::of(made.advantages);
  out.keep = Attachment::of(made.keep);
  out.loss_mask = Attachment::of(std::move(mask));
  return out;
}

}  // namespace troupe
