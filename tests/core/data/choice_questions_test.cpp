#include "core/data/choice_questions.hpp"

#include <gtest/gtest.h>

#include "tests/core/metrics/scratch_folder.hpp"

namespace troupe {
namespace {

using Options = std::vector<std::string>;

class ChoiceFiles : public testing::Test {
 protected:
  std::filesystem::path put(const std::string& name, const std::string& text) {
    const std::filesystem::path file = folder_ / name;
    std::filesystem::create_directories(file.parent_path());
    write_text(file, text);
    return file;
  }
  std::string refusal(const std::filesystem::path& data, const std::string& split = "", int64_t shots = 0) {
    try {
      read_choice_data(data, split, shots);
    } catch (const std::runtime_error& error) {
      const std::string what = error.what(), root = folder_.path().string() + "/";
      return what.starts_with(root) ? what.substr(root.size()) : what;
    }
    return "";
  }
  ScratchFolder folder_;
};

TEST_F(ChoiceFiles, CEvalIsReadFromItsValFolderWithExamplesFromDev) {
  put("test/logic_test.csv", "id,question,A,B,C,D\n0,x,a,b,c,d\n");
  put("val/logic_val.csv", "id,question,A,B,C,D,answer\r\n0,\"下列, 哪个\",一,二,三,四,C\r\n1, y ,a,b,c,d,a\r\n");
  put("val/art_val.csv", "id,question,A,B,C,D,answer\n0,z,a,b,c,d,D\n");
  put("dev/logic_dev.csv",
      "id,question,A,B,C,D,answer,explanation\n0,e1,a,b,c,d,B,\"because,\nso\"\n1,e2,a,b,c,d,D,\n");
  put("dev/art_dev.csv", "id,question,A,B,C,D,answer,explanation\n0,e3,a,b,c,d,B,why\n");
  const ChoiceData data = read_choice_data(folder_.path(), "", 1);
  EXPECT_EQ(data.layout, ChoiceLayout::kCEval);
  ASSERT_EQ(data.subjects.size(), 2u);
  EXPECT_EQ(data.subjects[0].name, "art");
  const ChoiceSubject& logic = data.subjects[1];
  EXPECT_EQ(logic.name, "logic");
  ASSERT_EQ(logic.questions.size(), 2u);
  EXPECT_EQ(logic.questions[0].question, "下列, 哪个");
  EXPECT_EQ(logic.questions[0].options, (Options{"一", "二", "三", "四"}));
  EXPECT_EQ(logic.questions[0].answer, 2);
  EXPECT_EQ(logic.questions[1].question, "y");
  EXPECT_EQ(logic.questions[1].answer, 0);
  EXPECT_EQ(logic.questions[1].line, 3);
  ASSERT_EQ(logic.examples.size(), 1u);
  EXPECT_EQ(logic.examples[0].question, "e1");
  EXPECT_EQ(refusal(folder_.path(), "test"),
            "test/logic_test.csv:1: no column \"answer\": a split without answers can't be scored");
  EXPECT_EQ(refusal(folder_.path(), "", 2), "dev/art_dev.csv: holds 1 examples, 2 are asked for");
}

TEST_F(ChoiceFiles, CmmluHasACapitalisedHeaderAndAnIndexColumn) {
  put("test/anatomy.csv", ",Question,A,B,C,D,Answer\n0,q,1,2,3,4,D\n");
  put("dev/anatomy.csv", ",Question,A,B,C,D,Answer\n0,e,1,2,3,4,A\n");
  const ChoiceData data = read_choice_data(folder_.path(), "", 1);
  EXPECT_EQ(data.layout, ChoiceLayout::kCmmlu);
  ASSERT_EQ(data.subjects.size(), 1u);
  EXPECT_EQ(data.subjects[0].questions[0].answer, 3);
  EXPECT_EQ(data.subjects[0].examples[0].question, "e");
}

TEST_F(ChoiceFiles, MmluHasNoHeader) {
  put("test/law_test.csv", "\"Is it so, or\nnot?\",yes,no,maybe,none,B\nq2,a,b,c,d,D\n");
  put("val/law_val.csv", "v,a,b,c,d,A\n");
  put("dev/law_dev.csv", "e,a,b,c,d,C\n");
  const ChoiceData data = read_choice_data(folder_.path(), "", 1);
  EXPECT_EQ(data.layout, ChoiceLayout::kMmlu);
  ASSERT_EQ(data.subjects[0].questions.size(), 2u);
  EXPECT_EQ(data.subjects[0].questions[1].line, 3);
  EXPECT_EQ(read_choice_data(folder_.path(), "val", 0).subjects[0].questions[0].question, "v");
  EXPECT_EQ(refusal(folder_ / "test/law_test.csv", "", 5), "dev/law_dev.csv: holds 1 examples, 5 are asked for");
}

TEST_F(ChoiceFiles, JsonLinesNameTheirSubjects) {
  const auto file =
      put("mixed.jsonl", R"({"question": "q", "choices": ["x", "y", "z"], "answer": "c", "subject": "s2"})"
                         "\n\n"
                         R"({"question": "r", "A": "1", "B": "2", "answer": 0})"
                         "\n");
  const ChoiceData data = read_choice_data(file, "", 0);
  EXPECT_EQ(data.layout, ChoiceLayout::kJsonLines);
  ASSERT_EQ(data.subjects.size(), 2u);
  EXPECT_EQ(data.subjects[0].name, "mixed");
  EXPECT_EQ(data.subjects[0].questions[0].options, (Options{"1", "2"}));
  EXPECT_EQ(data.subjects[0].questions[0].line, 3);
  EXPECT_EQ(data.subjects[1].name, "s2");
  EXPECT_EQ(data.subjects[1].questions[0].answer, 2);
}

TEST_F(ChoiceFiles, WhatIsWrongIsNamedWithFileAndLine) {
  const std::string header = "id,question,A,B,C,D,answer\n";
  EXPECT_EQ(refusal(put("a.csv", header + "0,q,1,2,3,4\n")), "a.csv:2: 6 fields, expected 7 as in the first line");
  EXPECT_EQ(refusal(put("b.csv", header + "0,q,1,2,3,4,A\n1,q,1,2,3,4,E\n")),
            "b.csv:3: the answer is \"E\", expected A, B, C or D (a split without answers can't be scored)");
  EXPECT_EQ(refusal(put("c.csv", header)), "c.csv: holds no question");
  EXPECT_EQ(refusal(put("d.csv", "")), "d.csv: holds no question");
  EXPECT_EQ(refusal(put("e.csv", header + "0,\"q,1,2,3,4,A\n")),
            "e.csv:2: a quoted field that begins here is never closed");
  EXPECT_EQ(refusal(put("f.jsonl", R"({"question": "q", "choices": ["x", "y"], "answer": 2})")),
            "f.jsonl:1: \"answer\": expected a letter from A to B or a number from 0 to 1, found number 2");
  EXPECT_EQ(refusal(put("g.jsonl", R"({"question": "q", "choices": ["x"], "answer": 0})")),
            "g.jsonl:1: 1 options, expected 2 to 26 in \"choices\" or as \"A\", \"B\", ...");
  EXPECT_EQ(refusal(put("h.jsonl", "\n[1]\n")).substr(0, 36), "h.jsonl:2: expected a JSON object, f");
  EXPECT_EQ(refusal(put("j.csv", "id,frage,A,B,C,D,key\n0,q,1,2,3,4,A\n")).substr(0, 56),
            "j.csv:1: expected a header with question, A, B, C, D, an");
  EXPECT_EQ(refusal(put("i.txt", "x")), "i.txt: expected a .csv or .jsonl file");
  EXPECT_EQ(refusal(folder_ / "none"), "none: no such file or folder");
  EXPECT_EQ(refusal(folder_.path(), "val"), "val: no such folder: the split is not there");
  std::filesystem::create_directories(folder_ / "empty/test");
  EXPECT_NE(refusal(folder_ / "empty").find("holds no .csv or .jsonl file"), std::string::npos);
}

}  // namespace
}  // namespace troupe
