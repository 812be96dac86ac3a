#include "core/data/json_records.hpp"

#include <stdexcept>

#include "core/data/jsonl.hpp"

namespace troupe {

Json parse_json_line(std::string_view line, const std::string& where, const JsonLimits& limits) {
  try {
    return parse_json(line, where, limits);
  } catch (const std::invalid_argument& error) {
    // "FILE:17:1:5: reason": the 1 is the line within our one line.
    std::string what = error.what();
    if (what.starts_with(where + ":1:")) what.erase(where.size(), 2);
    throw std::runtime_error(what);
  }
}

void for_each_json_record(const std::filesystem::path& file,
                          const std::function<void(const Json&, const std::string&, int64_t)>& use) {
  const JsonLines lines(file);
  for (int64_t i = 0; i < lines.size(); ++i) {
    const std::string where = lines.where(i);
    const Json object = parse_json_line(lines.line(i), where);
    if (!object.is_object())
      throw std::runtime_error(where + ": expected a JSON object, found " + detail::found(object));
    use(object, where, lines.line_number(i));
  }
}

std::string record_text(const Json& object, const std::string& key, const std::string& where) {
  const auto value = object.find(key);
  if (value == object.end()) throw std::runtime_error(where + ": \"" + key + "\" is missing; expected a string");
  if (!value->is_string())
    throw std::runtime_error(where + ": \"" + key + "\": expected a string, found " + detail::found(*value));
  return *value;
}

}  // namespace troupe
