// The single-role jobs' command lines: those of MiniMind's guide, with `troupe JOB` in place of `python trainer/...`.
#include <gtest/gtest.h>

#include <iterator>
#include <nlohmann/json.hpp>
#include <sstream>

#include "tests/support/command.hpp"

namespace troupe {
namespace {

using nlohmann::json;

class JobCommands : public testing::Test {
 protected:
  Ended call(const std::string& line) {
    std::istringstream in(line);
    const std::vector<std::string> words{std::istream_iterator<std::string>(in), {}};
    return troupe::call(words, "", folder_.path());
  }
  // The settings that a line comes to.
  json settings(const std::string& line) {
    const Ended ended = call(line + " --plain");
    EXPECT_EQ(ended.code, 0) << line << "\n" << ended.err;
    std::istringstream out(ended.out);
    for (std::string text; std::getline(out, text);)
      if (text.starts_with("{\"job\"")) return json::parse(text);
    ADD_FAILURE() << "no settings: " << line << "\n" << ended.out;
    return json::object();
  }

  ScratchFolder folder_;
};

TEST_F(JobCommands, DefaultsAreThoseOfTheGuide) {
  const auto expect = [&](const std::string& job, const json& wanted) {
    const json all = settings(job);
    for (const auto& [key, value] : wanted.items()) EXPECT_EQ(all.value(key, json()), value) << job << " " << key;
  };
  expect("pretrain", {{"save_weight", "pretrain"},
                      {"epochs", 1},
                      {"batch_size", 32},
                      {"learning_rate", 5e-4},
                      {"accumulation_steps", 8},
                      {"max_seq_len", 512},
                      {"from_weight", "none"},
                      {"save_dir", "out"}});
  expect("sft", {{"save_weight", "full_sft"},
                 {"epochs", 2},
                 {"batch_size", 16},
                 {"learning_rate", 5e-7},
                 {"accumulation_steps", 1},
                 {"from_weight", "pretrain"},
                 {"log_interval", 100}});
  expect("lora", {{"lora_name", "lora_identity"},
                  {"epochs", 50},
                  {"batch_size", 32},
                  {"learning_rate", 1e-4},
                  {"log_interval", 10},
                  {"save_interval", 1},
                  {"from_weight", "full_sft"},
                  {"save_dir", "out/lora"}});
  expect("dpo", {{"save_weight", "dpo"},
                 {"batch_size", 4},
                 {"learning_rate", 4e-8},
                 {"max_seq_len", 1024},
                 {"beta", 0.1},
                 {"dpo_logprob", ""}});
  expect("distill", {{"save_weight", "full_dist"},
                     {"epochs", 6},
                     {"learning_rate", 5e-6},
                     {"num_workers", 4},
                     {"save_interval", 500},
                     {"alpha", 0.5},
                     {"temperature", 1.5},
                     {"teacher_hidden_size", 768},
                     {"teacher_num_layers", 16},
                     {"student_hidden_size", 512},
                     {"student_num_layers", 8}});
  expect("distill-reason", {{"save_weight", "reason"},
                            {"batch_size", 8},
                            {"learning_rate", 1e-6},
                            {"max_seq_len", 1024},
                            {"from_weight", "dpo"},
                            {"tag_weight", 10.0}});
}

// Every case of the guide; its data paths begin at the project's root.
TEST_F(JobCommands, EveryLineOfTheGuideIsUnderstood) {
  for (
      const char* line :
      {"pretrain --data_path ./dataset/pretrain_hq.jsonl",
       "pretrain --epochs 1 --batch_size 32 --learning_rate 5e-4 --data_path ./dataset/pretrain_hq.jsonl --use_wandb",
       "pretrain --batch_size 16 --learning_rate 3e-4 --hidden_size 768 --num_hidden_layers 16 --accumulation_steps 16",
       "pretrain --batch_size 24 --learning_rate 5e-4 --hidden_size 640 --num_hidden_layers 8 --use_moe 1",
       "pretrain --accumulation_steps 2 --use_wandb --wandb_project MiniMind-Pretrain --device cuda:0 --dtype bfloat16",
       "pretrain --from_resume 1",
       "sft --data_path ./dataset/sft_mini_512.jsonl --from_weight pretrain",
       "sft --batch_size 8 --learning_rate 3e-7 --max_seq_len 1024 --data_path ./dataset/sft_1024.jsonl --save_weight "
       "full_sft_1024 --from_weight full_sft",
       "sft --epochs 1 --batch_size 4 --learning_rate 1e-7 --max_seq_len 2048 --accumulation_steps 4 --data_path "
       "./dataset/sft_2048.jsonl --save_weight full_sft_2048",
       "sft --batch_size 8 --learning_rate 3e-7 --hidden_size 768 --num_hidden_layers 16 --accumulation_steps 2",
       "lora --lora_name lora_identity --data_path ./dataset/lora_identity.jsonl --from_weight full_sft",
       "lora --lora_name lora_medical --batch_size 16 --learning_rate 5e-5 --data_path ./dataset/lora_medical.jsonl "
       "--from_weight dpo",
       "lora --lora_name lora_custom --epochs 30 --data_path ./dataset/lora_custom.jsonl --from_weight dpo",
       "dpo --data_path ./dataset/dpo.jsonl --from_weight full_sft",
       "dpo --learning_rate 3e-8 --beta 0.2 --save_weight dpo_beta02",
       "dpo --batch_size 2 --learning_rate 2e-8 --hidden_size 768 --num_hidden_layers 16 --accumulation_steps 2",
       "distill-reason --data_path ./dataset/r1_mix_1024.jsonl --from_weight dpo",
       "distill-reason --data_path ./dataset/distill_opus45_reasoning.jsonl --save_weight reason_opus45",
       "distill-reason --batch_size 4 --learning_rate 5e-7 --hidden_size 768 --num_hidden_layers 16 "
       "--accumulation_steps 2",
       "distill --teacher_hidden_size 768 --teacher_num_layers 16 --student_hidden_size 512 --student_num_layers 8",
       "distill --teacher_hidden_size 512 --teacher_num_layers 8 --from_student_weight pretrain "
       "--from_teacher_weight full_sft",
       "distill --batch_size 16 --learning_rate 3e-6 --alpha 0.3 --temperature 2.0 --save_weight dist_base_to_small "
       "--use_moe 0 --num_workers 4 --grad_clip 1.0 --log_interval 100 --save_interval 500"}) {
    const Ended ended = call(std::string(line) + " --plain");
    EXPECT_EQ(ended.code, 0) << line << "\n" << ended.err;
  }
}

TEST_F(JobCommands, AFileGivesSettingsAndFlagsWin) {
  write_text(folder_ / "sft.json", R"({"job": "sft", "epochs": 7, "learning_rate": 0.001, "data_path": "mine.jsonl"})");
  const json all = settings("sft --config sft.json --epochs 3");
  EXPECT_EQ(all["epochs"], 3);
  EXPECT_EQ(all["learning_rate"], 0.001);
  EXPECT_EQ(all["data_path"], "mine.jsonl");
  EXPECT_EQ(all["batch_size"], 16);
  EXPECT_EQ(settings("sft --hidden_size 256 --epochs 2 --hidden-size 128")["hidden_size"], 128)
      << "the last, as argparse";
  const json dpo = settings("dpo --beta 0.3");
  EXPECT_EQ(dpo["beta"], 0.3);
}

TEST_F(JobCommands, ASecondStopEndsTheStepInWork) {
  Command job({"sft", "--data_path", "endless", "--run_folder", "r", "--plain"}, folder_.path());
  const auto wait_for = [&](const std::string& text) {
    for (int i = 0; i < 3000 && job.out().find(text) == std::string::npos; ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    EXPECT_NE(job.out().find(text), std::string::npos) << job.out();
  };
  wait_for("{\"job\"");
  job.signal(SIGINT);
  wait_for("stopping: the step in work is finished");
  job.signal(SIGINT);
  EXPECT_EQ(job.wait_for_end(), 130);
  EXPECT_TRUE(job.out().ends_with("stopping at once\n")) << job.out();
  EXPECT_EQ(json::parse(text_of(folder_ / "r/summary.json")).at("state"), "stopped");
}

TEST_F(JobCommands, AJobsReportIsDrawnAgain) {
  EXPECT_EQ(call("report r").code, 1);
  EXPECT_EQ(call("sft --run_folder r --plain").code, 0);
  write_text(folder_ / "r/metrics.jsonl", "{\"step\": 3, \"loss\": 2.5}\n{\"step\": 6, \"loss\": 2}\n");
  const Ended ended = call("report r");
  EXPECT_EQ(ended.code, 0) << ended.err;
  EXPECT_NE(text_of(folder_ / "r/report.html").find("<svg"), std::string::npos);
}

TEST_F(JobCommands, WhatIsWrongIsNamed) {
  write_text(folder_ / "bad.json", R"({"epochs": 7, "lerning_rate": 0.001})");
  const auto refused = [&](const std::string& line, int code, const std::string& about) {
    const Ended ended = call(line);
    EXPECT_EQ(ended.code, code) << line;
    EXPECT_NE(ended.err.find(about), std::string::npos) << ended.err;
  };
  refused("sft --config bad.json", 1, "bad.json:1: lerning_rate");
  write_text(folder_ / "dpo.json", R"({"job": "dpo", "beta": 0.3})");
  write_text(folder_ / "wide.json", R"({"hidden_size": 64})");
  refused("lora --config dpo.json", 1, "dpo.json:1: job: \"dpo\", but this is troupe lora");
  refused("distill --config wide.json", 1, "wide.json:1: hidden_size: is not a setting of distill");
  refused("sft --epochs 0", 2, "try: troupe sft --help");
  refused("sft --epochs many", 2, "--epochs");
  refused("sft --no_such_flag 1", 2, "no");
  refused("distill --from_weight x", 2, "from");
}

}  // namespace
}  // namespace troupe
