// White-box distillation: the student learns the labels and the teacher's whole distributions.
#include <ATen/ATen.h>

#include "core/train/distillation.hpp"
#include "roles/jobs/objective.hpp"

namespace troupe {
namespace {

class Distill : public Objective {
 public:
  Distill(const DistillJob& job, std::unique_ptr<TrainEngine> teacher)
      : options_{.alpha = job.alpha, .temperature = job.temperature}, teacher_(std::move(teacher)) {}

  std::vector<TrainingSample> read(const SampleMaker& maker, std::string_view line) const override {
    return {maker.conversation(line)};
  }

  Figures accumulate(TrainEngine& engine, const JobBatch& batch, double scale) override {
    const auto count = static_cast<double>(batch.scored_tokens());
    double labels = 0, divergence = 0, balance = 0;
    engine.accumulate_states(batch.packed, [&](const MicroBatch& part, const TokenStates& student) {
      const DistillationTerms terms = terms_of(engine, part.batch, student);
      labels += terms.cross_entropy.sum().item<double>() / count;
      divergence += terms.divergence.sum().item<double>() / count;
      at::Tensor loss = terms.loss.sum() / count;
      if (student.aux.defined()) {
        const at::Tensor aux = aux_share(student.aux, part, batch);
        balance += aux.item<double>();
        loss = loss + options_.alpha * aux;  // it belongs to the cross-entropy
      }
      return loss * scale;
    });
    return {{"loss", options_.alpha * (labels + balance) + (1 - options_.alpha) * divergence},
            {"ce_loss", labels},
            {"distill_loss", divergence},
            {"aux_loss", balance}};
  }

  Evaluated evaluate(TrainEngine& engine, const JobBatch& batch) override {
    const auto count = static_cast<double>(batch.scored_tokens());
    const DistillationTerms terms = terms_of(engine, batch.packed, engine.states(batch.packed));
    return {{{"eval_loss", terms.cross_entropy.sum().item<double>() / count},
             {"eval_divergence", terms.divergence.sum().item<double>() / count}},
            count};
  }

 private:
  DistillationTerms terms_of(TrainEngine& engine, const PackedBatch& batch, const TokenStates& student) {
    return distillation_terms(student.hidden, engine.model().head(), teacher_->states(batch).hidden,
                              teacher_->model().head().value, student.targets, options_);
  }

  DistillationOptions options_;
  std::unique_ptr<TrainEngine> teacher_;
};

}  // namespace

std::unique_ptr<Objective> distill_objective(const DistillJob& job, std::unique_ptr<TrainEngine> teacher) {
  return std::make_unique<Distill>(job, std::move(teacher));
}

}  // namespace troupe
