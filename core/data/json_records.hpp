// The objects of a JSON-lines file, one after another: for files that are read once from front to back.
// A byte-order mark, CRLF and blank lines are passed over.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>

#include "core/config.hpp"

namespace troupe {

// `where` is "FILE:LINE", for messages. Throws std::runtime_error naming file, line and column for a file that can't be
// read and a line that is no JSON object.
void for_each_json_record(const std::filesystem::path& file,
                          const std::function<void(const Json& object, const std::string& where, int64_t line)>& use);

// The string under a key. Throws std::runtime_error naming `where` and the key.
std::string record_text(const Json& object, const std::string& key, const std::string& where);

}  // namespace troupe
