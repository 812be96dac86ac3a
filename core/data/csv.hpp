// Comma-separated values, strictly as RFC 4180 has them: fields in double quotes may hold commas, line ends and doubled
// quotes; a quote anywhere else is an error. LF and CRLF end a record; a byte-order mark at the start and records
// without any character are passed over.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace troupe {

struct CsvRecord {
  std::vector<std::string> fields;
  int64_t line = 0;  // 1-based, where it starts
};

// Throws std::runtime_error "ORIGIN:LINE: what is wrong".
std::vector<CsvRecord> parse_csv(std::string_view text, const std::string& origin);
// Files up to 256 MiB.
std::vector<CsvRecord> read_csv(const std::filesystem::path& file);

}  // namespace troupe
