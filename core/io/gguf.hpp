// GGUF, versions 2 and 3 (little-endian): the file format of llama.cpp, https://github.com/ggml-org/ggml/blob/master/
// docs/gguf.md. Every count, length, offset and product is checked against the file before it is used. Errors are
// std::runtime_error naming the file and the key or tensor. Immutable once open.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "core/io/disk.hpp"
#include "core/io/gguf_quants.hpp"
#include "core/text/gguf_vocabulary.hpp"

namespace troupe {

using GgufValue = std::variant<bool, uint64_t, int64_t, double, std::string, std::vector<bool>, std::vector<int64_t>,
                               std::vector<double>, std::vector<std::string>>;

struct GgufTensor {
  GgufType type;
  std::vector<int64_t> shape;  // row-major, as torch counts: the file's dimensions reversed
  uint64_t offset = 0;         // from the file's start
  uint64_t bytes = 0;
};

class GgufFile {
 public:
  explicit GgufFile(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return path_; }
  const std::map<std::string, GgufTensor, std::less<>>& tensors() const { return tensors_; }
  const std::map<std::string, GgufValue, std::less<>>& metadata() const { return metadata_; }

  // Typed access. get_*: the key must be there; find_*: none when it is absent. Another type than asked for throws, as
  // does an integer out of range. float32 values are read as their shortest decimal: 1e-05, not 9.99999974e-06.
  bool has(std::string_view key) const { return metadata_.contains(key); }
  std::string get_string(std::string_view key) const;
  int64_t get_integer(std::string_view key) const;
  double get_number(std::string_view key) const;
  std::optional<std::string> find_string(std::string_view key) const;
  std::optional<int64_t> find_integer(std::string_view key) const;
  std::optional<double> find_number(std::string_view key) const;
  std::optional<bool> find_bool(std::string_view key) const;
  std::vector<std::string> find_strings(std::string_view key) const;  // empty when absent
  std::vector<int64_t> find_integers(std::string_view key) const;     // empty when absent

  // The tensor as float32; `out` has as many elements.
  void read(const std::string& name, std::span<float> out) const;

 private:
  std::filesystem::path path_;
  std::shared_ptr<File> file_;
  std::map<std::string, GgufValue, std::less<>> metadata_;
  std::map<std::string, GgufTensor, std::less<>> tensors_;
};

// The tokenizer's keys, as they are.
GgufVocabulary gguf_vocabulary(const GgufFile& file);

}  // namespace troupe
