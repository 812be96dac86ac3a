#include <gtest/gtest.h>

#include <csignal>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "core/metrics/metrics_log.hpp"
#include "launcher/run_folder.hpp"
#include "tests/core/metrics/scratch_folder.hpp"
#include "tests/launcher/pretend_cast.hpp"
#include "tests/support/command.hpp"

namespace troupe {
namespace {

using namespace std::chrono_literals;

class CommandLine : public testing::Test {
 protected:
  CommandLine() {
    lay_out(folder_.path());
    write_topology(good_topology());
  }
  void write_topology(const Json& json) { write_text(folder_ / "t.json", json.dump(2)); }

  Command start(const std::vector<std::string>& arguments) { return Command(arguments, folder_.path()); }
  Ended call(const std::vector<std::string>& arguments) { return start(arguments).wait(); }

  // Until the run has written so many steps.
  void wait_for_steps(std::size_t count) {
    for (int i = 0; i < 1000; ++i, std::this_thread::sleep_for(20ms))
      if (std::filesystem::exists(folder_ / "r/metrics.jsonl") &&
          read_metrics(folder_ / "r/metrics.jsonl").size() >= count)
        return;
    FAIL() << "no " << count << " steps";
  }
  Json summary() { return Json::parse(text_of(folder_ / "r/summary.json")); }

  ScratchFolder folder_;
};

TEST_F(CommandLine, WrongUsageEndsWithTwoAndAHint) {
  for (const std::vector<std::string>& words :
       std::vector<std::vector<std::string>>{{},
                                             {"rum"},
                                             {"run"},
                                             {"run", "t.json", "--sett", "a=1"},
                                             {"topology"},
                                             {"topology", "check"},
                                             {"generate", "--prompt", "x"},
                                             {"generate", "--model", "m", "--prompt", "x", "--top-p", "2"},
                                             {"export", "r"},
                                             {"chat", "--use_moe", "2"},
                                             {"chat", "--top_p", "0"},
                                             {"eval", "--mode", "guess"},
                                             {"convert"},
                                             {"convert", "--to", "x", "--dtype", "f8"},
                                             {"data", "poems"}}) {
    const Ended ended = call(words);
    EXPECT_EQ(ended.code, 2) << testing::PrintToString(words);
    EXPECT_NE(ended.err.find("troupe: try: troupe"), std::string::npos) << ended.err;
  }
}

TEST_F(CommandLine, WrongUsageIsNamedWithWhatWasExpected) {
  const auto expect_said = [&](const std::vector<std::string>& words, const std::string& line) {
    const Ended ended = call(words);
    EXPECT_EQ(ended.code, 2) << testing::PrintToString(words);
    EXPECT_TRUE(ended.err.starts_with("troupe: " + line + "\ntroupe: try: troupe")) << ended.err;
  };
  expect_said({"nonsense"}, "unknown command 'nonsense'");
  expect_said({"rum", "t.json"}, "unknown command 'rum'; did you mean 'run'?");
  expect_said({"topology", "chek", "t.json"}, "unknown command 'chek'; did you mean 'check'?");
  expect_said({"roles"}, "unknown command 'roles'");  // hidden commands are not taught
  expect_said({"topology"}, "A subcommand is required");
  expect_said({"replay", "r", "--step", "0"}, "--step: Value 0 not in range 1 to 1000000000");
  expect_said({"generate", "--model", "m", "--prompt", "x", "--top-k", "-1"},
              "--top-k: Value -1 not in range 0 to 1000000000");
  expect_said({"chat", "--repetition-penalty", "0"},
              "--repetition-penalty: Value 0 not in range 0.010000 to 100.000000");
  expect_said({"data", "arithmetic", "--train", "x.jsonl", "--held-out", "./x.jsonl"},
              "--held-out: is the file of --train; expected another");
  EXPECT_FALSE(std::filesystem::exists(folder_ / "x.jsonl"));
  expect_said({"data", "tiny-model", "--to", "x"}, "--prompts: needed unless --steps is 0");
}

TEST_F(CommandLine, OutputThatCannotBeWrittenIsAFault) {
  const auto shell = [&](const std::string& words) {
    const int status =
        std::system(("cd '" + folder_.path().string() + "' && troupe=" TROUPE_PROGRAM "; " + words).c_str());
    return WEXITSTATUS(status);
  };
  for (const std::string words : {"topology show t.json", "--help"}) {
    EXPECT_EQ(shell("$troupe " + words + " > /dev/full 2> err"), 1);
    EXPECT_EQ(text_of(folder_ / "err"), "troupe: standard output: No space left on device\n");
  }
  EXPECT_EQ(shell("$troupe nonsense > /dev/full 2> err"), 2);
  // A pipe whose reader has left is none, also where that is no signal.
  shell(
      "mkfifo gone; (trap '' PIPE; read line < gone; $troupe topology show t.json 2> err; echo $? > code) | "
      "(exec 0<&-; echo yes > gone)");
  EXPECT_EQ(text_of(folder_ / "code"), "0\n");
  EXPECT_EQ(text_of(folder_ / "err"), "");
}

TEST_F(CommandLine, EveryHelpTeachesByExample) {
  for (const std::vector<std::string>& words : std::vector<std::vector<std::string>>{{},
                                                                                     {"run"},
                                                                                     {"resume"},
                                                                                     {"status"},
                                                                                     {"stop"},
                                                                                     {"report"},
                                                                                     {"topology", "check"},
                                                                                     {"topology", "show"},
                                                                                     {"generate"},
                                                                                     {"export"},
                                                                                     {"chat"},
                                                                                     {"eval"},
                                                                                     {"convert"},
                                                                                     {"pretrain"},
                                                                                     {"sft"},
                                                                                     {"lora"},
                                                                                     {"dpo"},
                                                                                     {"reward"},
                                                                                     {"distill"},
                                                                                     {"distill-reason"},
                                                                                     {"data", "arithmetic"},
                                                                                     {"tokenizer", "train"}}) {
    std::vector<std::string> asked = words;
    asked.push_back("--help");
    const Ended ended = call(asked);
    EXPECT_EQ(ended.code, 0);
    EXPECT_NE(ended.out.find("troupe " + (words.empty() ? "run" : words[0])), std::string::npos) << ended.out;
    EXPECT_NE(ended.out.find("xample"), std::string::npos) << ended.out;
    EXPECT_EQ(ended.out.find("--incarnation"), std::string::npos);
  }
  EXPECT_TRUE(call({"--version"}).out.starts_with("troupe "));
}

TEST_F(CommandLine, FlagsMayBeWrittenAsInMiniMindsScripts) {
  EXPECT_EQ(call({"chat"}).out, "model|out|full_sft|None|512|8|0|0\n0.85|0.85|8192|-1\n");
  EXPECT_EQ(call({"eval"}).out, "model|out|full_sft|None|512|8|0|0\n0|bf16|0|1\n");
  EXPECT_EQ(call({"chat",
                  "--load_from",
                  "./mini_mind",
                  "--save_dir=a_b",
                  "--weight",
                  "dpo",
                  "--lora_weight",
                  "lora_medical",
                  "--hidden_size",
                  "768",
                  "--num_hidden_layers",
                  "16",
                  "--use_moe",
                  "1",
                  "--inference_rope_scaling",
                  "--max_new_tokens",
                  "4096",
                  "--temperature",
                  "0.8",
                  "--top_p",
                  "0.9",
                  "--historys",
                  "6"})
                .out,
            "./mini_mind|a_b|dpo|lora_medical|768|16|1|1\n0.8|0.9|4096|6\n");
  EXPECT_EQ(
      call({"convert", "--load-from", "m_n", "--hidden-size", "640", "--use-moe", "1", "--to", "x_y", "--dtype", "f32"})
          .out,
      "m_n|out|full_sft|None|640|8|1|0\nx_y|f32\n");
  EXPECT_EQ(call({"eval", "--mode", "perplexity", "--show_speed", "0", "--historys", "2"}).out,
            "model|out|full_sft|None|512|8|0|0\n3|f32|2|0\n");
}

TEST_F(CommandLine, CheckReportsEveryFaultAndShowPrintsTheDefaults) {
  Ended ended = call({"topology", "check", "--set", "nodes.actor.count=3", "--set", "run.seed=9", "t.json"});
  EXPECT_EQ(ended.code, 0) << ended.err;
  EXPECT_NE(ended.out.find("t.json: good"), std::string::npos);
  ended = call({"topology", "show", "t.json"});
  EXPECT_EQ(Json::parse(ended.out)["transport"]["ask_timeout_s"], TransportSection().ask_timeout_s);
  Json bad = good_topology();
  bad["run"]["sed"] = 1;
  bad["model"] = "absent";
  write_topology(bad);
  ended = call({"topology", "check", "t.json"});
  EXPECT_EQ(ended.code, 1);
  EXPECT_NE(ended.err.find("did you mean 'seed'?"), std::string::npos) << ended.err;
  EXPECT_NE(ended.err.find("no model at"), std::string::npos);
  EXPECT_NE(ended.err.find("troupe: 2 faults"), std::string::npos);
}

TEST_F(CommandLine, RunPlaysToItsEndAndLeavesItsRecord) {
  const Ended ended = call({"run", "t.json", "--run-folder", "r"});
  ASSERT_EQ(ended.code, 0) << ended.out << ended.err;
  EXPECT_NE(ended.out.find("step 5/5  reward 0.5"), std::string::npos) << ended.out;
  EXPECT_NE(ended.out.find("done after 5 steps"), std::string::npos);
  EXPECT_EQ(ended.out.find('\033'), std::string::npos) << "no escape sequences where there is no terminal";
  EXPECT_EQ(summary()["state"], "done");
  EXPECT_EQ(summary()["steps"], 5);
  EXPECT_TRUE(std::filesystem::exists(folder_ / "r/report.html"));
  EXPECT_TRUE(std::filesystem::exists(folder_ / "r/logs/actor-1.log"));
  const RunFile run = read_run_file(folder_ / "r");
  EXPECT_EQ(run.state, "done");
  EXPECT_FALSE(std::filesystem::exists(run.sockets));
  EXPECT_EQ(call({"run", "t.json", "--run-folder", "r"}).code, 1) << "a folder holds one run";
  EXPECT_NE(call({"status", "r"}).out.find("run r: done"), std::string::npos);
}

TEST_F(CommandLine, ARunThatIsDoneStaysAsItIsUntilItIsGivenMoreSteps) {
  ASSERT_EQ(call({"run", "t.json", "--run-folder", "r"}).code, 0);
  const std::string before = text_of(folder_ / "r/run.json") + text_of(folder_ / "r/summary.json");
  Ended ended = call({"resume", "r"});
  EXPECT_EQ(ended.code, 0) << ended.err;
  EXPECT_NE(ended.out.find("run r is done, after 5 steps; nothing was changed"), std::string::npos) << ended.out;
  EXPECT_NE(ended.out.find("r/report.html"), std::string::npos) << ended.out;
  EXPECT_EQ(text_of(folder_ / "r/run.json") + text_of(folder_ / "r/summary.json"), before);
  ended = call({"resume", "r", "--set", "nodes.conductor.config.steps=7"});
  EXPECT_EQ(ended.code, 0) << ended.err;
  EXPECT_NE(ended.out.find("done after 7 steps"), std::string::npos) << ended.out;
  EXPECT_EQ(read_run_file(folder_ / "r").starts, 2u);
}

TEST_F(CommandLine, WithoutItsZygoteARunGoesOnAndStartsRolesByExec) {
  Command running = start({"run", "t.json", "--run-folder", "r", "--set", "nodes.conductor.config.step_ms=50", "--set",
                           "nodes.conductor.config.steps=1000"});
  wait_for_steps(2);
  const auto child = [&](const std::string& words) {
    std::ifstream children("/proc/" + std::to_string(running.pid()) + "/task/" + std::to_string(running.pid()) +
                           "/children");
    for (pid_t pid = 0; children >> pid;)
      if (const std::string text = text_of("/proc/" + std::to_string(pid) + "/cmdline");
          text.find(words) != std::string::npos)
        return std::pair(pid, text);
    return std::pair(pid_t{-1}, std::string());
  };
  const auto first = child("--node actor/0");
  EXPECT_NE(first.second.find("pretend_troupe role --run"), std::string::npos) << first.second;
  const pid_t zygote = child("pretend_troupe zygote").first;
  ASSERT_GT(zygote, 0);
  ASSERT_GT(first.first, 0);
  kill(zygote, SIGKILL);
  kill(first.first, SIGKILL);
  auto second = first;
  for (int i = 0; i < 500 && (second.first <= 0 || second.first == first.first); ++i) {
    std::this_thread::sleep_for(20ms);
    second = child(std::string("--node\0actor/0", 14));
  }
  EXPECT_TRUE(second.second.starts_with("/proc/self/exe")) << second.second;
  running.signal(SIGINT);
  const Ended ended = running.wait();
  EXPECT_EQ(ended.code, 0) << ended.out << ended.err;
  EXPECT_NE(ended.out.find("started actor/0, incarnation 2"), std::string::npos) << ended.out;
}

TEST_F(CommandLine, OneProcessPlaysTheSameCommand) {
  const Ended ended = call({"run", "t.json", "--run-folder", "r", "--set", "run.mode=standalone"});
  EXPECT_EQ(ended.code, 0) << ended.err;
  EXPECT_NE(ended.out.find("one process"), std::string::npos);
  EXPECT_NE(ended.out.find("done after 1 steps"), std::string::npos);
}

TEST_F(CommandLine, StatusOfARunInOneProcessTellsWhatItsRecordsTell) {
  Command running = start({"run", "t.json", "--run-folder", "r", "--set", "run.mode=standalone", "--set",
                           "nodes.conductor.config.step_ms=60000"});  // killed before its end
  wait_for_steps(1);
  const Ended status = call({"status", "r"});
  EXPECT_NE(status.out.find("running as process"), std::string::npos) << status.out;
  EXPECT_NE(status.out.find("one process plays reference/0, reward/0, learner/0, actor/0, actor/1, conductor/0"),
            std::string::npos)
      << status.out;
  EXPECT_NE(status.out.find("its last step ended "), std::string::npos) << status.out;
}

TEST_F(CommandLine, StopEndsARunCleanlyAndResumeGoesOn) {
  const std::vector<std::string> slow{"run",          "t.json",
                                      "--run-folder", "r",
                                      "--set",        "nodes.conductor.config.step_ms=50",
                                      "--set",        "nodes.conductor.config.steps=1000"};
  Command running = start(slow);
  wait_for_steps(2);
  const auto second = std::filesystem::absolute(folder_ / "r");
  EXPECT_EQ(launcher_of(second), std::optional<pid_t>(running.pid()));
  running.signal(SIGINT);
  Ended ended = running.wait();
  EXPECT_EQ(ended.code, 0) << ended.out << ended.err;
  EXPECT_NE(ended.out.find("stopping: the step in work is finished"), std::string::npos) << ended.out;
  EXPECT_NE(ended.out.find("troupe resume"), std::string::npos);
  EXPECT_EQ(summary()["state"], "stopped");
  const auto before = read_metrics(folder_ / "r/metrics.jsonl");

  const std::string more = std::to_string(before.size() + 3);
  ended = call({"resume", "r", "--set", "nodes.conductor.config.steps=" + more});
  EXPECT_EQ(ended.code, 0) << ended.out << ended.err;
  EXPECT_EQ(ended.out.find("step 1/"), std::string::npos) << "shown again: " << ended.out;
  EXPECT_NE(ended.out.find("step " + more + "/"), std::string::npos) << ended.out;
  const auto after = read_metrics(folder_ / "r/metrics.jsonl");
  ASSERT_EQ(after.size(), before.size() + 3);
  for (std::size_t i = 0; i < after.size(); ++i) EXPECT_EQ(after[i].step, i + 1);
  EXPECT_EQ(read_run_file(folder_ / "r").starts, 2u);
  EXPECT_EQ(summary()["state"], "done");
}

TEST_F(CommandLine, ResumeRefusesWhatIsNotTheSameRun) {
  ASSERT_EQ(call({"run", "t.json", "--run-folder", "r"}).code, 0);
  const std::string before = text_of(folder_ / "r/topology.json");
  const auto refused = [&](const std::string& set, const std::string& about) {
    const Ended ended = call({"resume", "r", "--set", "nodes.conductor.config.steps=9", "--set", set});
    EXPECT_EQ(ended.code, 1) << set << ended.out;
    EXPECT_NE(ended.err.find(about), std::string::npos) << ended.err;
    EXPECT_EQ(text_of(folder_ / "r/topology.json"), before) << set;
  };
  refused("run.seed=99", "has begun with another run.seed (3, given 99)");
  refused("prompts.max_prompt_tokens=3", "prompts.max_prompt_tokens (256, given 3)");
  const std::string prompts = *read_run_topology(folder_ / "r").prompts.file;
  write_text(folder_ / "others.jsonl", text_of(prompts) + "{\"prompt\": \"one more\", \"answer\": \"1\"}\n");
  refused("prompts.file=others.jsonl", "prompts.file (");
  write_text(folder_ / "copy.jsonl", text_of(prompts));
  EXPECT_EQ(call({"resume", "r", "--set", "nodes.conductor.config.steps=6", "--set", "restarts.limit=7", "--set",
                  "prompts.file=copy.jsonl"})
                .code,
            0);
  std::filesystem::remove(folder_ / "copy.jsonl");  // moved on
  EXPECT_EQ(call({"resume", "r", "--set", "nodes.conductor.config.steps=7", "--set", "prompts.file=" + prompts}).code,
            0);
}

TEST_F(CommandLine, StatusAndStopReachARunningRun) {
  Command running = start({"run", "t.json", "--run-folder", "r", "--set", "nodes.conductor.config.step_ms=50", "--set",
                           "nodes.conductor.config.steps=1000"});
  wait_for_steps(2);
  const Ended status = call({"status", "r"});
  EXPECT_EQ(status.code, 0) << status.err;
  EXPECT_NE(status.out.find("running as process " + std::to_string(running.pid())), std::string::npos) << status.out;
  EXPECT_NE(status.out.find("conductor/0"), std::string::npos) << status.out;
  EXPECT_NE(status.out.find("actor/1"), std::string::npos);
  const Ended again = call({"resume", "r"});
  EXPECT_EQ(again.code, 1);
  EXPECT_NE(again.err.find("is running already"), std::string::npos) << again.err;
  const Ended stop = call({"stop", "r"});
  EXPECT_EQ(stop.code, 0) << stop.err;
  EXPECT_EQ(running.wait().code, 0);
  EXPECT_NE(call({"stop", "r"}).out.find("is not running"), std::string::npos);
}

TEST_F(CommandLine, TheSecondInterruptEndsAtOnce) {
  Command running = start({"run", "t.json", "--run-folder", "r", "--set", "nodes.conductor.config.step_ms=20000"});
  const auto wait_for = [&](const std::string& text) {
    for (int i = 0; i < 1000 && running.out().find(text) == std::string::npos; ++i) std::this_thread::sleep_for(20ms);
  };
  wait_for("conductor/0: roll");
  running.signal(SIGINT);
  wait_for("stopping: ");  // two that are pending together are one
  running.signal(SIGINT);
  const Ended ended = running.wait();
  EXPECT_EQ(ended.code, 130) << ended.out << ended.err;
}

TEST_F(CommandLine, ARoleThatDiesIsStartedAgain) {
  const Ended ended = call({"run", "t.json", "--run-folder", "r", "--set", "nodes.actor.config.deaths=1", "--set",
                            "nodes.conductor.config.step_ms=300"});
  EXPECT_EQ(ended.code, 0) << ended.out << ended.err;
  EXPECT_NE(ended.out.find("actor/0"), std::string::npos) << ended.out;
  EXPECT_NE(text_of(folder_ / "r/logs/actor-0.log").find("pretends to die"), std::string::npos);
}

TEST_F(CommandLine, ARoleThatKeepsDyingEndsTheRunWithOne) {
  const Ended ended = call({"run", "t.json", "--run-folder", "r", "--set", "nodes.actor.config.deaths=1000", "--set",
                            "nodes.conductor.config.step_ms=500", "--set", "nodes.conductor.config.steps=1000", "--set",
                            "restarts.limit=1"});
  EXPECT_EQ(ended.code, 1) << ended.out << ended.err;
  EXPECT_NE((ended.out + ended.err).find("pretends to die"), std::string::npos) << "the report shows the log's end";
  EXPECT_EQ(summary()["state"], "failed");
}

TEST_F(CommandLine, AForeignFolderIsNoRun) {
  for (const char* verb : {"status", "stop", "resume", "report"}) {
    const Ended ended = call({verb, "model"});
    EXPECT_EQ(ended.code, 1) << verb;
    EXPECT_NE(ended.err.find("holds no run"), std::string::npos) << ended.err;
  }
  EXPECT_EQ(call({"status", "absent"}).code, 1);
}

TEST_F(CommandLine, ARoleIsNotStartedByHand) {
  EXPECT_EQ(call({"run", "t.json", "--run-folder", "r"}).code, 0);
  const Ended ended = call({"role", "--run", "r", "--node", "actor/0"});
  EXPECT_EQ(ended.code, 1);
  EXPECT_NE(ended.err.find("not by hand"), std::string::npos);
}

TEST_F(CommandLine, GenerateExportAndDataReachWhoDoesThem) {
  EXPECT_EQ(call({"generate", "--model", "m", "--prompt", "hi", "--temperature", "0", "--count", "2"}).out,
            "m|hi|0|2\n");
  EXPECT_EQ(call({"run", "t.json", "--run-folder", "r"}).code, 0);
  EXPECT_EQ(call({"export", "r", "--to", "x"}).out, "r|-1|x\n");
  EXPECT_EQ(call({"export", "r", "--step", "3", "--to", "x"}).out, "r|3|x\n");
  const Ended data = call({"data", "arithmetic", "--train", "a.jsonl", "--held-out", "b.jsonl", "--num-held-out", "9"});
  EXPECT_EQ(data.code, 0) << data.err;
  const std::string held_out = text_of(folder_ / "b.jsonl");
  EXPECT_EQ(std::count(held_out.begin(), held_out.end(), '\n'), 9);
}

TEST_F(CommandLine, TokenizerTrainWritesAFolderAndTestsIt) {
  write_text(folder_ / "texts.jsonl", "{\"text\": \"low lower lowest\"}\n\n{\"text\": \"你好 low\", \"more\": 1}\n");
  Ended ended = call({"tokenizer", "train", "--data", "texts.jsonl", "--out", "tok", "--vocab_size", "300"});
  EXPECT_EQ(ended.code, 0) << ended.err;
  EXPECT_NE(ended.out.find("2 texts"), std::string::npos) << ended.out;
  EXPECT_NE(ended.out.find("the texts give no more"), std::string::npos) << ended.out;
  EXPECT_NE(ended.out.find("decodes to itself"), std::string::npos) << ended.out;
  for (const char* name : {"tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt"})
    EXPECT_TRUE(std::filesystem::exists(folder_ / "tok" / name)) << name;
  ended = call({"tokenizer", "train", "--data", "texts.jsonl", "--out", "tok2", "--limit", "1"});
  EXPECT_NE(ended.out.find("1 texts"), std::string::npos) << ended.out;
  ended = call({"tokenizer", "train", "--data", "train.jsonl", "--out", "tok3"});
  EXPECT_EQ(ended.code, 1);
  EXPECT_NE(ended.err.find("train.jsonl:1: \"text\" is missing; expected a string"), std::string::npos) << ended.err;
  EXPECT_EQ(call({"tokenizer", "train", "--data", "texts.jsonl", "--out", "tok3", "--vocab_size", "9"}).code, 1);
  EXPECT_EQ(call({"tokenizer", "train", "--out", "tok3"}).code, 2);
  EXPECT_FALSE(std::filesystem::exists(folder_ / "tok3"));
}

}  // namespace
}  // namespace troupe
