// The single-role jobs: their losses over 50 steps against torch's, and what must not change them.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <fstream>

#include "core/config.hpp"
#include "core/io/adapter_folder.hpp"
#include "core/io/checkpoint.hpp"
#include "core/io/model_folder.hpp"
#include "core/io/pth.hpp"
#include "core/io/safetensors.hpp"
#include "core/metrics/metrics_log.hpp"
#include "core/models/merge_adapter.hpp"
#include "roles/jobs/run_job.hpp"
#include "roles/model_source.hpp"
#include "roles/tiny_model.hpp"

namespace troupe {
namespace {

namespace fs = std::filesystem;

// One folder for all tests: the model is made once.
class Jobs : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    std::string name = "/tmp/troupe-jobs-XXXXXX";
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    home_ = name;
    make_tiny_model({.to = home_ / "tiny", .steps = 0, .hidden_size = 64, .num_layers = 2, .seed = 5}, {});
    oracle_ = parse_json_file(fs::path(TROUPE_SOURCE_DIR) / "tests/oracles/jobs/trajectories.json");
    for (const auto& [data, lines] : oracle_.at("data").items()) {
      std::ofstream out(home_ / (data + ".jsonl"));
      for (const Json& line : lines) out << line.get<std::string>() << '\n';
    }
    LoadedModel teacher = load_model(home_ / "tiny", at::kFloat);
    for (auto& [parameter, value] : teacher.weights)
      if (value.dim() == 2) value.mul_(1.5);
    save_model(real_disk(), home_ / "teacher", teacher.config, teacher.weights, at::kFloat,
               tokenizer_writer(home_ / "tiny"));
  }
  static void TearDownTestSuite() { fs::remove_all(home_); }

  // A job of the trajectory's settings, its outputs and figures in a folder of that name.
  template <class Job>
  static JobRequest job(const std::string& name, const std::string& data, Job kind = {}) {
    JobRequest request{Job::defaults(), kind};
    JobConfig& c = request.config;
    const Json& settings = oracle_.at("settings");
    c.save_dir = home_ / name / "out";
    c.checkpoint_dir = home_ / name / "checkpoints";
    c.run_folder = home_ / name / "run";
    c.data_path = home_ / (data + ".jsonl");
    c.from_weight = home_ / "tiny";
    c.epochs = 4;
    c.batch_size = settings.at("batch_size");
    c.learning_rate = settings.at("learning_rate");
    c.max_seq_len = settings.at("max_seq_len");
    c.max_steps = settings.at("steps");
    c.accumulation_steps = 1;
    c.log_interval = 1;
    c.save_interval = 1000;
    c.dtype = "float32";
    c.threads = 1;
    return request;
  }

  static std::vector<double> run(const JobRequest& request) {
    const fs::path folder = request.config.run_folder;
    fs::create_directories(folder / "tensorboard");
    run_job(request, {}, folder, {});
    std::vector<double> losses;
    for (const StepMetrics& step : read_metrics(folder / "metrics.jsonl")) losses.push_back(step.values.at("loss"));
    return losses;
  }

  static void expect_trajectory(const std::string& name, const JobRequest& request) {
    const std::vector<double> expected = oracle_.at("jobs").at(name).at("losses"), actual = run(request);
    ASSERT_EQ(actual.size(), expected.size());
    double worst = 0;
    for (std::size_t i = 0; i < actual.size(); ++i)
      worst = std::max(worst, std::abs(actual[i] - expected[i]) / std::abs(expected[i]));
    RecordProperty("worst_relative_difference", std::to_string(worst));
    EXPECT_LT(worst, 1e-4) << name;
    EXPECT_NEAR(actual[0] / expected[0], 1.0, 2e-6) << name;
  }

  static StateDict weights_of(const fs::path& out) {
    StateDict all;
    for (const auto& entry : fs::recursive_directory_iterator(out)) {
      if (entry.path().extension() != ".safetensors") continue;
      const SafetensorsFile file(entry.path());
      for (const auto& [name, header] : file.header().tensors) all[name] = file.read(name);
    }
    return all;
  }

  static void expect_same_bits(const fs::path& a, const fs::path& b) {
    const StateDict x = weights_of(a), y = weights_of(b);
    ASSERT_GT(x.size(), 5U);
    ASSERT_EQ(x.size(), y.size());
    for (const auto& [name, value] : x) EXPECT_TRUE(at::equal(value, y.at(name))) << name;
  }

  static inline fs::path home_;
  static inline Json oracle_;
};

TEST_F(Jobs, PretrainingGoesAsTorchGoes) {
  JobRequest request = job<PretrainJob>("pretrain", "text");
  request.config.accumulation_steps = 2;
  expect_trajectory("pretrain", request);
}
// 15 batches an epoch, windows of 4: one ends at the third batch, what is left at an epoch's end goes on in the next.
TEST_F(Jobs, EarlierVersionsGoAsTorchGoesLikeThem) {
  JobRequest pretrain = job<PretrainJob>("pretrain_ref2512", "text"), lora = job<LoraJob>("lora_fork2601", "chat");
  pretrain.config.compat = "ref2512";
  lora.config.compat = "fork2601";
  pretrain.config.accumulation_steps = lora.config.accumulation_steps = 4;
  pretrain.config.log_interval = lora.config.log_interval = 1;
  expect_trajectory("pretrain_ref2512", pretrain);
  expect_trajectory("lora_fork2601", lora);
}

TEST_F(Jobs, ExpertsAreBalancedInDpoButForEarlierVersions) {
  const auto first = [](const std::string& compat) {
    JobRequest request = job<DpoJob>("dpo_moe_" + compat, "pairs");
    JobConfig& c = request.config;
    c.compat = compat;
    c.from_weight = "none";
    c.tokenizer = home_ / "tiny";
    c.hidden_size = 64;
    c.num_hidden_layers = 2;
    c.use_moe = 1;
    c.max_steps = 1;
    run(request);
    return read_metrics(fs::path(c.run_folder) / "metrics.jsonl").at(0).values;
  };
  const auto now = first("canonical"), before = first("ref2512");
  EXPECT_GT(now.at("aux_loss"), 0);
  EXPECT_NEAR(now.at("loss"), now.at("dpo_loss") + now.at("aux_loss"), 1e-12);
  EXPECT_EQ(before.at("aux_loss"), 0);
  EXPECT_EQ(before.at("loss"), before.at("dpo_loss"));
  EXPECT_EQ(before.at("dpo_loss"), now.at("dpo_loss")) << "the models are the same at the start";
}

// The fork's matrices are PEFT's the other way round; reading them back gives the same model.
TEST_F(Jobs, AForksAdapterIsStoredByItsNames) {
  JobRequest request = job("fork", "chat", LoraJob{.lora_name = "own"});
  request.config.compat = "fork2601";
  request.config.max_steps = 12;
  run(request);
  const LoadedModel base = load_model(home_ / "tiny", at::kFloat);
  const StateDict stored = read_pth(home_ / "fork/out/own_64.pth", at::kFloat);
  EXPECT_EQ(stored.size(), 2U * 3 * 2);
  const std::string query = "model.layers.1.self_attn.q_proj";
  EXPECT_EQ(stored.at(query + ".lora_A").sizes(), (std::vector<int64_t>{64, 8}));
  EXPECT_EQ(stored.at(query + ".lora_B").sizes(), (std::vector<int64_t>{8, 64}));
  const Adapter peft = load_adapter(home_ / "fork/out/own_64", at::kFloat);
  EXPECT_EQ(peft.lora.alpha, 16);
  EXPECT_TRUE(
      at::equal(stored.at(query + ".lora_A").t(), peft.weights.at("base_model.model." + query + ".lora_A.weight")));
  StateDict one = base.weights, other = base.weights;
  merge_adapter(one, stored, 2, "fork");
  merge_adapter(other, peft.weights, 2, "peft");
  for (const auto& [name, weight] : one) EXPECT_TRUE(at::equal(weight, other.at(name))) << name;
  EXPECT_FALSE(at::equal(one.at(query + ".weight"), base.weights.at(query + ".weight")));
}

// MiniMind's files do not say alpha, so that B has it; PEFT's folder says it, and what it belongs to.
TEST_F(Jobs, AnAdapterIsTheSameInBothForms) {
  for (const std::string compat : {"canonical", "fork2601"}) {
    JobRequest request = job("alpha_" + compat, "chat", LoraJob{.lora_name = "own", .lora_alpha = 64});
    request.config.compat = compat;
    request.config.max_steps = 12;
    run(request);
    const fs::path out = request.config.save_dir;
    const LoadedModel base = load_model(home_ / "tiny", at::kFloat);
    const Adapter peft = load_adapter(out / "own_64", at::kFloat);
    EXPECT_EQ(peft.lora.alpha, 64);
    EXPECT_EQ(peft.base, home_ / "tiny");
    EXPECT_TRUE(fs::exists(out / "own_64/tokenizer.json"));
    StateDict one = base.weights, other = base.weights;
    merge_adapter(one, read_pth(out / "own_64.pth", at::kFloat), compat == "fork2601" ? 2 : 1, "pth");
    merge_adapter(other, peft.weights, 8, "peft");
    for (const auto& [name, weight] : one) EXPECT_TRUE(at::allclose(weight, other.at(name), 1e-6, 1e-7)) << name;
    const std::string query = "model.layers.1.self_attn.q_proj.weight";
    EXPECT_FALSE(at::equal(one.at(query), base.weights.at(query)));
  }
}

// MiniMind's own checkpoints were float16: a resumed run goes on from weights that were rounded.
TEST_F(Jobs, EarlierCheckpointsAreRounded) {
  const auto resumed = [](const std::string& compat) {
    JobRequest request = job<SftJob>("rounded_" + compat, "chat");
    request.config.compat = compat;
    request.config.max_steps = 15;
    run(request);
    const auto state =
        load_newest_checkpoint(real_disk(), fs::path(request.config.checkpoint_dir) / "full_sft_64_resume", "")
            ->parts.at("learner");
    double worst = 0;
    for (const auto& [name, tensor] : state)
      if (!name.starts_with("optimizer."))
        worst = std::max(worst, (tensor - tensor.to(at::kHalf).to(at::kFloat)).abs().max().item<double>());
    EXPECT_GT((state.at("optimizer.m") - state.at("optimizer.m").to(at::kHalf)).abs().max().item<double>(), 0);
    request.config.max_steps = 20;
    request.config.from_resume = 1;
    EXPECT_EQ(run(request).size(), 20U);
    return worst;
  };
  EXPECT_GT(resumed("canonical"), 0);
  EXPECT_EQ(resumed("ref2603"), 0);
  EXPECT_EQ(resumed("ref2512"), 0);
  EXPECT_GT(resumed("fork2601"), 0);
}

TEST_F(Jobs, SupervisedFineTuningGoesAsTorchGoes) {
  expect_trajectory("sft", job<SftJob>("sft", "chat"));
}
TEST_F(Jobs, LoraGoesAsTorchGoes) {
  expect_trajectory("lora", job<LoraJob>("lora", "chat"));
}
TEST_F(Jobs, DpoGoesAsTorchGoes) {
  expect_trajectory("dpo", job<DpoJob>("dpo", "pairs"));
  expect_trajectory("dpo_mean", job("dpo_mean", "pairs", DpoJob{.dpo_logprob = "mean"}));
  JobRequest earlier = job<DpoJob>("dpo_ref2603", "pairs");
  earlier.config.compat = "ref2603";
  expect_trajectory("dpo_mean", earlier);
}
TEST_F(Jobs, RewardModelsGoAsTorchGoes) {
  expect_trajectory("reward", job<RewardJob>("reward", "pairs"));
}
TEST_F(Jobs, DistillationGoesAsTorchGoes) {
  expect_trajectory("distill",
                    job("distill", "chat",
                        DistillJob{.from_student_weight = home_ / "tiny", .from_teacher_weight = home_ / "teacher"}));
}
TEST_F(Jobs, ReasoningDistillationGoesAsTorchGoes) {
  expect_trajectory("distill-reason", job<DistillReasonJob>("reason", "thoughts"));
}

TEST_F(Jobs, PaddingChangesNothing) {
  JobRequest packed = job<SftJob>("packed", "chat"), padded = job<SftJob>("padded", "chat");
  packed.config.max_steps = padded.config.max_steps = 20;
  padded.config.pack = 0;
  const std::vector<double> a = run(packed), b = run(padded);
  ASSERT_EQ(a.size(), b.size());
  for (std::size_t i = 0; i < a.size(); ++i) EXPECT_NEAR(a[i] / b[i], 1.0, 1e-4) << i;
}

TEST_F(Jobs, MicroBatchesChangeNothing) {
  JobRequest whole = job<DpoJob>("whole", "pairs"), cut = job<DpoJob>("cut", "pairs");
  whole.config.max_steps = cut.config.max_steps = 20;
  cut.config.micro_batch_tokens = 1;  // every pair by itself
  const std::vector<double> a = run(whole), b = run(cut);
  for (std::size_t i = 0; i < a.size(); ++i) EXPECT_NEAR(a[i] / b[i], 1.0, 1e-4) << i;
}

// Ended in the middle of an epoch and gone on: the same bits as in one go.
TEST_F(Jobs, AResumedRunIsTheUninterruptedOne) {
  const auto settings = [](const std::string& name) {
    JobRequest request = job<SftJob>(name, "chat");
    request.config.dtype = "bfloat16";
    request.config.accumulation_steps = 2;
    return request;
  };
  const std::vector<double> whole = run(settings("uninterrupted"));
  JobRequest part = settings("resumed");
  part.config.max_steps = 21;  // the second epoch's sixth batch: a window's end
  run(part);
  JobRequest rest = settings("resumed");
  rest.config.from_resume = 1;
  EXPECT_EQ(run(rest), whole);  // the figures of both parts
  expect_same_bits(home_ / "uninterrupted/out", home_ / "resumed/out");
}

// LoRA saves by epochs alone: killed in its third, it goes on from the second's end.
TEST_F(Jobs, AnEpochsEndIsSaved) {
  const auto settings = [](const std::string& name) {
    JobRequest request = job<LoraJob>(name, "chat");
    request.config.epochs = 3;
    request.config.save_interval = 1;
    request.config.max_steps = 0;
    return request;
  };
  const JobRequest cut = settings("epochs_cut");
  const std::vector<double> whole = run(settings("epochs"));
  EXPECT_EQ(run(cut), whole);
  const fs::path folder = fs::path(cut.config.checkpoint_dir) / "lora_identity_64_resume";
  EXPECT_TRUE(fs::exists(folder / "step-000030"));
  ASSERT_EQ(fs::remove_all(folder / "step-000045") > 0, true);
  fs::remove_all(cut.config.save_dir);
  JobRequest rest = cut;
  rest.config.from_resume = 1;
  EXPECT_EQ(run(rest), whole);
  expect_same_bits(home_ / "epochs/out", home_ / "epochs_cut/out");
}

TEST_F(Jobs, AStopIsCleanAndLosesNothing) {
  std::atomic<int> stop{0};
  JobRequest part = job<SftJob>("stopped", "chat");
  fs::create_directories(fs::path(part.config.run_folder) / "tensorboard");
  int batches = 0;
  run_job(part, {}, part.config.run_folder,
          {.on_status = [&](const RunStatus&) { stop = ++batches == 17; }, .stop_requests = &stop});
  EXPECT_EQ(batches, 18);  // the last one says that it saves
  JobRequest rest = job<SftJob>("stopped", "chat");
  rest.config.from_resume = 1;
  const std::vector<double> after = run(rest), whole = run(job<SftJob>("unstopped", "chat"));
  EXPECT_EQ(after, whole);
  expect_same_bits(home_ / "unstopped/out", home_ / "stopped/out");
}

TEST_F(Jobs, AStoppedJobsLastLineIsItsLastBatch) {
  JobRequest request = job<SftJob>("counted", "chat");
  request.config.log_interval = 100;
  std::atomic<int> stop{0};
  std::vector<uint64_t> told;
  int64_t began = -1;
  const JobHooks hooks{.on_training = [&](int64_t done) { began = done; },
                       .on_status =
                           [&](const RunStatus& status) {
                             told.push_back(status.nodes.at(0).progress);
                             stop = told.back() >= 17;
                           },
                       .stop_requests = &stop};
  fs::create_directories(request.config.run_folder);
  run_job(request, {}, request.config.run_folder, hooks);
  EXPECT_EQ(began, 0);
  ASSERT_FALSE(told.empty());
  EXPECT_EQ(told[0], 1U);
  EXPECT_EQ(told.back(), 17U);
  const auto last = [&] { return read_metrics(fs::path(request.config.run_folder) / "metrics.jsonl").back().step; };
  EXPECT_EQ(last(), 17U);
  request.config.from_resume = 1;
  request.config.max_steps = 0;
  request.config.epochs = 2;
  request.config.compat = "ref2512";  // whose line at an epoch's end is the last batch but one's
  stop = 0;
  told.clear();
  run_job(request, {}, request.config.run_folder,
          {.on_training = [&](int64_t done) { began = done; }, .stop_requests = &stop});
  EXPECT_EQ(began, 17);
  EXPECT_EQ(last(), 30U);
}

TEST_F(Jobs, FindingTheLinesOfALargeFileIsShownAndCanBeStopped) {
  const std::string sample = oracle_.at("data").at("chat")[0];
  {
    std::ofstream out(home_ / "large.jsonl");
    const std::string blank(size_t{4} << 20, ' ');
    for (int i = 0; i < 50; ++i) out << sample << blank << '\n';
  }
  JobRequest request = job<SftJob>("large", "large");
  request.config.max_steps = 1;
  fs::create_directories(fs::path(request.config.run_folder) / "tensorboard");
  std::vector<double> shares;
  std::atomic<int> stop{0};
  JobHooks hooks{.on_preparing =
                     [&](const std::string& what, double share) {
                       EXPECT_EQ(what, "finding the lines of large.jsonl");
                       shares.push_back(share);
                     },
                 .stop_requests = &stop};
  run_job(request, {}, request.config.run_folder, hooks);
  ASSERT_EQ(shares.size(), 3U);  // of 64 MiB each
  EXPECT_NEAR(shares[1], 2 * 64 / 200.0, 0.03);
  stop = 1;
  EXPECT_THROW(run_job(request, {}, request.config.run_folder, hooks), std::runtime_error);
  fs::remove(home_ / "large.jsonl");
}

TEST_F(Jobs, ALineThatCannotBeReadIsNamed) {
  std::ofstream(home_ / "bad.jsonl") << oracle_.at("data").at("chat")[0].get<std::string>()
                                     << "\n{\"conversations\": 7}\n";
  JobRequest request = job<SftJob>("bad", "bad");
  try {
    run(request);
    FAIL() << "no error";
  } catch (const std::runtime_error& error) {
    EXPECT_NE(std::string(error.what()).find("bad.jsonl:2: "), std::string::npos) << error.what();
  }
  request.config.on_malformed = "skip";
  EXPECT_FALSE(run(request).empty());
}

TEST_F(Jobs, WhatCannotBeUsedIsNamedBeforeAnythingIsTrained) {
  const auto message = [](auto&& spoil) {
    JobRequest request = job<SftJob>("unusable", "chat");
    spoil(request.config);
    try {
      run(request);
    } catch (const std::exception& error) {
      return std::string(error.what());
    }
    return std::string("no error");
  };
  EXPECT_EQ(message([](JobConfig& c) { c.save_dir = "/proc/nowhere"; }), "/proc/nowhere: nothing can be written there");
  EXPECT_EQ(message([](JobConfig& c) { c.device = "abacus"; }),
            "--device: device 'abacus', expected \"cpu\", \"cuda\" or \"cuda:N\"");
  EXPECT_NE(message([](JobConfig& c) { c.data_path = "nope.jsonl"; }).find("nope.jsonl"), std::string::npos);
  try {
    run(job("unusable", "chat", LoraJob{.lora_targets = "q_proj,nope"}));
    FAIL() << "no error";
  } catch (const std::invalid_argument& error) {
    EXPECT_STREQ(error.what(),
                 "--lora_targets: 'nope', expected names of q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj");
  }
}

TEST_F(Jobs, SettingsOutOfRangeAreNamed) {
  const auto message = [](auto&& spoil) {
    JobRequest request = job<SftJob>("wrong", "chat");
    spoil(request.config);
    try {
      check_job(request);
    } catch (const std::invalid_argument& error) {
      return std::string(error.what());
    }
    return std::string("no error");
  };
  EXPECT_EQ(message([](JobConfig& c) { c.epochs = 0; }), "--epochs: 0, expected at least 1");
  EXPECT_EQ(message([](JobConfig& c) { c.dtype = "fp8"; }), "--dtype: 'fp8', expected bfloat16 or float32");
  EXPECT_EQ(message([](JobConfig& c) { c.compat = "x"; }),
            "--compat: 'x', expected canonical, ref2603, ref2512 or fork2601");
  const auto of = [](const JobKind& kind) {
    try {
      check_job({DpoJob::defaults(), kind});
    } catch (const std::invalid_argument& error) {
      return std::string(error.what());
    }
    return std::string("no error");
  };
  EXPECT_EQ(of(DpoJob{.beta = -1}), "--beta: -1.000000, expected more than 0");
  EXPECT_EQ(of(DpoJob{.label_smoothing = 7}), "--label_smoothing: 7.000000, expected at least 0 and less than 0.5");
  EXPECT_EQ(of(DistillJob{.alpha = 2}), "--alpha: 2.000000, expected 0 to 1");
}

TEST_F(Jobs, RunFoldersAreCalledAsTheOutputs) {
  JobRequest request = job<SftJob>("named", "chat");
  EXPECT_EQ(job_name(request), "full_sft_64") << "the folder's width";
  request.config.from_weight = "none";
  request.config.use_moe = 1;
  EXPECT_EQ(job_name(request), "full_sft_512_moe");
}

}  // namespace
}  // namespace troupe
