// A small file replaced as a whole: readers see the old text or the new one, also after a crash.
#pragma once

#include <filesystem>
#include <string_view>

namespace troupe {

// Written aside (".FILE.new"), synced, renamed, the folder synced. Throws std::runtime_error naming the file.
void replace_file(const std::filesystem::path& file, std::string_view text);

}  // namespace troupe
