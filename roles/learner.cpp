#include "roles/learner.hpp"

#include <ATen/ops/arange.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <cstdio>
#include <limits>
#include <numeric>

#include "actors/fault_hooks.hpp"
#include "core/config.hpp"
#include "core/io/checkpoint.hpp"
#include "roles/compute.hpp"
#include "roles/model_source.hpp"
#include "roles/run_disk.hpp"

namespace troupe {
namespace {

TrainConfig train_config(const Learner::Config& c, const NodeSection& node) {
  TrainConfig train{.compute = scalar_type(c.dtype),
                    .gradient_checkpointing = c.gradient_checkpointing,
                    .adamw = {.learning_rate = c.lr,
                              .beta1 = c.beta1,
                              .beta2 = c.beta2,
                              .eps = c.eps,
                              .weight_decay = c.weight_decay},
                    .schedule = {.kind = c.schedule, .warmup_steps = c.warmup_steps, .total_steps = c.schedule_steps},
                    .micro_batch_tokens = c.micro_batch_tokens,
                    .max_grad_norm = c.max_grad_norm,
                    .device = device_of(node)};
  if (c.lora.rank > 0)
    train.lora = LoraConfig{.rank = c.lora.rank, .alpha = c.lora.alpha, .target_modules = c.lora.target_modules};
  return train;
}

at::Tensor indices_of(const std::vector<bool>& marks) {
  std::vector<int64_t> out;
  for (std::size_t i = 0; i < marks.size(); ++i)
    if (marks[i]) out.push_back(static_cast<int64_t>(i));
  return at::tensor(out, at::kLong);
}

// The lowest bit of the middle element.
void flip_one_bit(at::Tensor weights) {
  at::Tensor bits = weights.view({-1}).view(at::kInt);
  bits[bits.numel() / 2].bitwise_xor_(1);
}

// The rows of `x` that belong to a part; an absent tensor stays absent.
at::Tensor rows_of(const at::Tensor& x, const at::Tensor& index) {
  return x.defined() ? x.index_select(0, index) : at::Tensor();
}

}  // namespace

// Answer-token tensors in the batch's order; reference, old: undefined where the algorithm does without.
struct Learner::Batch {
  PackedBatch packed;
  at::Tensor mask, behaviour, reference, old;  // [N]
  at::Tensor advantages;                       // [B]

  // The loss's view of one part: `tokens` int64 [n] of the N, `rows` int64 [b] of the B.
  LossBatch part(const at::Tensor& tokens, const std::vector<int64_t>& rows) const {
    const at::Tensor index = at::tensor(rows, at::kLong);
    std::vector<int64_t> lengths;
    for (const int64_t row : rows) lengths.push_back(packed.response_lengths[static_cast<std::size_t>(row)]);
    return {.old_logprobs = rows_of(old, tokens),
            .behaviour_logprobs = rows_of(behaviour, tokens),
            .reference_logprobs = rows_of(reference, tokens),
            .mask = rows_of(mask, tokens),
            .lengths = at::tensor(lengths, at::kLong),
            .advantages = rows_of(advantages, index)};
  }

  // Only the sequences marked 1: [B'].
  Batch kept(const Attachment& keep) const {
    const auto marks = keep.as<uint8_t>();
    std::vector<bool> tokens, answers;  // of all tokens, of answer tokens
    std::vector<int64_t> rows;
    PackedBatch out;
    for (std::size_t i = 0; i < marks.size(); ++i) {
      const int64_t prompt = packed.prompt_lengths[i], response = packed.response_lengths[i];
      tokens.insert(tokens.end(), static_cast<std::size_t>(prompt + response), marks[i]);
      answers.insert(answers.end(), static_cast<std::size_t>(response), marks[i]);
      if (!marks[i]) continue;
      rows.push_back(static_cast<int64_t>(i));
      out.prompt_lengths.push_back(prompt);
      out.response_lengths.push_back(response);
    }
    out.tokens = packed.tokens.index_select(0, indices_of(tokens));
    const at::Tensor index = indices_of(answers);
    return {.packed = std::move(out),
            .mask = rows_of(mask, index),
            .behaviour = rows_of(behaviour, index),
            .reference = rows_of(reference, index),
            .old = rows_of(old, index),
            .advantages = advantages.index_select(0, at::tensor(rows, at::kLong))};
  }

  // All of it.
  LossBatch whole() const {
    std::vector<int64_t> rows(static_cast<std::size_t>(packed.sequences()));
    std::iota(rows.begin(), rows.end(), 0);
    return part(at::arange(packed.response_tokens(), at::kLong), rows);
  }

  // What this learner computes of it.
  Batch share(const LearnerGroup& group) const {
    const std::vector<int64_t> rows = share_bounds(packed, group.size());
    const auto rank = static_cast<std::size_t>(group.rank());
    return slice(rows[rank], rows[rank + 1]);
  }

  // Sequences [begin, end).
  Batch slice(int64_t begin, int64_t end) const {
    const auto sum = [](const std::vector<int64_t>& v, int64_t from, int64_t to) {
      return std::accumulate(v.begin() + from, v.begin() + to, int64_t{0});
    };
    const auto& prompts = packed.prompt_lengths;
    const auto& responses = packed.response_lengths;
    const int64_t token = sum(prompts, 0, begin) + sum(responses, 0, begin);
    const int64_t tokens = sum(prompts, begin, end) + sum(responses, begin, end);
    const int64_t first = sum(responses, 0, begin), count = sum(responses, begin, end);
    const auto cut = [&](const at::Tensor& x) { return x.defined() ? x.narrow(0, first, count) : x; };
    return {.packed = {packed.tokens.narrow(0, token, tokens),
                       {prompts.begin() + begin, prompts.begin() + end},
                       {responses.begin() + begin, responses.begin() + end}},
            .mask = cut(mask),
            .behaviour = cut(behaviour),
            .reference = cut(reference),
            .old = cut(old),
            .advantages = advantages.narrow(0, begin, end - begin)};
  }
};

Learner::Learner(const RoleSetting& setting, Context& context)
    : config_(from_json<Config>(setting.config(), setting.where())),
      setting_(setting),
      context_(context),
      algorithm_(make_algorithm(setting.topology.algorithm, JsonPath("topology.json", "algorithm"))),
      progress_(setting.instance) {
  at::set_num_threads(setting.threads);
  if (setting.node().count > 1) group_.emplace(setting, context);
  load();
  if (!setting.one_process) {
    std::string name = setting.instance;
    std::replace(name.begin(), name.end(), '/', '-');
    regions_ = std::make_unique<RegionServer>(setting.socket_folder + "/" + name + ".regions");
  }
}

void Learner::load() {
  const std::string& path = setting_.model_or(config_.model);
  context_.beat("load", path);
  engine_.reset();
  std::optional<LoadedModel> model = load_model(path, at::kFloat);
  model_config_ = model->config;
  TrainConfig train = train_config(config_, setting_.node());
  if (group_ && config_.zero == 1) train.shards = &*group_;
  const bool publishes = !group_ || group_->leads();
  if (publishes && !train.lora && train.compute == at::kBFloat16) train.compute_memory = compute_memory();
  engine_.emplace(model->config, model->weights, train);
  model.reset();
  progress_.begin_at(0, 0, {});
  withdraw_below(std::numeric_limits<uint64_t>::max());
  whole_ = true;
  load_newest(setting_.run_folder / "checkpoints");
  release_load_memory();
}

void Learner::load_newest(const std::filesystem::path& folder) {
  const auto checkpoint = [&] {
    try {
      return load_newest_checkpoint(real_disk(), folder);
    } catch (const std::exception& error) {
      throw std::runtime_error(std::string(error.what()) + "\n  without that folder the run goes on from the base " +
                               "model and the journal, which holds every step");
    }
  }();
  if (!checkpoint) return;
  for (const std::string& damage : checkpoint->rejected)
    std::fprintf(stderr, "%s: damaged checkpoint passed over: %s\n", setting_.instance.c_str(), damage.c_str());
  engine_->load_state(checkpoint->parts.at("learner"));
  const CheckpointMeta& meta = checkpoint->meta;
  const Json metrics = parse_json(meta.extra, (checkpoint->folder / "manifest.json").string());
  const Updated answer{.step = meta.step, .metrics = metrics.get<std::map<std::string, double>>()};
  progress_.begin_at(meta.step, meta.journal_offset, {{meta.step, answer}});
}

Learner::Batch Learner::read_batch(const Experience& e) const {
  Batch batch{.packed = packed_batch(e.tokens, e.prompt_lengths, e.response_lengths)};
  check_batch(batch.packed, model_config_.vocab_size);
  const int64_t num_tokens = batch.packed.response_tokens();
  const auto per_token = [&](const Attachment& a, const char* name) {
    if (a.numel() != num_tokens)
      throw std::invalid_argument("update: " + std::string(name) + " has " + std::to_string(a.numel()) +
                                  " values, expected one for each of " + std::to_string(num_tokens) + " answer tokens");
    return as_tensor(a);
  };
  batch.mask = per_token(e.loss_mask, "loss_mask");
  batch.behaviour = per_token(e.behaviour_logprobs, "behaviour_logprobs");
  if (e.reference_logprobs.numel() > 0) batch.reference = per_token(e.reference_logprobs, "reference_logprobs");
  if (algorithm_.needs_reference && num_tokens > 0 && !batch.reference.defined())
    throw std::invalid_argument("update: " + algorithm_.name + " needs reference_logprobs, the batch has none");
  batch.advantages = as_tensor(e.advantages);
  if (batch.advantages.numel() != batch.packed.sequences())
    throw std::invalid_argument("update: advantages of " + std::to_string(batch.advantages.numel()) +
                                " sequences, expected " + std::to_string(batch.packed.sequences()));
  if (e.keep.numel() != batch.packed.sequences())
    throw std::invalid_argument("update: keep of " + std::to_string(e.keep.numel()) + " sequences, expected " +
                                std::to_string(batch.packed.sequences()));
  const auto keep = e.keep.as<uint8_t>();
  if (std::find(keep.begin(), keep.end(), 0) != keep.end()) return batch.kept(e.keep);
  return batch;
}

Updated Learner::handle(const Update& m) {
  need_group();
  if (const Updated* answer = progress_.earlier_answer(m)) return *answer;
  return group_ ? update_together(m) : apply_update(m);
}

Updated Learner::apply_update(const Update& m) {
  context_.beat("update", "update step " + std::to_string(m.batch.step));
  fault_point("update");
  Batch batch = read_batch(m.batch);
  const Instant began = std::chrono::steady_clock::now();
  if (config_.epochs * config_.mini_batches > 1)
    batch.old = outputs_of(batch, m.temperature).logprobs;  // before the first of several steps
  Updated out{.step = progress_.step() + 1};
  LossMetrics metrics;
  const int64_t rows = batch.packed.sequences();
  try {
    for (int64_t epoch = 0; epoch < config_.epochs; ++epoch)
      for (int64_t i = 0; i < config_.mini_batches; ++i)
        train(batch.slice(rows * i / config_.mini_batches, rows * (i + 1) / config_.mini_batches), m.temperature,
              metrics, out);
  } catch (const std::exception& error) {
    if (group_) throw;  // which goes back to where all are whole
    throw Unusable("update step " + std::to_string(out.step) + " broke off: " + error.what());
  }
  for (const auto& [name, value] : metrics.values()) out.metrics[name] = value;
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - began;
  out.metrics["tokens_per_s_train"] = static_cast<double>(batch.packed.tokens.numel()) / seconds.count();
  if (group_) {
    out.metrics["learner_groups"] =
        static_cast<double>(group_->generation() & ((uint64_t{1} << LearnerGroup::kCountBits) - 1));
    out.metrics["learner_divergences"] = static_cast<double>(divergences_);
    out.metrics["learner_disagreements"] = static_cast<double>(disagreements_);
  }
  progress_.applied(out);
  whole_ = true;
  fault_point("updated", [&] { flip_one_bit(engine_->weights().begin()->second); });
  if (!group_) return out;
  const Instant compared = context_.now();
  need_agreement();
  out.metrics["seconds_agree"] = context_.seconds_since(compared);
  return out;
}

// One optimizer step.
void Learner::train(const Batch& mini_batch, double temperature, LossMetrics& metrics, Updated& out) {
  if (mini_batch.packed.response_tokens() == 0) return;  // no group had a signal
  LossBatch whole = mini_batch.whole();
  if (algorithm_.scale_needs_entropy) whole.entropy = outputs_of(mini_batch, temperature).entropy;
  const LossScale scale = algorithm_.scale(whole);
  const Batch share = group_ ? mini_batch.share(*group_) : mini_batch;
  LossMetrics own;
  int64_t part_number = 0;
  if (share.packed.response_tokens() > 0)
    engine_->accumulate(share.packed, temperature, [&](const MicroBatch& part, const TokenOutputs& outputs) {
      context_.beat("update",
                    "step " + std::to_string(progress_.step() + 1) + ", micro-batch " + std::to_string(++part_number));
      fault_point("microbatch");
      LossBatch loss_batch = share.part(part.tokens_of, part.sequences);
      loss_batch.logprobs = outputs.logprobs;
      loss_batch.entropy = algorithm_.entropy_in_loss ? outputs.entropy : outputs.entropy.detach();
      const LossResult result = algorithm_.loss(loss_batch, scale);
      own.add(result.metrics);
      return result.loss;
    });
  if (group_) {
    for (const std::string& text : group_->exchange(own.text())) metrics.add_text(text);
    at::Tensor gradients = engine_->gradients();
    group_->sum(gradients);
  } else {
    metrics.add(own);
  }
  whole_ = config_.epochs * config_.mini_batches == 1 && config_.zero == 0;
  const StepStats stats = engine_->apply();
  out.metrics["lr"] = stats.learning_rate;
  out.metrics["grad_norm"] = stats.gradient_norm;
}

// Of the whole batch; each learner of a group computes its share.
TokenOutputs Learner::outputs_of(const Batch& batch, double temperature) {
  if (!group_) return engine_->logprobs(batch.packed, temperature);
  const std::vector<int64_t> rows = share_bounds(batch.packed, group_->size());
  std::vector<int64_t> tokens;  // bounds of the shares' answer tokens
  for (const int64_t row : rows) {
    const auto& lengths = batch.packed.response_lengths;
    tokens.push_back(std::accumulate(lengths.begin(), lengths.begin() + row, int64_t{0}));
  }
  const auto rank = static_cast<std::size_t>(group_->rank());
  const Batch share = batch.slice(rows[rank], rows[rank + 1]);
  TokenOutputs own, all{at::zeros({tokens.back()}), at::zeros({tokens.back()})};
  if (share.packed.response_tokens() > 0) own = engine_->logprobs(share.packed, temperature);
  for (auto [mine, whole] : {std::pair(own.logprobs, all.logprobs), {own.entropy, all.entropy}}) {
    if (mine.defined()) whole.slice(0, tokens[rank], tokens[rank + 1]).copy_(mine);
    group_->gather(whole, tokens);
  }
  return all;
}

AnswerLogProbs Learner::handle(const LogProbs& m) {
  need_group();
  const PackedBatch batch = packed_batch(m.tokens, m.prompt_lengths, m.response_lengths);
  return {.logprobs = as_attachment(engine_->logprobs(batch, m.temperature).logprobs, DType::kF32),
          .policy_version = progress_.step()};
}

LearnerState Learner::handle(const AskState&) {
  need_group();
  return progress_.state();
}

Checkpointed Learner::handle(const Checkpoint& m) {
  need_group();
  progress_.need_step(m.step, "checkpoint step " + std::to_string(m.step));
  context_.beat("checkpoint", "step " + std::to_string(m.step));
  const auto answer = progress_.answers().find(m.step);  // none of the base model
  const Json metrics = answer == progress_.answers().end() ? Json::object() : Json(answer->second.metrics);
  const CheckpointMeta meta{.run = setting_.run_folder.filename().string(),
                            .step = m.step,
                            .journal_offset = m.journal_offset,
                            .extra = metrics.dump()};
  const auto folder = write_checkpoint(checkpoint_disk(), m.folder, meta, {{"learner", whole_state()}},
                                       static_cast<int>(config_.keep_checkpoints));
  progress_.checkpointed(m.journal_offset);
  if (!m.export_folder.empty()) export_policy(m.export_folder);
  return {.folder = folder.string(), .step = m.step};
}

// The whole model, adapters merged in, as transformers and vLLM open it.
void Learner::export_policy(const std::filesystem::path& folder) const {
  context_.beat("export", folder.string());
  const StateDict weights =
      config_.lora.rank > 0 ? const_cast<TrainEngine&>(*engine_).model().merged() : engine_->weights();
  patiently([&] {
    save_model(real_disk(), folder, model_config_, weights, at::kFloat,
               tokenizer_writer(setting_.model_or(config_.model)));
  });
}

}  // namespace troupe
