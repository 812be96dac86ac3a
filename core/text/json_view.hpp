// A JSON value that knows where it stands, so that each complaint names file and path. Internal to core/text's .cpp
// files.
#pragma once

#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <string_view>

namespace troupe {

class JsonView {
 public:
  JsonView(const nlohmann::json& value, std::string path) : value_(value), path_(std::move(path)) {}

  [[noreturn]] void refuse(std::string_view reason) const {
    throw std::runtime_error(path_ + (path_.ends_with(": ") ? "" : ": ") + std::string(reason));
  }

  const nlohmann::json& value() const { return value_; }
  const std::string& path() const { return path_; }
  bool is_null() const { return value_.is_null(); }

  // Absent and null are the same here.
  bool has(const char* key) const {
    if (!value_.is_object()) refuse("expected an object");
    const auto found = value_.find(key);
    return found != value_.end() && !found->is_null();
  }
  JsonView operator[](const char* key) const {
    if (!has(key)) refuse(std::string("key '") + key + "' is missing");
    return JsonView(value_[key], path_ + (path_.ends_with(": ") ? "" : ".") + key);
  }

  const std::string& string() const {
    if (!value_.is_string()) refuse("expected a string");
    return value_.get_ref<const std::string&>();
  }
  bool boolean(const char* key, bool absent) const {
    if (!has(key)) return absent;
    const JsonView child = (*this)[key];
    if (!child.value_.is_boolean()) child.refuse("expected true or false");
    return child.value_.get<bool>();
  }
  // An integer in [0, limit).
  int64_t index(int64_t limit) const {
    const bool fits =
        value_.is_number_integer() && (!value_.is_number_unsigned() || value_.get<uint64_t>() < INT64_MAX);
    const int64_t number = fits ? value_.get<int64_t>() : -1;
    if (number < 0 || number >= limit) refuse("expected an integer from 0 to " + std::to_string(limit - 1));
    return number;
  }
  template <typename Visit>
  void for_each(Visit visit) const {
    if (!value_.is_array()) refuse("expected an array");
    for (size_t i = 0; i < value_.size(); ++i) visit(JsonView(value_[i], path_ + "[" + std::to_string(i) + "]"));
  }

 private:
  const nlohmann::json& value_;
  std::string path_;
};

}  // namespace troupe
