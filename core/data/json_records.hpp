// Lines of a JSON-lines file as JSON. `where` is "FILE:LINE", for messages.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>

#include "core/config.hpp"

namespace troupe {

// One line. Throws std::runtime_error "FILE:LINE:COLUMN: what is wrong".
Json parse_json_line(std::string_view line, const std::string& where, const JsonLimits& limits = {});

// The objects of a file, one after another. Throws std::runtime_error naming file, line and column for a file that
// can't be read or holds no line, and for a line that is no JSON object.
void for_each_json_record(const std::filesystem::path& file,
                          const std::function<void(const Json& object, const std::string& where, int64_t line)>& use);

// The string under a key. Throws std::runtime_error naming `where` and the key.
std::string record_text(const Json& object, const std::string& key, const std::string& where);

}  // namespace troupe
