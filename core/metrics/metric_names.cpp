#include "core/metrics/metric_names.hpp"

namespace troupe {
namespace {

constexpr MetricName kNames[] = {
    {"step", "", "optimizer step, 1, 2, 3 ..."},
    {"time_s", "s", "seconds of training up to the end of the step, over all starts of the run"},
    {"reward_mean", "", "mean reward of the step's answers"},
    {"reward_std", "", "standard deviation of the rewards over the step"},
    {"reward_min", "", "lowest reward"},
    {"reward_max", "", "highest reward"},
    {"reward/", "", "mean of one rule's own values, before its weight (one metric a rule)"},
    {"groups_without_signal", "", "share of prompts whose answers all got the same reward"},
    {"accuracy", "", "share of held-out prompts answered right, in steps with an evaluation"},
    {"kl", "nats", "mean per token of the KL estimate between policy and reference"},
    {"entropy", "nats", "mean per token of the policy's entropy"},
    {"loss", "", "the algorithm's loss, summed over the optimizer steps of the update"},
    {"policy_loss", "", "the policy's part of the loss"},
    {"kl_loss", "", "the part of the KL to the reference"},
    {"entropy_loss", "", "the entropy bonus's part"},
    {"grad_norm", "", "global norm of the gradient before clipping, of the last optimizer step"},
    {"lr", "", "learning rate, of the last optimizer step"},
    {"clip_fraction", "", "share of tokens whose ratio was clipped"},
    {"clip_fraction_low", "", "share of tokens clipped at the lower bound"},
    {"clip_fraction_high", "", "share of tokens clipped at the upper bound"},
    {"ratio_mean", "", "mean importance ratio, policy trained over policy before the update"},
    {"ratio_max", "", "largest of these ratios"},
    {"policy_kl", "nats", "mean per token of the KL between those two policies, k3 estimate"},
    {"off_policy_rejected_fraction", "", "share of sequences that off_policy_threshold drops"},
    {"response_length_mean", "tokens", "mean length of an answer"},
    {"response_length_max", "tokens", "longest answer"},
    {"truncated_fraction", "", "share of answers that ran into max_new_tokens"},
    {"num_sequences", "", "sequences trained on, once an epoch of the update"},
    {"num_tokens", "tokens", "answer tokens trained on, once an epoch of the update"},
    {"tokens_per_s_generate", "tokens/s", "answer tokens generated per second of the generate phase"},
    {"tokens_per_s_train", "tokens/s", "prompt and answer tokens trained on per second of the update phase"},
    {"seconds_", "s", "wall time of one phase of the step: generate, score, reward, journal, update, publish, ..."},
    {"staleness", "versions", "mean age of the sampled tokens: versions between sampling and update"},
    {"staleness_", "", "share of the sampled tokens of one age in versions: staleness_0, staleness_1, ..."},
    {"behaviour_ratio_mean", "", "mean ratio of the learner's probability before the update to the sampling one"},
    {"behaviour_ratio_std", "", "standard deviation of that ratio over the tokens"},
    {"behaviour_ratio_max", "", "largest of these ratios"},
    {"behaviour_kl", "nats", "mean per token of the KL between sampling policy and learner, k3 estimate"},
    {"behaviour_kl_k1", "nats", "the same, k1 estimate"},
    {"behaviour_logprob_difference", "nats",
     "mean absolute difference of generation's and learner's log-probabilities"},
    {"behaviour_logprob_difference_max", "nats", "largest of these differences"},
    {"importance_weight_mean", "", "mean weight of the correction for that difference"},
    {"importance_rejected_fraction", "", "share of tokens that the correction drops"},
    {"weights_version", "", "policy version after the step"},
    {"weights_digest", "", "first 52 bits of the digest of the weights published after the step"},
    {"learner_groups", "", "groups that the learners have formed since the conductor was started"},
    {"learner_divergences", "", "of these, those in which survivors stood one step apart"},
    {"learner_disagreements", "", "how often learners at one step had different weights"},
    {"restarts", "", "restarts of roles since the run began"},
    {"epoch", "", "epochs done, with the fraction of the one in work"},
    {"logits_loss", "", "cross-entropy"},
    {"aux_loss", "", "experts' load-balancing loss"},
    {"dpo_loss", "", "loss of the preferences"},
    {"ce_loss", "", "cross-entropy with the labels"},
    {"distill_loss", "", "divergence from the teacher"},
    {"margin", "", "mean preference for the chosen answer"},
};

}  // namespace

std::span<const MetricName> metric_names() {
  return kNames;
}

const MetricName* find_metric(std::string_view name) {
  for (const MetricName& known : kNames) {
    const bool family = known.name.ends_with('/') || known.name.ends_with('_');
    if (family ? name.starts_with(known.name) && name.size() > known.name.size() : name == known.name) return &known;
  }
  return nullptr;
}

}  // namespace troupe
