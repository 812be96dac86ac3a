// Direct preference optimisation and reward-model training: two sequences a sample, the chosen one first.
#include "core/algorithms/preference.hpp"

#include <ATen/ATen.h>

#include "roles/jobs/objective.hpp"

namespace troupe {
namespace {

std::vector<TrainingSample> read_pair(const SampleMaker& maker, std::string_view line) {
  PreferencePair pair = maker.preference(line);
  std::vector<TrainingSample> both;
  both.push_back(std::move(pair.chosen));
  both.push_back(std::move(pair.rejected));
  return both;
}

// The counts of a part's sequences.
std::vector<int64_t> counts_of(const MicroBatch& part, const JobBatch& batch) {
  std::vector<int64_t> counts;
  for (const int64_t i : part.sequences) counts.push_back(batch.scored[static_cast<std::size_t>(i)]);
  return counts;
}

double share_positive(const at::Tensor& margins) {
  return margins.gt(0).to(at::kDouble).mean().item<double>();
}

class Dpo : public Objective {
 public:
  Dpo(const DpoJob& job, std::unique_ptr<TrainEngine> reference, bool balances)
      : job_(job), reference_(std::move(reference)), balances_(balances) {}

  std::vector<TrainingSample> read(const SampleMaker& maker, std::string_view line) const override {
    return read_pair(maker, line);
  }

  Figures accumulate(TrainEngine& engine, const JobBatch& batch, double scale) override {
    const auto pairs = static_cast<double>(batch.samples);
    const at::Tensor reference = scores(reference_->logprobs(batch.packed, 1.0).logprobs, batch.scored);
    double preference = 0, balance = 0;
    std::vector<at::Tensor> margins;
    engine.accumulate(batch.packed, 1.0, [&](const MicroBatch& part, const TokenOutputs& out) {
      const at::Tensor rows = at::arange(part.sequences.front() / 2, part.sequences.back() / 2 + 1, at::kLong);
      const PairLosses losses = dpo_loss(scores(out.logprobs, counts_of(part, batch)), reference.index_select(0, rows),
                                         job_.beta, job_.label_smoothing);
      at::Tensor loss = losses.loss.sum() / pairs;
      margins.push_back(losses.margin);
      preference += loss.item<double>();
      if (balances_ && out.aux.defined()) {
        const at::Tensor aux = aux_share(out.aux, part, batch);
        balance += aux.item<double>();
        loss = loss + aux;
      }
      return loss * scale;
    });
    const at::Tensor margin = at::cat(margins);
    return {{"loss", preference + balance},
            {"dpo_loss", preference},
            {"aux_loss", balance},
            {"margin", margin.mean().item<double>()},
            {"accuracy", share_positive(margin)}};
  }

  Evaluated evaluate(TrainEngine& engine, const JobBatch& batch) override {
    const PairLosses losses = dpo_loss(scores(engine.logprobs(batch.packed, 1.0).logprobs, batch.scored),
                                       scores(reference_->logprobs(batch.packed, 1.0).logprobs, batch.scored),
                                       job_.beta, job_.label_smoothing);
    return {{{"eval_loss", losses.loss.mean().item<double>()},
             {"eval_margin", losses.margin.mean().item<double>()},
             {"eval_accuracy", share_positive(losses.margin)}},
            static_cast<double>(batch.samples)};
  }

 private:
  // [P, 2] of scored tokens' log-probabilities.
  at::Tensor scores(const at::Tensor& logprobs, const std::vector<int64_t>& counts) const {
    return sequence_sums(logprobs, counts, job_.dpo_logprob == "mean").view({-1, 2});
  }

  DpoJob job_;
  std::unique_ptr<TrainEngine> reference_;
  bool balances_;
};

class RewardModel : public Objective {
 public:
  explicit RewardModel(const RewardJob& job) : job_(job) {}

  std::vector<TrainingSample> read(const SampleMaker& maker, std::string_view line) const override {
    return read_pair(maker, line);
  }

  Figures accumulate(TrainEngine& engine, const JobBatch& batch, double scale) override {
    const auto pairs = static_cast<double>(batch.samples);
    double total = 0;
    std::vector<at::Tensor> margins;
    engine.accumulate_scores(batch.packed, [&](const MicroBatch&, const at::Tensor& scores) {
      const PairLosses losses = reward_pair_loss(scores.view({-1, 2}), job_.least_margin);
      const at::Tensor loss = losses.loss.sum() / pairs;
      total += loss.item<double>();
      margins.push_back(losses.margin);
      return loss * scale;
    });
    const at::Tensor margin = at::cat(margins);
    return {{"loss", total}, {"margin", margin.mean().item<double>()}, {"accuracy", share_positive(margin)}};
  }

  Evaluated evaluate(TrainEngine& engine, const JobBatch& batch) override {
    const PairLosses losses = reward_pair_loss(engine.scores(batch.packed).view({-1, 2}), job_.least_margin);
    return {{{"eval_loss", losses.loss.mean().item<double>()},
             {"eval_margin", losses.margin.mean().item<double>()},
             {"eval_accuracy", share_positive(losses.margin)}},
            static_cast<double>(batch.samples)};
  }

 private:
  RewardJob job_;
};

}  // namespace

std::unique_ptr<Objective> dpo_objective(const DpoJob& job, std::unique_ptr<TrainEngine> reference, bool balances) {
  return std::make_unique<Dpo>(job, std::move(reference), balances);
}
std::unique_ptr<Objective> reward_objective(const RewardJob& job) {
  return std::make_unique<RewardModel>(job);
}

}  // namespace troupe
