// Where in a response its answer stands. Views point into the text given. Pure, thread-safe.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace troupe {

// What stands between the last <tag> that has a </tag> after it and that </tag>.
std::optional<std::string_view> inside_tag(std::string_view text, std::string_view tag);

// The inside of the last \boxed{...} (or \fbox{...}) whose braces are balanced.
std::optional<std::string_view> inside_boxed(std::string_view text);

// What follows the last '='.
std::optional<std::string_view> after_equals(std::string_view text);

// The last line that is not white space alone.
std::string_view last_line(std::string_view text);

// Without ASCII white space at both ends.
std::string_view trimmed(std::string_view text);

// At most the first 60 bytes, whole characters, with "..." where it was cut: for messages.
std::string beginning(std::string_view text);

// How often `part` occurs in `text`, not overlapping.
int64_t occurrences(std::string_view text, std::string_view part);

}  // namespace troupe
