#include "core/data/jsonl.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>

namespace troupe {
namespace {

// A file of its own for each test process.
class JsonLinesFile : public testing::Test {
 protected:
  void SetUp() override {
    file_ = std::filesystem::temp_directory_path() / ("troupe_jsonl_" + std::to_string(getpid()) + ".jsonl");
  }
  void TearDown() override { std::filesystem::remove(file_); }
  void write(const std::string& text) { std::ofstream(file_, std::ios::binary) << text; }
  std::string refusal() {
    try {
      JsonLines lines(file_);
    } catch (const std::runtime_error& error) {
      EXPECT_NE(std::string(error.what()).find(file_.string()), std::string::npos) << error.what();
      return error.what();
    }
    return "";
  }
  std::filesystem::path file_;
};

TEST_F(JsonLinesFile, PassesOverMarksBlanksAndCarriageReturns) {
  write("\xEF\xBB\xBF{\"a\":1}\r\n\n \t\r\n{\"b\":2}\n\n{\"c\":3}");
  const JsonLines lines(file_);
  ASSERT_EQ(lines.size(), 3);
  EXPECT_EQ(lines.line(0), "{\"a\":1}");
  EXPECT_EQ(lines.line(1), "{\"b\":2}");
  EXPECT_EQ(lines.line(2), "{\"c\":3}");
  EXPECT_EQ(lines.line_number(0), 1);
  EXPECT_EQ(lines.line_number(1), 4);
  EXPECT_EQ(lines.line_number(2), 6);
  EXPECT_EQ(lines.where(2), file_.string() + ":6");
  EXPECT_EQ(lines.file(), file_);
  EXPECT_THROW(lines.line(3), std::out_of_range);
  EXPECT_THROW(lines.line(-1), std::out_of_range);
}

TEST_F(JsonLinesFile, RefusesFilesWithoutALine) {
  for (const char* text : {"", "\n\n", " \r\n\t", "\xEF\xBB\xBF", "\xEF\xBB\xBF\n"}) {
    write(text);
    EXPECT_NE(refusal().find("holds no line"), std::string::npos);
  }
  std::filesystem::remove(file_);
  EXPECT_NE(refusal(), "");
  EXPECT_THROW(JsonLines(std::filesystem::temp_directory_path()), std::runtime_error);
}

TEST_F(JsonLinesFile, LongLinesAreWhole) {
  const std::string ten_megabytes(10 << 20, 'x');
  write("a\n" + ten_megabytes + "\nb");
  const JsonLines lines(file_);
  ASSERT_EQ(lines.size(), 3);
  EXPECT_EQ(lines.line(1), ten_megabytes);
  EXPECT_EQ(lines.line(2), "b");
}

TEST_F(JsonLinesFile, TellsItsProgress) {
  write([] {
    std::string text;
    for (int i = 0; i < 70; ++i) text += std::string((2 << 20) - 1, 'x') + "\n";
    return text;
  }());
  std::vector<uint64_t> seen;
  const JsonLines lines(file_, [&](uint64_t done, uint64_t total) {
    EXPECT_EQ(total, uint64_t{140} << 20);
    seen.push_back(done);
  });
  EXPECT_EQ(lines.size(), 70);
  EXPECT_EQ(seen, (std::vector<uint64_t>{uint64_t{64} << 20, uint64_t{128} << 20}));
}

TEST_F(JsonLinesFile, MovesWithItsLines) {
  write("one\ntwo\n");
  JsonLines first(file_);
  const std::string_view line = first.line(1);
  const JsonLines second(std::move(first));
  EXPECT_EQ(line, "two");
  EXPECT_EQ(second.line(1).data(), line.data());
}

}  // namespace
}  // namespace troupe
