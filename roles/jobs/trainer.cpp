#include "roles/jobs/trainer.hpp"

#include <chrono>
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <numeric>

#include "core/data/sample_order.hpp"
#include "core/metrics/run_metrics.hpp"
#include "core/metrics/summary.hpp"

namespace troupe {
namespace {

double now_s() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

std::string text_of(double value) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.5g", value);
  return text;
}

}  // namespace

Trainer::Trainer(const JobParts& parts, std::filesystem::path run_folder)
    : parts_(parts), run_folder_(std::move(run_folder)) {
  place_.world_size = parts_.group.size();
}

Trainer::~Trainer() = default;

// Every process draws as many samples: epoch_order() fills up the last round.
int64_t Trainer::batches_per_epoch() const {
  const int64_t samples = (parts_.lines.size() + parts_.group.size() - 1) / parts_.group.size();
  return BatchSource::num_batches(samples, parts_.config.batch_size);
}

BatchSettings Trainer::batch_settings() const {
  return {.batch_size = parts_.config.batch_size,
          .workers = parts_.config.num_workers,
          .skip_malformed = parts_.config.on_malformed == "skip",
          .pad_to = parts_.config.pack == 1 ? 0 : parts_.config.max_seq_len,
          .pad_token = parts_.pad_token};
}

int64_t Trainer::batches_done() const {
  return place_.epoch * batches_per_epoch() + place_.step;
}

void Trainer::tell(const std::string& line) const {
  if (parts_.group.rank() == 0 && parts_.hooks.on_event) parts_.hooks.on_event(line);
}

// Another rank's words are in its log.
void Trainer::tell_malformed(const std::string& line) const {
  if (parts_.group.rank() == 0) return tell("left out: " + line);
  std::fprintf(stderr, "left out: %s\n", line.c_str());
}

void Trainer::show(const std::string& detail) const {
  if (parts_.group.rank() != 0 || !parts_.hooks.on_status) return;
  parts_.hooks.on_status({.run = parts_.output.name(),
                          .state = "running",
                          .nodes = {{.node = "trainer/0",
                                     .incarnation = 1,
                                     .phase = "train",
                                     .progress = static_cast<uint64_t>(batches_done()),
                                     .detail = detail}}});
}

// On another number of processes a batch of all of them holds another number of samples.
void Trainer::resume() {
  const std::optional<JobPlace> found = parts_.output.load_checkpoint(parts_.engine);
  const std::vector<int64_t> steps = parts_.group.gather(found ? parts_.engine.step() : -1);
  for (const int64_t step : steps)
    if (step != steps[0])
      throw std::runtime_error("--from_resume: the processes found different checkpoints of " + parts_.output.name() +
                               " in " + parts_.config.checkpoint_dir + ", expected one folder that all of them see");
  if (!found) return tell("no checkpoint of " + parts_.output.name() + ": starting anew");
  place_ = *found;
  if (place_.world_size != parts_.group.size()) place_.step = place_.step * place_.world_size / parts_.group.size();
  place_.world_size = parts_.group.size();
  tell("going on after epoch " + std::to_string(place_.epoch + 1) + ", step " + std::to_string(place_.step));
}

void Trainer::run() {
  const JobConfig& config = parts_.config;
  const int64_t iters = batches_per_epoch();
  if (config.from_resume == 1) resume();
  parts_.group.barrier();  // every rank has opened what it needs
  if (parts_.group.rank() == 0) {
    if (parts_.hooks.on_training) parts_.hooks.on_training(batches_done());
    if (config.from_resume == 0) parts_.output.set_aside_checkpoints();
    metrics_ = std::make_unique<RunMetrics>(run_folder_, static_cast<uint64_t>(batches_done()));
    const int64_t all =
        config.max_steps > 0 ? std::min(config.max_steps, config.epochs * iters) : config.epochs * iters;
    merge_summary(run_folder_, {{"planned_steps", all}, {"samples", parts_.lines.size()}});
  }
  if (parts_.held_out && place_.epoch == 0 && place_.step == 0) measure("before");
  logged_at_s_ = now_s();
  Ended ended = Ended::kEpoch;
  while (ended == Ended::kEpoch && place_.epoch < config.epochs) {
    ended = train_epoch();
    if (ended != Ended::kEpoch) break;
    ++place_.epoch;
    place_.step = 0;
  }
  save();
  if (parts_.held_out && ended != Ended::kStopped) measure("after");
  const double malformed = parts_.group.sum(static_cast<double>(malformed_));
  const double unscored = parts_.group.sum(static_cast<double>(unscored_));
  if (parts_.group.rank() == 0)
    merge_summary(run_folder_, {{"tokens", place_.tokens},
                                {"malformed_lines", static_cast<int64_t>(malformed)},
                                {"unscored_samples", static_cast<int64_t>(unscored)}});
  parts_.group.barrier();
}

Trainer::Ended Trainer::train_epoch() {
  const JobConfig& config = parts_.config;
  const int64_t iters = batches_per_epoch(), acc = config.accumulation_steps;
  BatchSource source(parts_.lines, parts_.maker, parts_.objective,
                     epoch_order(parts_.lines.size(), place_.epoch, parts_.group.rank(), parts_.group.size()),
                     batch_settings(), place_.step);
  const double scale = 1.0 / static_cast<double>(acc * parts_.group.size());
  while (auto read = source.next()) {
    const int64_t step = place_.step + 1, s = place_.epoch * iters + step;
    if (read->malformed > 0 && malformed_ == 0) tell_malformed(read->first_malformed);
    malformed_ += read->malformed;
    unscored_ += read->unscored;
    Figures figures;
    if (read->batch.samples > 0) {
      figures = parts_.objective.accumulate(parts_.engine, read->batch, scale);
      tokens_since_log_ += static_cast<double>(read->batch.packed.tokens.numel());
      place_.tokens += read->batch.scored_tokens() * parts_.group.size();
    }
    ++pending_;
    place_.step = step;
    const int64_t shift = parts_.compat.counts_from_two ? 1 : 0;
    const bool last = step == iters - shift, final = s == config.max_steps;
    if ((step + shift) % acc == 0 || final || (last && parts_.compat.flush_epoch)) update(s);
    show("epoch " + std::to_string(place_.epoch + 1) + " of " + std::to_string(config.epochs) + ", batch " +
         std::to_string(step) + " of " + std::to_string(iters) +
         (figures.contains("loss") ? ", loss " + text_of(figures.at("loss")) : ""));
    const bool job_ends = step == iters && place_.epoch + 1 == config.epochs;
    const bool logged = step % config.log_interval == 0 || last || final || job_ends;
    if (logged) log(step, iters, figures);
    const bool epoch_save = last && (place_.epoch + 1) % config.save_interval == 0;
    save_due_ |= parts_.saves_by_epoch ? epoch_save : step % config.save_interval == 0 || last;
    if (final) return Ended::kLimit;
    if (pending_ > 0) continue;          // a checkpoint holds no gradients: it waits for the optimizer step
    if (save_due_ && !job_ends) save();  // at its end run() saves
    save_due_ = false;
    if (parts_.group.sum(stop_asked(parts_.hooks) ? 1.0 : 0.0) > 0) {
      if (!logged) log(step, iters, figures);  // the last line tells how many batches were done
      return Ended::kStopped;
    }
  }
  return Ended::kEpoch;
}

void Trainer::update(int64_t s) {
  if (parts_.group.size() > 1) {
    at::Tensor gradients = parts_.engine.gradients();
    parts_.group.sum(gradients);
  }
  const int64_t total = parts_.config.epochs * batches_per_epoch();
  last_update_ = parts_.engine.apply(rate_factor(parts_.compat, s, total));
  pending_ = 0;
}

void Trainer::log(int64_t step, int64_t iters, const Figures& figures) {
  const double all_tokens = parts_.group.sum(tokens_since_log_), now = now_s();
  if (metrics_) {
    MetricValues values(figures.begin(), figures.end());
    values["lr"] = parts_.config.learning_rate *
                   rate_factor(parts_.compat, place_.epoch * iters + step, parts_.config.epochs * iters);
    values["grad_norm"] = last_update_.gradient_norm;
    values["epoch"] = static_cast<double>(place_.epoch) + static_cast<double>(step) / static_cast<double>(iters);
    values["tokens_per_s_train"] = all_tokens / (now - logged_at_s_ - saving_s_);
    if (saving_s_ > 0) values["seconds_checkpoint"] = saving_s_;
    metrics_->write(static_cast<uint64_t>(place_.epoch * iters + step), values);
  }
  tokens_since_log_ = saving_s_ = 0;
  logged_at_s_ = now;
}

void Trainer::save() {
  show("saving " + parts_.output.name());
  const double began = now_s();
  {
    const StateDict state = parts_.engine.state();  // of all ranks
    if (parts_.group.rank() != 0) return;
    parts_.output.save_checkpoint(state, static_cast<uint64_t>(parts_.engine.step()), place_);
  }
  parts_.output.save_weights(parts_.engine);
  saving_s_ += now_s() - began;
}

// The others wait for rank 0 batch by batch: none longer than the group's deadline.
void Trainer::measure(const char* when) {
  if (parts_.group.rank() != 0) {
    while (parts_.group.sum(0.0) > 0) {
    }
    return;
  }
  nlohmann::json figures = nlohmann::json::object();
  for (const auto& [name, value] : evaluate(when)) figures[name + "_" + when] = value;
  parts_.group.sum(0.0);
  merge_summary(run_folder_, figures);
}

// Means over the held-out samples; the malformed and the unscored are left out.
Figures Trainer::evaluate(const char* when) {
  show("measuring held-out samples");
  std::vector<int64_t> order(static_cast<std::size_t>(parts_.held_out->size()));
  std::iota(order.begin(), order.end(), 0);
  BatchSource source(*parts_.held_out, parts_.maker, parts_.objective, std::move(order), batch_settings());
  Figures sums;
  double weight = 0;
  while (auto read = source.next()) {
    if (read->batch.samples == 0) continue;
    const Evaluated part = parts_.objective.evaluate(parts_.engine, read->batch);
    for (const auto& [name, value] : part.figures) sums[name] += value * part.weight;
    weight += part.weight;
    parts_.group.sum(1.0);  // measure() waits for it
  }
  std::string line = std::string("held-out ") + when;
  for (auto& [name, value] : sums) {
    value /= weight;
    line += (name == sums.begin()->first ? ": " : ", ") + (name.starts_with("eval_") ? name.substr(5) : name) + " " +
            text_of(value);
  }
  tell(line);
  return sums;
}

}  // namespace troupe
