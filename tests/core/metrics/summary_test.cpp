#include "core/metrics/summary.hpp"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/core/metrics/scratch_folder.hpp"

namespace troupe {
namespace {

TEST(Summary, MergesKeysAndKeepsTheOthers) {
  const ScratchFolder folder;
  EXPECT_EQ(read_summary(folder.path()), nlohmann::json::object());
  merge_summary(folder.path(), {{"accuracy_before", 0.36}, {"state", "running"}});
  merge_summary(folder.path(), {{"accuracy_after", 0.8}, {"state", "done"}, {"absent", nullptr}});
  EXPECT_EQ(read_summary(folder.path()),
            (nlohmann::json{{"accuracy_before", 0.36}, {"accuracy_after", 0.8}, {"state", "done"}}));
}

TEST(Summary, RefusesWhatIsNoObject) {
  const ScratchFolder folder;
  EXPECT_THROW(merge_summary(folder.path(), nlohmann::json::array()), std::invalid_argument);
  write_text(folder / "summary.json", "[1]");
  EXPECT_THROW(merge_summary(folder.path(), {{"steps", 1}}), std::runtime_error);
  EXPECT_EQ(text_of(folder / "summary.json"), "[1]");
}

}  // namespace
}  // namespace troupe
