#include "core/data/csv.hpp"

#include <gtest/gtest.h>

#include "tests/core/metrics/scratch_folder.hpp"

namespace troupe {
namespace {

using Fields = std::vector<std::string>;

std::string refusal(const std::string& text) {
  try {
    parse_csv(text, "x.csv");
  } catch (const std::runtime_error& error) {
    return error.what();
  }
  return "";
}

TEST(Csv, FieldsMayHoldCommasQuotesAndLineEnds) {
  const auto records = parse_csv(
      "\xEF\xBB\xBF"
      "a,\"b, c\",\"say \"\"x\"\"\"\r\n\"two\nlines\",,\n\n\"\",last",
      "x.csv");
  ASSERT_EQ(records.size(), 3u);
  EXPECT_EQ(records[0].fields, (Fields{"a", "b, c", "say \"x\""}));
  EXPECT_EQ(records[0].line, 1);
  EXPECT_EQ(records[1].fields, (Fields{"two\nlines", "", ""}));
  EXPECT_EQ(records[1].line, 2);
  EXPECT_EQ(records[2].fields, (Fields{"", "last"}));
  EXPECT_EQ(records[2].line, 5);
  EXPECT_TRUE(parse_csv("", "x.csv").empty());
}

TEST(Csv, ACarriageReturnAloneIsText) {
  EXPECT_EQ(parse_csv("a\rb,c", "x.csv")[0].fields, (Fields{"a\rb", "c"}));
}

TEST(Csv, WhatIsWrongIsNamedWithItsLine) {
  EXPECT_EQ(refusal("a\n\"open\nand on"), "x.csv:2: a quoted field that begins here is never closed");
  EXPECT_TRUE(refusal("a,b\"c").starts_with("x.csv:1: a quote inside a field")) << refusal("a,b\"c");
  EXPECT_TRUE(refusal("a\n\"x\"y,z").starts_with("x.csv:2: a closing quote")) << refusal("a\n\"x\"y,z");
}

}  // namespace
}  // namespace troupe
