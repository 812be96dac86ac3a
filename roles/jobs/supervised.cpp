// Pretraining, supervised fine-tuning, reasoning: cross-entropy of the scored tokens.
#include <ATen/ATen.h>

#include <unordered_set>

#include "roles/jobs/objective.hpp"

namespace troupe {

at::Tensor aux_share(const at::Tensor& aux, const MicroBatch& part, const JobBatch& batch) {
  return aux * (static_cast<double>(part.sequences.size()) / static_cast<double>(batch.packed.sequences()));
}

namespace {

class Supervised : public Objective {
 public:
  using Read = TrainingSample (SampleMaker::*)(std::string_view) const;
  Supervised(Read read, std::vector<int32_t> heavy = {}, double weight = 1.0)
      : read_(read), heavy_(heavy.begin(), heavy.end()), weight_(weight) {}

  std::vector<TrainingSample> read(const SampleMaker& maker, std::string_view line) const override {
    return {(maker.*read_)(line)};
  }

  Figures accumulate(TrainEngine& engine, const JobBatch& batch, double scale) override {
    const auto count = static_cast<double>(batch.scored_tokens());
    double language = 0, balance = 0;
    engine.accumulate(batch.packed, 1.0, [&](const MicroBatch& part, const TokenOutputs& out) {
      at::Tensor loss = weighted_sum(part, out) / count;
      language += loss.item<double>();
      if (out.aux.defined()) {
        const at::Tensor aux = aux_share(out.aux, part, batch);
        balance += aux.item<double>();
        loss = loss + aux;
      }
      return loss * scale;
    });
    return {{"loss", language + balance}, {"logits_loss", language}, {"aux_loss", balance}};
  }

  Evaluated evaluate(TrainEngine& engine, const JobBatch& batch) override {
    const auto count = static_cast<double>(batch.scored_tokens());
    return {{{"eval_loss", -engine.logprobs(batch.packed, 1.0).logprobs.sum().item<double>() / count}}, count};
  }

 private:
  // Of one part, of -log p.
  at::Tensor weighted_sum(const MicroBatch& part, const TokenOutputs& out) const {
    if (heavy_.empty()) return -out.logprobs.sum();
    std::vector<float> weights;
    const int64_t* token = part.batch.tokens.const_data_ptr<int64_t>();
    std::size_t answer = 0;
    for (std::size_t i = 0; i < part.batch.prompt_lengths.size(); ++i) {
      token += part.batch.prompt_lengths[i];
      for (int64_t t = 0; t < part.batch.response_lengths[i]; ++t, ++token, ++answer)
        if (part.batch.scored.empty() || part.batch.scored[answer])
          weights.push_back(heavy_.contains(static_cast<int32_t>(*token)) ? static_cast<float>(weight_) : 1.0F);
    }
    return -(out.logprobs * at::tensor(weights).to(out.logprobs.device())).sum();
  }

  Read read_;
  std::unordered_set<int32_t> heavy_;
  double weight_;
};

}  // namespace

std::unique_ptr<Objective> pretrain_objective() {
  return std::make_unique<Supervised>(&SampleMaker::pretrain);
}
std::unique_ptr<Objective> conversation_objective() {
  return std::make_unique<Supervised>(&SampleMaker::conversation);
}
std::unique_ptr<Objective> reason_objective(std::vector<int32_t> tag_tokens, double tag_weight) {
  return std::make_unique<Supervised>(&SampleMaker::conversation, std::move(tag_tokens), tag_weight);
}

}  // namespace troupe
