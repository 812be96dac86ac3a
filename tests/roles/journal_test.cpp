// `troupe journal` on what a real run left, and on the same spoilt.
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>

#include "roles/ledger.hpp"
#include "roles/run_journal.hpp"
#include "tests/roles/run_fixture.hpp"
#include "tests/support/command.hpp"

namespace troupe {
namespace {

namespace fs = std::filesystem;
constexpr int kSteps = 5;

// A copy of the undisturbed run, to spoil.
class Copy {
 public:
  Copy() {
    fs::copy(undisturbed(kSteps).folder(), folder_.path() / "run", fs::copy_options::recursive);
    // Its name stands in its checkpoints.
    fs::rename(folder_.path() / "run", run());
  }
  fs::path run() const { return folder_.path() / undisturbed(kSteps).folder().filename(); }
  fs::path segment() const { return run() / "journal" / "00000000000000000000.log"; }
  Ended journal(std::vector<std::string> more = {}) const {
    more.insert(more.begin(), {"journal", run().string()});
    return call(more);
  }

 private:
  ScratchFolder folder_;
};

void flip(const fs::path& file, std::streamoff at) {
  std::fstream bytes(file, std::ios::in | std::ios::out | std::ios::binary);
  bytes.seekg(at);
  const int byte = bytes.peek();
  bytes.seekp(at);
  bytes.put(static_cast<char>(byte ^ 4));
}

TEST(JournalCommand, SummarisesAndExportsEverySample) {
  const Copy copy;
  const fs::path out = copy.run() / "samples.jsonl";
  const Ended ended = copy.journal({"--check", "--export", out.string(), "--tokens"});
  ASSERT_EQ(ended.code, 0) << ended.err;
  EXPECT_NE(ended.out.find("5 steps, 320 samples of 40 draws"), std::string::npos) << ended.out;
  EXPECT_NE(ended.out.find("every invariant holds"), std::string::npos) << ended.out;

  const std::vector<Experience> batches = read_experiences(copy.run() / "journal");
  std::ifstream in(out);
  std::string text;
  uint64_t lines = 0;
  double rewards = 0, expected_rewards = 0;
  for (; std::getline(in, text); ++lines) {
    const auto line = nlohmann::json::parse(text);
    const Experience& batch = batches.at(lines / 64);
    const std::size_t i = lines % 64;
    EXPECT_EQ(line["step"], batch.step);
    EXPECT_EQ(line["draw"], batch.draws[i]);
    EXPECT_EQ(line["sample"], batch.samples[i]);
    EXPECT_EQ(line["answer_ids"].size(), line["answer_tokens"]);
    EXPECT_EQ(line["logprobs"].size(), line["answer_tokens"]);
    EXPECT_NE(line["prompt"].get<std::string>().find("What is"), std::string::npos) << text;
    EXPECT_EQ(line["versions"], (std::vector<uint64_t>{batch.step - 1, batch.step - 1}));
    rewards += line["reward"].get<double>();
    expected_rewards += static_cast<double>(batch.rewards.as<float>()[i]);
  }
  EXPECT_EQ(lines, 320u);
  EXPECT_NEAR(rewards, expected_rewards, 1e-4);
}

TEST(JournalCommand, ExportsIntoDevicesAndWhereLinksLead) {
  const Copy copy;
  const fs::path file = copy.run() / "samples.jsonl", link = copy.run() / "link", full = copy.run() / "full";
  write_text(file, "old");
  fs::create_symlink("samples.jsonl", link);
  EXPECT_EQ(copy.journal({"--export", link.string()}).code, 0);
  EXPECT_TRUE(fs::is_symlink(link));
  EXPECT_GT(fs::file_size(file), 1000u);
  fs::create_symlink("/dev/full", full);  // never the device itself: a fault would replace it
  const Ended ended = copy.journal({"--export", full.string()});
  EXPECT_EQ(ended.code, 1);
  EXPECT_NE(ended.err.find("full: cannot be written to its end"), std::string::npos) << ended.err;
  EXPECT_TRUE(fs::is_symlink(full));
  EXPECT_NE(copy.journal({"--export", copy.run()}).err.find("is a folder, expected a file"), std::string::npos);
  for (const auto& entry : fs::directory_iterator(copy.run())) EXPECT_NE(entry.path().extension(), ".tmp");
}

// Beside the journal: the other commands that write into a folder of the user's choice.
TEST(ExportAndReplay, WriteOverNoRun) {
  const Copy copy;
  const std::string run = copy.run().string();
  for (const std::vector<std::string>& words : std::vector<std::vector<std::string>>{
           {"export", run, "--to", run}, {"replay", run, "--step", "1", "--export", run}}) {
    const Ended ended = call(words);
    EXPECT_EQ(ended.code, 1);
    EXPECT_NE(ended.err.find(run + " holds .lock, which is no part of a model"), std::string::npos) << ended.err;
    EXPECT_TRUE(fs::exists(copy.segment()));
  }
  EXPECT_EQ(call({"export", run, "--to", run + "/export"}).code, 0) << "a run's own export may be written again";
}

TEST(JournalCommand, NamesSegmentAndOffsetOfDamageAndFails) {
  const Copy copy;
  flip(copy.segment(), 200);
  const Ended ended = copy.journal({"--export", (copy.run() / "no.jsonl").string()});
  EXPECT_EQ(ended.code, 1);
  EXPECT_NE(ended.err.find("00000000000000000000.log is damaged at offset 0"), std::string::npos) << ended.err;
  EXPECT_FALSE(fs::exists(copy.run() / "no.jsonl"));
}

TEST(JournalCommand, ATornTailIsToldAndNoDamage) {
  const Copy copy;
  std::ofstream(copy.segment(), std::ios::app | std::ios::binary) << "half a record";
  const Ended ended = copy.journal();
  EXPECT_EQ(ended.code, 0) << ended.err;
  EXPECT_NE(ended.out.find("torn tail: 13 bytes"), std::string::npos) << ended.out;
}

TEST(Ledger, FindsEveryKindOfFalseEntry) {
  const auto violations_after = [](const auto& spoil) {
    const Copy copy;
    spoil(copy);
    const Ledger ledger = check_ledger(copy.run());
    std::string all;
    for (const std::string& line : ledger.violations) all += line + "\n";
    return all;
  };
  // Writes the journal anew with the batches changed.
  const auto rewrite = [](const Copy& copy, const auto& change) {
    std::vector<Experience> batches = read_experiences(copy.run() / "journal");
    change(batches);
    fs::remove_all(copy.run() / "journal");
    Journal journal(real_disk(), copy.run() / "journal");
    for (const Experience& batch : batches) journal.append(kExperienceRecord, experience_payload(batch));
    journal.sync();
  };
  const auto expect_named = [](const std::string& said, const std::string& what) {
    EXPECT_NE(said.find(what), std::string::npos) << "expected '" << what << "' in:\n" << said;
  };
  EXPECT_EQ(violations_after([](const Copy&) {}), "");
  expect_named(violations_after([&](const Copy& c) { rewrite(c, [](auto& b) { b.erase(b.begin() + 2); }); }),
               "step 4 where step 3 was expected");
  expect_named(violations_after([&](const Copy& c) { rewrite(c, [](auto& b) { b.push_back(b.back()); }); }),
               "draw 32 sample 0 is in step 5");
  expect_named(violations_after([&](const Copy& c) { rewrite(c, [](auto& b) { b[3].draws[5] = 999; }); }),
               "draw 999 sample 5 is in step 4");
  expect_named(violations_after([&](const Copy& c) {
                 rewrite(c, [](auto& b) {
                   std::vector<int32_t> versions(static_cast<std::size_t>(b[3].versions.numel()), 1);
                   b[3].versions = Attachment::of(std::move(versions));
                 });
               }),
               "step 4 trains on tokens of versions 1 to 1, expected 3 to 3");
  expect_named(violations_after([](const Copy& c) {
                 std::ifstream in(c.run() / "metrics.jsonl");
                 std::string text, kept;
                 for (int i = 0; std::getline(in, text); ++i)
                   if (i != 1) kept += text + "\n";
                 in.close();
                 std::ofstream(c.run() / "metrics.jsonl") << kept;
               }),
               "metrics.jsonl: step 3 where step 2 was expected");
  expect_named(violations_after([](const Copy& c) {
                 for (const auto& entry : fs::directory_iterator(c.run() / "checkpoints"))
                   flip(entry.path() / "learner.safetensors",
                        -9 + static_cast<std::streamoff>(fs::file_size(entry.path() / "learner.safetensors")));
               }),
               "learner.safetensors: chunk 0 of 1 is damaged");
  expect_named(violations_after([](const Copy& c) { fs::resize_file(c.segment(), fs::file_size(c.segment()) - 5); }),
               "is of a step that the journal does not hold");
}

}  // namespace
}  // namespace troupe
