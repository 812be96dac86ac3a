// Multiple-choice questions as the usual benchmarks store them.
//
//   C-Eval  id,question,A,B,C,D,answer[,explanation]    FOLDER/{dev,val}/SUBJECT_{dev,val}.csv
//   CMMLU   ,Question,A,B,C,D,Answer                    FOLDER/{dev,test}/SUBJECT.csv
//   MMLU    no header: question,A,B,C,D,answer          FOLDER/{dev,val,test}/SUBJECT_{dev,val,test}.csv
//   JSONL   {"question": "...", "choices": ["...", ...], "answer": "B" or 1 (counted from 0), "subject": "..."}
//           or with "A", "B", ... instead of "choices"; "subject" is optional
//
// Which of the CSV layouts a file has is seen from its first line. Errors are std::runtime_error naming file and line.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace troupe {

struct ChoiceQuestion {
  std::string question;              // white space around it removed, as around the options
  std::vector<std::string> options;  // 2 to 26
  int64_t answer = 0;                // index of the right one
  int64_t line = 0;                  // 1-based in its file
};

struct ChoiceSubject {
  std::string name;
  std::filesystem::path file;
  std::vector<ChoiceQuestion> questions;  // at least one
  std::vector<ChoiceQuestion> examples;   // the first `shots` of its dev split, answers known
};

enum class ChoiceLayout { kCEval, kCmmlu, kMmlu, kJsonLines };
const char* choice_layout_name(ChoiceLayout layout);

struct ChoiceData {
  ChoiceLayout layout = ChoiceLayout::kJsonLines;
  std::vector<ChoiceSubject> subjects;  // by name
};

// `data`: a file, or a folder with one file a subject, in it or in the subfolder that `split` names ("": val for
// C-Eval, whose test answers are not public, test for the others). Examples come from the folder "dev" beside the
// split's folder.
ChoiceData read_choice_data(const std::filesystem::path& data, const std::string& split, int64_t shots);

}  // namespace troupe
