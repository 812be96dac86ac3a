#include "core/config.hpp"

#include <algorithm>
#include <charconv>
#include <fstream>
#include <set>

#include "core/watched_text.hpp"

template class nlohmann::basic_json<>;
template class nlohmann::basic_json<nlohmann::ordered_map>;

namespace troupe {
namespace {

// nlohmann's DOM parser with what it lacks: duplicate keys and depth are errors, lines are remembered.
class Builder {
 public:
  Builder(std::string_view text, const std::string& origin, int max_depth, JsonLineNumbers* lines)
      : text_(text), seen_(text.data()), origin_(origin), max_depth_(max_depth), lines_(lines), counted_(text.data()) {}

  void reached(const char* at) { seen_ = at; }

  Json take() { return std::move(root_); }

  bool null() { return place(nullptr); }
  bool boolean(bool v) { return place(v); }
  bool number_integer(int64_t v) { return place(v); }
  bool number_unsigned(uint64_t v) { return place(v); }
  bool number_float(double v, const std::string&) { return place(v); }
  bool string(std::string& v) { return place(std::move(v)); }
  bool binary(Json::binary_t&) { return false; }
  bool start_object(std::size_t) { return open(Json::object()); }
  bool start_array(std::size_t) { return open(Json::array()); }
  bool end_object() { return close(); }
  bool end_array() { return close(); }
  bool key(std::string& name) {
    if (stack_.back()->contains(name)) fail("duplicate key \"" + name + "\"");
    key_ = std::move(name);
    return true;
  }
  bool parse_error(std::size_t byte, const std::string&, const nlohmann::detail::exception& error) {
    std::string_view what = error.what();  // "[json.exception...] parse error at line 1, column 2: reason"
    if (const auto column = what.find(", column "); column != what.npos) what.remove_prefix(column);
    if (const auto colon = what.find(": "); colon != what.npos)
      what.remove_prefix(colon + 2);
    else if (const auto bracket = what.find("] "); bracket != what.npos)
      what.remove_prefix(bracket + 2);
    fail(std::string(what), byte > 0 ? text_.data() + std::min(byte - 1, text_.size()) : seen_);
  }

 private:
  [[noreturn]] void fail(const std::string& reason) { fail(reason, seen_); }
  [[noreturn]] void fail(const std::string& reason, const char* at) {
    const std::string_view before(text_.data(), static_cast<std::size_t>(at - text_.data()));
    const auto line = 1 + std::count(before.begin(), before.end(), '\n');
    const auto newline = before.rfind('\n');
    const std::size_t column = newline == before.npos ? before.size() + 1 : before.size() - newline;
    throw std::invalid_argument(origin_ + ":" + std::to_string(line) + ":" + std::to_string(column) + ": " + reason);
  }

  Json* put(Json&& value) {
    if (stack_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    Json& parent = *stack_.back();
    if (parent.is_array()) {
      parent.push_back(std::move(value));
      if (lines_) remember(paths_.back() + "[" + std::to_string(parent.size() - 1) + "]");
      return &parent.back();
    }
    if (lines_) remember(paths_.back().empty() ? key_ : paths_.back() + "." + key_);
    return &(parent[key_] = std::move(value));
  }

  bool place(Json value) {
    put(std::move(value));
    return true;
  }

  bool open(Json&& container) {
    if (static_cast<int>(stack_.size()) >= max_depth_) fail("nested deeper than " + std::to_string(max_depth_));
    Json* placed = put(std::move(container));
    stack_.push_back(placed);
    if (lines_) paths_.push_back(last_path_);
    return true;
  }

  bool close() {
    stack_.pop_back();
    if (lines_) paths_.pop_back();
    return true;
  }

  void remember(std::string path) {
    line_ += static_cast<int>(std::count(counted_, seen_, '\n'));
    counted_ = seen_;
    last_path_ = path;
    lines_->emplace(std::move(path), line_);
  }

  const std::string_view text_;
  const char* seen_;  // how far the lexer has come
  const std::string& origin_;
  const int max_depth_;
  JsonLineNumbers* const lines_;
  Json root_;
  std::vector<Json*> stack_;  // open containers; a container does not move while something is open inside it
  std::string key_;
  std::vector<std::string> paths_;  // of the open containers
  std::string last_path_;
  const char* counted_;
  int line_ = 1;
};

std::string read_text(const std::filesystem::path& path, std::size_t max_bytes) {
  std::error_code error;
  const auto size = std::filesystem::file_size(path, error);
  if (error) throw std::runtime_error(path.string() + ": cannot be read: " + error.message());
  if (size > max_bytes)
    throw std::invalid_argument(path.string() + ": " + std::to_string(size) + " bytes, more than the limit of " +
                                std::to_string(max_bytes));
  std::ifstream file(path, std::ios::binary);
  std::string text(static_cast<std::size_t>(size), '\0');
  file.read(text.data(), static_cast<std::streamsize>(size));
  if (!file || static_cast<std::uintmax_t>(file.gcount()) != size)
    throw std::runtime_error(path.string() + ": cannot be read");
  return text;
}

// Optimal string alignment: insertions, deletions, substitutions and swaps of neighbours, each costing 1.
std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> before(b.size() + 1), last(b.size() + 1), row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) last[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      row[j] = std::min({last[j] + 1, row[j - 1] + 1, last[j - 1] + (a[i - 1] != b[j - 1])});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) row[j] = std::min(row[j], before[j - 2] + 1);
    }
    std::swap(before, last);
    std::swap(last, row);
  }
  return last[b.size()];
}

std::vector<std::string_view> keys_of(const Json& object) {
  std::vector<std::string_view> keys;
  for (const auto& [key, value] : object.get_ref<const Json::object_t&>()) keys.push_back(key);
  return keys;
}

// The element of an array that `component` names by index or by "name"; throws naming what there is.
Json& array_element(Json& array, std::string_view component, const std::string& parent) {
  std::size_t index = 0;
  const auto [end, error] = std::from_chars(component.data(), component.data() + component.size(), index);
  if (error == std::errc() && end == component.data() + component.size()) {
    if (index >= array.size())
      throw std::invalid_argument("--set: " + parent + " has " + std::to_string(array.size()) + " elements, no index " +
                                  std::string(component));
    return array[index];
  }
  std::vector<std::string_view> names;
  for (Json& element : array) {
    const auto name = element.is_object() ? element.find("name") : element.end();
    if (!element.is_object() || name == element.end() || !name->is_string()) continue;
    const auto& text = name->get_ref<const std::string&>();
    if (text == component) return element;
    names.push_back(text);
  }
  throw std::invalid_argument("--set: " + parent + " has no element named '" + std::string(component) + "'" +
                              suggestion(component, names));
}

Json& child(Json& parent, std::string_view component, const std::string& parent_path, NewKeys new_keys) {
  if (parent.is_array()) return array_element(parent, component, parent_path);
  if (parent.is_null() && new_keys == NewKeys::kAdd) parent = Json::object();
  if (!parent.is_object())
    throw std::invalid_argument("--set: " + parent_path + " is " + detail::found(parent) + ", it has no '" +
                                std::string(component) + "'");
  const auto it = parent.find(component);
  if (it != parent.end()) return *it;
  if (new_keys == NewKeys::kAdd) return parent[std::string(component)];
  throw std::invalid_argument("--set: " + parent_path + " has no key '" + std::string(component) + "'" +
                              suggestion(component, keys_of(parent)));
}

}  // namespace

Json parse_json(std::string_view text, const std::string& origin, const JsonLimits& limits, JsonLineNumbers* lines) {
  if (text.size() > limits.max_bytes)
    throw std::invalid_argument(origin + ": " + std::to_string(text.size()) + " bytes, more than the limit of " +
                                std::to_string(limits.max_bytes));
  Builder builder(text, origin, limits.max_depth, lines);
  Json::sax_parse(WatchedChar{text.data(), &builder}, WatchedChar{text.data() + text.size(), &builder}, &builder);
  return builder.take();
}

Json parse_json_file(const std::filesystem::path& path, const JsonLimits& limits) {
  return parse_json(read_text(path, limits.max_bytes), path.string(), limits);
}

JsonFile read_config_file(const std::filesystem::path& path, const JsonLimits& limits) {
  auto lines = std::make_shared<JsonLineNumbers>();
  Json value = parse_json(read_text(path, limits.max_bytes), path.string(), limits, lines.get());
  return {std::move(value), JsonPath(path.string(), "", std::move(lines))};
}

JsonPath JsonPath::key(std::string_view name) const {
  return JsonPath(origin_, path_.empty() ? std::string(name) : path_ + "." + std::string(name), lines_);
}

JsonPath JsonPath::index(std::size_t i) const {
  return JsonPath(origin_, path_ + "[" + std::to_string(i) + "]", lines_);
}

std::string JsonPath::prefix() const {
  std::string out = origin_;
  if (lines_) {
    // A missing key has no line of its own: its parent's is the nearest.
    for (std::string_view p = path_; !p.empty(); p = p.substr(0, std::min(p.size() - 1, p.find_last_of(".[")))) {
      const auto line = lines_->find(p);
      if (line != lines_->end()) {
        out += ":" + std::to_string(line->second);
        break;
      }
      if (p.find_last_of(".[") == p.npos) break;
    }
  }
  out += ": ";
  if (!path_.empty()) out.append(path_).append(": ");
  return out;
}

ConfigErrors::ConfigErrors(std::vector<std::string> errors)
    : std::invalid_argument([&] {
        std::string all;
        for (const std::string& error : errors) all += (all.empty() ? "" : "\n") + error;
        return all;
      }()),
      errors_(std::move(errors)) {}

std::string_view nearest(std::string_view word, const std::vector<std::string_view>& candidates) {
  std::string_view best;
  std::size_t best_distance = 2 + word.size() / 3;
  for (const std::string_view candidate : candidates) {
    const std::size_t distance = edit_distance(word, candidate);
    if (distance >= best_distance || distance >= candidate.size()) continue;
    best = candidate;
    best_distance = distance;
  }
  return best;
}

std::string suggestion(std::string_view word, const std::vector<std::string_view>& candidates) {
  const std::string_view near = nearest(word, candidates);
  if (!near.empty()) return "; did you mean '" + std::string(near) + "'?";
  std::string all;
  for (const std::string_view candidate : candidates)
    all += (all.empty() ? "; known: " : ", ") + std::string(candidate);
  return all;
}

namespace detail {

void Faults::throw_if_any() {
  if (!list_.empty()) throw ConfigErrors(std::move(list_));
}

std::string found(const Json& json) {
  if (json.is_null()) return "null";
  if (json.is_object()) return "an object";
  if (json.is_array()) return "an array";
  std::string text = json.dump(-1, ' ', false, Json::error_handler_t::replace);
  if (text.size() > 60) text = text.substr(0, 57) + "...";
  return std::string(json.type_name()) + " " + text;
}

void wrong_type(const char* expected, const Json& json, const JsonPath& where, Faults& faults) {
  faults.add(where, std::string("expected ") + expected + ", found " + found(json));
}

void unknown_keys(const Json& object, const std::vector<std::string_view>& known, const JsonPath& where,
                  Faults& faults) {
  for (const std::string_view key : keys_of(object))
    if (std::find(known.begin(), known.end(), key) == known.end())
      faults.add(where.key(key), "unknown key" + suggestion(key, known));
}

bool read_bool(bool& out, const Json& json, const JsonPath& where, Faults& faults) {
  if (json.is_boolean())
    out = json.get<bool>();
  else
    wrong_type("true or false", json, where, faults);
  return json.is_boolean();
}

bool read_string(std::string& out, const Json& json, const JsonPath& where, Faults& faults) {
  if (json.is_string())
    out = json.get<std::string>();
  else
    wrong_type("a string", json, where, faults);
  return json.is_string();
}

bool read_double(double& out, const Json& json, const JsonPath& where, Faults& faults) {
  if (json.is_number())
    out = json.get<double>();
  else
    wrong_type("a number", json, where, faults);
  return json.is_number();
}

bool read_signed(int64_t& out, int64_t low, int64_t high, const Json& json, const JsonPath& where, Faults& faults) {
  if (!json.is_number_integer()) {
    wrong_type("an integer", json, where, faults);
    return false;
  }
  const bool above = json.is_number_unsigned() && json.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX);
  const int64_t value = above ? 0 : json.get<int64_t>();
  if (above || value < low || value > high) {
    faults.add(where, "expected an integer from " + std::to_string(low) + " to " + std::to_string(high) + ", found " +
                          json.dump());
    return false;
  }
  out = value;
  return true;
}

bool read_unsigned(uint64_t& out, uint64_t high, const Json& json, const JsonPath& where, Faults& faults) {
  if (!json.is_number_integer()) {
    wrong_type("an integer", json, where, faults);
    return false;
  }
  const bool negative = !json.is_number_unsigned() && json.get<int64_t>() < 0;
  const uint64_t value = negative ? 0 : json.get<uint64_t>();
  if (negative || value > high) {
    faults.add(where, "expected an integer from 0 to " + std::to_string(high) + ", found " + json.dump());
    return false;
  }
  out = value;
  return true;
}

}  // namespace detail

void set_by_path(Json& root, std::string_view assignment, NewKeys new_keys) {
  const auto equals = assignment.find('=');
  if (equals == assignment.npos || equals == 0)
    throw std::invalid_argument("--set " + std::string(assignment) + ": expected path=value");
  std::string_view rest = assignment.substr(0, equals);
  const std::string text(assignment.substr(equals + 1));

  Json copy = root;  // a refused override leaves the document as it was
  Json* at = &copy;
  std::string path;
  while (true) {
    const auto dot = rest.find('.');
    const std::string_view component = rest.substr(0, dot);
    if (component.empty())
      throw std::invalid_argument("--set " + std::string(assignment) + ": empty component in the path");
    const std::string parent = path.empty() ? "the document" : std::string("'").append(path).append("'");
    at = &child(*at, component, parent, new_keys);
    if (!path.empty()) path += '.';
    path += component;
    if (dot == rest.npos) break;
    rest.remove_prefix(dot + 1);
  }
  Json value = Json::parse(text, nullptr, false);
  *at = value.is_discarded() ? Json(text) : std::move(value);
  root = std::move(copy);
}

}  // namespace troupe
