#include "core/data/json_records.hpp"

#include <fstream>
#include <stdexcept>

namespace troupe {
namespace {

Json parsed(const std::string& line, const std::string& where) {
  try {
    return parse_json(line, where);
  } catch (const std::invalid_argument& error) {
    // "FILE:17:1:5: reason": the 1 is the line within our one line.
    std::string what = error.what();
    if (what.starts_with(where + ":1:")) what.erase(where.size(), 2);
    throw std::runtime_error(what);
  }
}

}  // namespace

void for_each_json_record(const std::filesystem::path& file,
                          const std::function<void(const Json&, const std::string&, int64_t)>& use) {
  std::ifstream in(file, std::ios::binary);
  if (!in || std::filesystem::is_directory(file)) throw std::runtime_error(file.string() + ": cannot be read");
  std::string line;
  for (int64_t number = 1; std::getline(in, line); ++number) {
    if (number == 1 && line.starts_with("\xEF\xBB\xBF")) line.erase(0, 3);
    if (line.find_first_not_of(" \t\r\v\f") == line.npos) continue;
    const std::string where = file.string() + ":" + std::to_string(number);
    const Json object = parsed(line, where);
    if (!object.is_object())
      throw std::runtime_error(where + ": expected a JSON object, found " + detail::found(object));
    use(object, where, number);
  }
  if (in.bad()) throw std::runtime_error(file.string() + ": reading failed");
}

std::string record_text(const Json& object, const std::string& key, const std::string& where) {
  const auto value = object.find(key);
  if (value == object.end()) throw std::runtime_error(where + ": \"" + key + "\" is missing; expected a string");
  if (!value->is_string())
    throw std::runtime_error(where + ": \"" + key + "\": expected a string, found " + detail::found(*value));
  return *value;
}

}  // namespace troupe
