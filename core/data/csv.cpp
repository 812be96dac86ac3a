#include "core/data/csv.hpp"

#include <stdexcept>

#include "core/io/disk.hpp"

namespace troupe {
namespace {

class CsvParser {
 public:
  CsvParser(std::string_view text, const std::string& origin) : text_(text), origin_(origin) {
    if (text_.starts_with("\xEF\xBB\xBF")) text_.remove_prefix(3);
  }

  std::vector<CsvRecord> records() {
    std::vector<CsvRecord> out;
    while (at_ < text_.size()) {
      if (take_line_end()) continue;
      out.push_back(record());
    }
    return out;
  }

 private:
  [[noreturn]] void refuse(int64_t line, const std::string& why) const {
    throw std::runtime_error(origin_ + ":" + std::to_string(line) + ": " + why);
  }
  bool at_end() const { return at_ == text_.size(); }

  bool take_line_end() {
    const size_t length = text_.substr(at_, 2) == "\r\n" ? 2 : !at_end() && text_[at_] == '\n' ? 1 : 0;
    at_ += length;
    line_ += length > 0;
    return length > 0;
  }

  CsvRecord record() {
    CsvRecord out{.fields = {}, .line = line_};
    while (true) {
      out.fields.push_back(!at_end() && text_[at_] == '"' ? quoted_field() : plain_field());
      if (at_end() || take_line_end()) return out;
      if (text_[at_] != ',') refuse(line_, "a closing quote is followed by something else than a comma or a line end");
      ++at_;
    }
  }

  std::string plain_field() {
    const size_t begin = at_;
    while (!at_end() && text_[at_] != ',' && text_[at_] != '\n' && text_.substr(at_, 2) != "\r\n") {
      if (text_[at_] == '"') refuse(line_, "a quote inside a field that is not quoted; expected \"...\" around it all");
      ++at_;
    }
    return std::string(text_.substr(begin, at_ - begin));
  }

  std::string quoted_field() {
    const int64_t opened = line_;
    std::string out;
    for (++at_; !at_end(); ++at_) {
      if (text_[at_] == '"') {
        if (text_.substr(at_, 2) != "\"\"") {
          ++at_;
          return out;
        }
        ++at_;
      }
      line_ += text_[at_] == '\n';
      out += text_[at_];
    }
    refuse(opened, "a quoted field that begins here is never closed");
  }

  std::string_view text_;
  const std::string& origin_;
  size_t at_ = 0;
  int64_t line_ = 1;
};

}  // namespace

std::vector<CsvRecord> parse_csv(std::string_view text, const std::string& origin) {
  return CsvParser(text, origin).records();
}

std::vector<CsvRecord> read_csv(const std::filesystem::path& file) {
  return parse_csv(read_file(real_disk(), file, 256u << 20), file.string());
}

}  // namespace troupe
