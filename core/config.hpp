// JSON into structs through their field lists (protocol/fields.hpp), and back. Strict: an unknown key, a missing
// Required<T>, a wrong type, a number out of range are errors; any other missing key keeps the default written in the
// struct. All errors of one document are reported together. No tensors here. Free functions, safe from any thread.
//
//   const JsonFile file = read_config_file("configs/x.json");
//   const Topology topology = from_json<Topology>(file.value, file.where);   // throws ConfigErrors
//
// Types of fields: bool, integers, float and double, std::string, std::vector<T>, std::map<std::string, T>,
// std::optional<T> (null: none), enums with an EnumNames table, Fielded structs, Required<T> of any of these, and Json
// itself (kept as it is, checked by whoever reads it later).
#pragma once

#include <array>
#include <cmath>
#include <filesystem>
#include <limits>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "protocol/fields.hpp"

// Compiled once, in config.cpp, instead of in every file that reads or writes JSON.
extern template class nlohmann::basic_json<>;
extern template class nlohmann::basic_json<nlohmann::ordered_map>;

namespace troupe {

using Json = nlohmann::json;                 // keys sorted
using OrderedJson = nlohmann::ordered_json;  // keys in the order they were added

// ---- parsing --------------------------------------------------------------------------------------------------------

struct JsonLimits {
  std::size_t max_bytes = 64u << 20;
  int max_depth = 64;
};

// Line of each value by its path ("nodes[2].config.lr").
using JsonLineNumbers = std::map<std::string, int, std::less<>>;

// Strict JSON: no comments, no duplicate keys, no trailing bytes, valid UTF-8. Throws std::invalid_argument
// "ORIGIN:LINE:COLUMN: reason". `lines`, when given, is filled.
Json parse_json(std::string_view text, const std::string& origin, const JsonLimits& limits = {},
                JsonLineNumbers* lines = nullptr);
Json parse_json_file(const std::filesystem::path& path, const JsonLimits& limits = {});

// Where a value stands, for messages: "configs/x.json:14: nodes[2].config.lr". Cheap to copy.
class JsonPath {
 public:
  explicit JsonPath(std::string origin, std::string path = "", std::shared_ptr<const JsonLineNumbers> lines = nullptr)
      : origin_(std::move(origin)), path_(std::move(path)), lines_(std::move(lines)) {}
  JsonPath key(std::string_view name) const;
  JsonPath index(std::size_t i) const;
  const std::string& path() const { return path_; }
  // "ORIGIN:LINE: PATH: "; the line only where it is known, the path only below the root.
  std::string prefix() const;

 private:
  std::string origin_;
  std::string path_;
  std::shared_ptr<const JsonLineNumbers> lines_;
};

struct JsonFile {
  Json value;
  JsonPath where;
};
JsonFile read_config_file(const std::filesystem::path& path, const JsonLimits& limits = {});

// ---- errors ---------------------------------------------------------------------------------------------------------

// Every fault found in a document; what() has one a line.
class ConfigErrors : public std::invalid_argument {
 public:
  explicit ConfigErrors(std::vector<std::string> errors);
  const std::vector<std::string>& errors() const { return errors_; }

 private:
  std::vector<std::string> errors_;
};

// The candidate nearest to `word` by Damerau-Levenshtein distance (optimal string alignment), or "" when none is near
// enough to be what was meant (distance at most 1 + length / 3).
std::string_view nearest(std::string_view word, const std::vector<std::string_view>& candidates);

// "; did you mean 'lr'?", or "; known keys: a, b" when nothing is near, or "" without candidates.
std::string suggestion(std::string_view word, const std::vector<std::string_view>& candidates);

// ---- enums ----------------------------------------------------------------------------------------------------------

// Specialise for an enum that stands in a configuration:
//   template <> struct EnumNames<LossType> {
//     static constexpr std::array kNames{std::pair<std::string_view, LossType>{"grpo", LossType::kGrpo}, ...};
//   };
template <class E>
struct EnumNames;

template <class E>
concept NamedEnum = std::is_enum_v<E> && requires {
  EnumNames<E>::kNames;
};

template <NamedEnum E>
std::string_view enum_name(E value) {
  for (const auto& [name, v] : EnumNames<E>::kNames)
    if (v == value) return name;
  throw std::invalid_argument("an enum value without a name");
}

// ---- reading and writing --------------------------------------------------------------------------------------------

namespace detail {

// Collects faults so that one run shows all of them.
class Faults {
 public:
  void add(const JsonPath& where, const std::string& reason) { list_.push_back(where.prefix() + reason); }
  void throw_if_any();

 private:
  std::vector<std::string> list_;
};

// "string \"abc\"", "number 1.5", "an object": what was found instead.
std::string found(const Json& json);
void wrong_type(const char* expected, const Json& json, const JsonPath& where, Faults& faults);
void unknown_keys(const Json& object, const std::vector<std::string_view>& known, const JsonPath& where,
                  Faults& faults);

bool read_bool(bool& out, const Json& json, const JsonPath& where, Faults& faults);
bool read_string(std::string& out, const Json& json, const JsonPath& where, Faults& faults);
bool read_double(double& out, const Json& json, const JsonPath& where, Faults& faults);
// Integers only: 3.0 and 1e3 are numbers, not integers. The range is [low, high].
bool read_signed(int64_t& out, int64_t low, int64_t high, const Json& json, const JsonPath& where, Faults& faults);
bool read_unsigned(uint64_t& out, uint64_t high, const Json& json, const JsonPath& where, Faults& faults);

template <class T>
inline constexpr bool is_vector = false;
template <class T>
inline constexpr bool is_vector<std::vector<T>> = true;
template <class T>
inline constexpr bool is_optional = false;
template <class T>
inline constexpr bool is_optional<std::optional<T>> = true;
template <class T>
inline constexpr bool is_string_map = false;
template <class T, class L>
inline constexpr bool is_string_map<std::map<std::string, T, L>> = true;

// What a field's type is called in "missing; expected ...".
template <class T>
constexpr const char* type_words() {
  if constexpr (is_required<T>)
    return type_words<decltype(T::value)>();
  else if constexpr (is_optional<T>)
    return type_words<typename T::value_type>();
  else if constexpr (std::is_same_v<T, Json>)
    return "a value";
  else if constexpr (std::is_same_v<T, bool>)
    return "true or false";
  else if constexpr (std::is_integral_v<T>)
    return "an integer";
  else if constexpr (std::is_floating_point_v<T>)
    return "a number";
  else if constexpr (std::is_same_v<T, std::string> || std::is_enum_v<T>)
    return "a string";
  else if constexpr (is_vector<T>)
    return "an array";
  else
    return "an object";
}

template <class T>
void read(T& out, const Json& json, const JsonPath& where, Faults& faults);

template <std::integral T>
void read_integer(T& out, const Json& json, const JsonPath& where, Faults& faults) {
  using Limits = std::numeric_limits<T>;
  if constexpr (std::is_signed_v<T>) {
    int64_t value = 0;
    if (read_signed(value, Limits::min(), Limits::max(), json, where, faults)) out = static_cast<T>(value);
  } else {
    uint64_t value = 0;
    if (read_unsigned(value, Limits::max(), json, where, faults)) out = static_cast<T>(value);
  }
}

template <NamedEnum E>
void read_enum(E& out, const Json& json, const JsonPath& where, Faults& faults) {
  std::string word;
  if (!read_string(word, json, where, faults)) return;
  std::vector<std::string_view> names;
  for (const auto& [name, value] : EnumNames<E>::kNames) {
    if (name == word) {
      out = value;
      return;
    }
    names.push_back(name);
  }
  std::string all;
  for (const std::string_view name : names) all += (all.empty() ? "" : ", ") + std::string(name);
  const std::string_view near = nearest(word, names);
  faults.add(where, "unknown value \"" + word + "\"; expected one of: " + all +
                        (near.empty() ? "" : "; did you mean '" + std::string(near) + "'?"));
}

template <Fielded T>
void read_struct(T& out, const Json& json, const JsonPath& where, Faults& faults) {
  if (!json.is_object()) return wrong_type("an object", json, where, faults);
  std::vector<std::string_view> known;
  for_each_field(out, [&](std::string_view name, auto& value) {
    using Value = std::remove_reference_t<decltype(value)>;
    known.push_back(name);
    const auto it = json.find(name);
    if (it != json.end()) {
      read(value, *it, where.key(name), faults);
    } else if constexpr (is_required<Value>) {
      faults.add(where.key(name), std::string("missing; expected ") + type_words<Value>());
    }
  });
  unknown_keys(json, known, where, faults);
}

template <class T>
void read_container(T& out, const Json& json, const JsonPath& where, Faults& faults) {
  if constexpr (is_vector<T>) {
    if (!json.is_array()) return wrong_type("an array", json, where, faults);
    out.clear();
    for (std::size_t i = 0; i < json.size(); ++i) {
      typename T::value_type element{};  // a local: vector<bool> has no references to its elements
      read(element, json[i], where.index(i), faults);
      out.push_back(std::move(element));
    }
  } else {
    if (!json.is_object()) return wrong_type("an object", json, where, faults);
    out.clear();
    for (const auto& [key, value] : json.items()) read(out[key], value, where.key(key), faults);
  }
}

template <class T>
void read(T& out, const Json& json, const JsonPath& where, Faults& faults) {
  if constexpr (std::is_same_v<T, Json>) {
    out = json;
  } else if constexpr (is_required<T>) {
    read(out.value, json, where, faults);
  } else if constexpr (is_optional<T>) {
    if (json.is_null())
      out.reset();
    else
      read(out.emplace(), json, where, faults);
  } else if constexpr (std::is_same_v<T, bool>) {
    read_bool(out, json, where, faults);
  } else if constexpr (std::is_same_v<T, std::string>) {
    read_string(out, json, where, faults);
  } else if constexpr (std::is_integral_v<T>) {
    read_integer(out, json, where, faults);
  } else if constexpr (std::is_floating_point_v<T>) {
    double value = 0;
    if (!read_double(value, json, where, faults)) return;
    if (std::abs(value) > std::numeric_limits<T>::max()) return wrong_type("a smaller number", json, where, faults);
    out = static_cast<T>(value);
  } else if constexpr (std::is_enum_v<T>) {
    static_assert(NamedEnum<T>, "specialise EnumNames for this enum");
    read_enum(out, json, where, faults);
  } else if constexpr (is_vector<T> || is_string_map<T>) {
    read_container(out, json, where, faults);
  } else {
    static_assert(Fielded<T>, "no reading of this type from JSON");
    read_struct(out, json, where, faults);
  }
}

template <class T>
OrderedJson write(const T& value) {
  if constexpr (std::is_same_v<T, Json>) {
    return OrderedJson(value);
  } else if constexpr (is_required<T>) {
    return write(value.value);
  } else if constexpr (is_optional<T>) {
    return value ? write(*value) : OrderedJson(nullptr);
  } else if constexpr (std::is_enum_v<T>) {
    return OrderedJson(enum_name(value));
  } else if constexpr (std::is_floating_point_v<T>) {
    if (!std::isfinite(value)) throw std::invalid_argument("JSON has no infinity and no NaN");
    return OrderedJson(value);
  } else if constexpr (is_vector<T>) {
    OrderedJson array = OrderedJson::array();
    for (const auto& element : value) array.push_back(write<typename T::value_type>(element));
    return array;
  } else if constexpr (is_string_map<T>) {
    OrderedJson object = OrderedJson::object();
    for (const auto& [key, element] : value) object[key] = write(element);
    return object;
  } else if constexpr (Fielded<T>) {
    OrderedJson object = OrderedJson::object();
    for_each_field(value, [&](std::string_view name, const auto& field) { object[std::string(name)] = write(field); });
    return object;
  } else {
    return OrderedJson(value);
  }
}

}  // namespace detail

// The struct that `json` describes. Throws ConfigErrors with every fault found.
template <Fielded T>
T from_json(const Json& json, const JsonPath& where) {
  T out{};
  detail::Faults faults;
  detail::read(out, json, where, faults);
  faults.throw_if_any();
  return out;
}

// All fields, defaults included, in the order of the field list.
template <Fielded T>
OrderedJson to_json(const T& value) {
  return detail::write(value);
}

// ---- overriding -----------------------------------------------------------------------------------------------------

// Whether an override may add a key that the document does not have. kAdd suits a document as its author wrote it,
// where keys with defaults are absent: from_json afterwards refuses keys that no struct knows.
enum class NewKeys { kRefuse, kAdd };

// Applies "nodes.learner.config.lr=1e-5" (--set). Path components are object keys; in an array an index, or, where its
// elements are objects with "name", the name. The value is parsed as JSON and taken as a string when it is none.
// Throws std::invalid_argument naming the component that does not exist and the nearest that does.
void set_by_path(Json& root, std::string_view assignment, NewKeys new_keys = NewKeys::kRefuse);

}  // namespace troupe
