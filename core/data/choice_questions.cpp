#include "core/data/choice_questions.hpp"

#include <algorithm>
#include <array>
#include <map>
#include <optional>
#include <stdexcept>

#include "core/data/csv.hpp"
#include "core/data/json_records.hpp"
#include "core/io/disk.hpp"

namespace troupe {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxOptions = 26;
constexpr size_t kCsvOptions = 4;

[[noreturn]] void refuse(const std::string& where, const std::string& why) {
  throw std::runtime_error(where + ": " + why);
}

std::string at_line(const fs::path& file, int64_t line) {
  return file.string() + ":" + std::to_string(line);
}

std::string trimmed(const std::string& text) {
  const size_t first = text.find_first_not_of(" \t\r\n");
  return first == text.npos ? "" : text.substr(first, text.find_last_not_of(" \t\r\n") - first + 1);
}

std::string lower(std::string text) {
  for (char& c : text)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return text;
}

// "B" or "b" -> 1; none for anything else.
std::optional<int64_t> letter_index(const std::string& text, size_t num_options) {
  const std::string letter = lower(trimmed(text));
  if (letter.size() != 1 || letter[0] < 'a' || static_cast<size_t>(letter[0] - 'a') >= num_options) return std::nullopt;
  return letter[0] - 'a';
}

struct QuestionFile {
  ChoiceLayout layout;
  std::vector<ChoiceQuestion> questions;
  std::vector<std::string> subjects;  // JSONL: of each question, "" where the line names none
};

// ---- CSV ------------------------------------------------------------------------------------------------------------

// Where each part of a question stands in a record.
struct Columns {
  ChoiceLayout layout;
  size_t question = 0, answer = 0, count = 0;
  size_t options[kCsvOptions] = {};
  bool header = true;
};

using Header = std::map<std::string, size_t>;

Header header_of(const CsvRecord& first) {
  Header header;
  for (size_t i = 0; i < first.fields.size(); ++i) header.emplace(lower(trimmed(first.fields[i])), i);
  return header;
}

bool names(const Header& header, std::initializer_list<const char*> columns) {
  return std::ranges::all_of(columns, [&](const char* column) { return header.contains(column); });
}

Columns columns_of(const CsvRecord& first, const fs::path& file) {
  const Header header = header_of(first);
  if (names(header, {"question", "a", "b", "c", "d"})) {
    if (!names(header, {"answer"}))
      refuse(at_line(file, first.line), "no column \"answer\": a split without answers can't be scored");
    Columns c{.layout = names(header, {"id"}) ? ChoiceLayout::kCEval : ChoiceLayout::kCmmlu,
              .question = header.at("question"),
              .answer = header.at("answer"),
              .count = first.fields.size()};
    for (size_t i = 0; i < kCsvOptions; ++i) c.options[i] = header.at(std::string(1, static_cast<char>('a' + i)));
    return c;
  }
  if (first.fields.size() != 6 || !letter_index(first.fields[5], kCsvOptions))
    refuse(at_line(file, first.line),
           "expected a header with question, A, B, C, D, answer (C-Eval, CMMLU) or, without a header, question, four "
           "options and the letter of the right one (MMLU); found " +
               std::to_string(first.fields.size()) + " fields");
  return {
      .layout = ChoiceLayout::kMmlu, .question = 0, .answer = 5, .count = 6, .options = {1, 2, 3, 4}, .header = false};
}

QuestionFile read_csv_questions(const fs::path& file) {
  const std::vector<CsvRecord> records = read_csv(file);
  if (records.empty()) refuse(file.string(), "holds no question");
  const Columns columns = columns_of(records[0], file);
  QuestionFile out{columns.layout, {}, {}};
  for (size_t i = columns.header ? 1 : 0; i < records.size(); ++i) {
    const CsvRecord& record = records[i];
    const std::string where = at_line(file, record.line);
    if (record.fields.size() != columns.count)
      refuse(where, std::to_string(record.fields.size()) + " fields, expected " + std::to_string(columns.count) +
                        " as in the first line");
    ChoiceQuestion question{.question = trimmed(record.fields[columns.question]), .options = {}, .line = record.line};
    for (const size_t place : columns.options) question.options.push_back(trimmed(record.fields[place]));
    const auto answer = letter_index(record.fields[columns.answer], kCsvOptions);
    if (!answer)
      refuse(where, "the answer is \"" + record.fields[columns.answer] +
                        "\", expected A, B, C or D (a split without answers can't be scored)");
    question.answer = *answer;
    out.questions.push_back(std::move(question));
  }
  return out;
}

// ---- JSON lines -----------------------------------------------------------------------------------------------------

std::vector<std::string> options_of(const Json& object, const std::string& where) {
  std::vector<std::string> options;
  if (object.contains("choices")) {
    if (!object["choices"].is_array()) refuse(where, "\"choices\": expected a list of strings");
    for (const Json& option : object["choices"]) {
      if (!option.is_string()) refuse(where, "\"choices\": expected a list of strings");
      options.push_back(trimmed(option));
    }
  } else {
    for (char letter = 'A'; letter <= 'Z' && object.contains(std::string(1, letter)); ++letter)
      options.push_back(trimmed(record_text(object, std::string(1, letter), where)));
  }
  if (options.size() < 2 || options.size() > kMaxOptions)
    refuse(where, std::to_string(options.size()) + " options, expected 2 to 26 in \"choices\" or as \"A\", \"B\", ...");
  return options;
}

ChoiceQuestion question_of(const Json& object, const std::string& where, int64_t line) {
  ChoiceQuestion question{
      .question = trimmed(record_text(object, "question", where)), .options = options_of(object, where), .line = line};
  const auto count = static_cast<int64_t>(question.options.size());
  const Json answer = object.contains("answer") ? object["answer"] : Json();
  std::optional<int64_t> index;
  if (answer.is_number_integer() && answer >= 0 && answer < count) index = answer.get<int64_t>();
  if (answer.is_string()) index = letter_index(answer, question.options.size());
  if (!index)
    refuse(where, "\"answer\": expected a letter from A to " + std::string(1, static_cast<char>('A' + count - 1)) +
                      " or a number from 0 to " + std::to_string(count - 1) + ", found " + detail::found(answer));
  question.answer = *index;
  return question;
}

QuestionFile read_json_questions(const fs::path& file) {
  QuestionFile out{ChoiceLayout::kJsonLines, {}, {}};
  for_each_json_record(file, [&](const Json& object, const std::string& where, int64_t line) {
    out.questions.push_back(question_of(object, where, line));
    out.subjects.push_back(object.contains("subject") ? record_text(object, "subject", where) : "");
  });
  return out;
}

// ---- files and folders ----------------------------------------------------------------------------------------------

QuestionFile read_questions(const fs::path& file) {
  QuestionFile read;
  if (file.extension() == ".csv")
    read = read_csv_questions(file);
  else if (file.extension() == ".jsonl")
    read = read_json_questions(file);
  else
    refuse(file.string(), "expected a .csv or .jsonl file");
  if (read.questions.empty()) refuse(file.string(), "holds no question");
  return read;
}

std::vector<fs::path> question_files(const fs::path& folder) {
  std::vector<fs::path> files;
  for (const std::string& name : real_disk().list(folder))
    if (name.ends_with(".csv") || name.ends_with(".jsonl")) files.push_back(folder / name);
  return files;
}

// "logic_val.csv" -> "logic"
std::string subject_name(const fs::path& file) {
  const std::string stem = file.stem().string();
  for (const char* split : {"_dev", "_val", "_test"})
    if (stem.ends_with(split)) return stem.substr(0, stem.size() - std::string_view(split).size());
  return stem;
}

// Its test split has no answers.
bool is_ceval(const fs::path& file) {
  if (file.extension() != ".csv") return false;
  const std::vector<CsvRecord> records = read_csv(file);
  return !records.empty() && names(header_of(records[0]), {"id", "question", "a"});
}

std::vector<fs::path> chosen_files(const fs::path& data, const std::string& split) {
  if (!fs::exists(data)) refuse(data.string(), "no such file or folder");
  if (!fs::is_directory(data)) return {data};
  if (!split.empty()) {
    if (!fs::is_directory(data / split)) refuse((data / split).string(), "no such folder: the split is not there");
    return question_files(data / split);
  }
  if (auto files = question_files(data); !files.empty()) return files;
  for (const char* guess : {"test", "val"}) {
    if (!fs::is_directory(data / guess)) continue;
    auto files = question_files(data / guess);
    if (files.empty() || (std::string_view(guess) == "test" && is_ceval(files[0]))) continue;
    return files;
  }
  refuse(data.string(), "holds no .csv or .jsonl file, nor a folder test or val with such files");
}

std::vector<ChoiceQuestion> examples_of(const ChoiceSubject& subject, ChoiceLayout layout, int64_t shots) {
  if (shots == 0) return {};
  const fs::path dev = fs::absolute(subject.file).parent_path().parent_path() / "dev";
  const std::string extension = subject.file.extension();
  for (const std::string& name : {subject.name + "_dev" + extension, subject.name + extension}) {
    if (!fs::exists(dev / name)) continue;
    QuestionFile read = read_questions(dev / name);
    if (read.layout != layout)
      refuse((dev / name).string(), std::string("is laid out as ") + choice_layout_name(read.layout) + ", " +
                                        subject.file.string() + " as " + choice_layout_name(layout));
    if (static_cast<int64_t>(read.questions.size()) < shots)
      refuse((dev / name).string(), "holds " + std::to_string(read.questions.size()) + " examples, " +
                                        std::to_string(shots) + " are asked for");
    read.questions.resize(static_cast<size_t>(shots));
    return std::move(read.questions);
  }
  refuse((dev / (subject.name + "_dev" + extension)).string(), "is not there; examples (--shots) come from it");
}

}  // namespace

const char* choice_layout_name(ChoiceLayout layout) {
  switch (layout) {
    case ChoiceLayout::kCEval:
      return "C-Eval";
    case ChoiceLayout::kCmmlu:
      return "CMMLU";
    case ChoiceLayout::kMmlu:
      return "MMLU";
    case ChoiceLayout::kJsonLines:
      return "JSON lines";
  }
  return "?";
}

ChoiceData read_choice_data(const fs::path& data, const std::string& split, int64_t shots) {
  ChoiceData out;
  std::map<std::string, ChoiceSubject> subjects;
  bool first = true;
  for (const fs::path& file : chosen_files(data, split)) {
    QuestionFile read = read_questions(file);
    if (!first && read.layout != out.layout)
      refuse(file.string(), std::string("is laid out as ") + choice_layout_name(read.layout) +
                                ", the files before it as " + choice_layout_name(out.layout));
    out.layout = read.layout;
    first = false;
    for (size_t i = 0; i < read.questions.size(); ++i) {
      const bool named = !read.subjects.empty() && !read.subjects[i].empty();
      const std::string name = named ? read.subjects[i] : subject_name(file);
      ChoiceSubject& subject = subjects[name];
      subject.name = name;
      subject.file = file;
      subject.questions.push_back(std::move(read.questions[i]));
    }
  }
  if (subjects.empty()) refuse(data.string(), "holds no questions");
  for (auto& [name, subject] : subjects) {
    subject.examples = examples_of(subject, out.layout, shots);
    out.subjects.push_back(std::move(subject));
  }
  return out;
}

}  // namespace troupe
