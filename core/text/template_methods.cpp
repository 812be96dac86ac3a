#include "core/text/template_methods.hpp"

#include <algorithm>
#include <cstring>
#include <functional>
#include <map>

#include "core/text/template_filters.hpp"
#include "core/text/unicode.hpp"

namespace troupe::jinja {
namespace {

using TextMethod = std::function<Value(const Text&, const Arguments&, Budget&)>;

size_t last_character(std::string_view text) {
  size_t at = text.size() - 1;
  while (at > 0 && (static_cast<uint8_t>(text[at]) & 0xC0) == 0x80) --at;
  return at;
}

bool is_character_start(char c) {
  return (c & 0xC0) != 0x80;
}

std::vector<Value> split_at_spaces(const Text& text, int64_t max_splits) {
  std::vector<Value> parts;
  const std::string_view bytes = text.bytes();
  const auto is_space_at = [&](size_t at) { return is_python_space(utf8_step(bytes.substr(at)).code_point); };
  size_t at = 0;
  while (true) {
    while (at < bytes.size() && is_space_at(at)) at += utf8_size(bytes.substr(at));
    if (at == bytes.size()) return parts;
    if (max_splits >= 0 && static_cast<int64_t>(parts.size()) == max_splits) {
      parts.push_back(Value::of(stripped(text.part(at), std::nullopt, false, true)));
      return parts;
    }
    const size_t begin = at;
    while (at < bytes.size() && !is_space_at(at)) at += utf8_size(bytes.substr(at));
    parts.push_back(Value::of(text.part(begin, at - begin)));
  }
}

std::vector<Value> split_at(const Text& text, const Text& separator, int64_t max_splits) {
  if (separator.empty()) throw TemplateError("split() by an empty text");
  std::vector<Value> parts;
  size_t begin = 0;
  while (max_splits < 0 || static_cast<int64_t>(parts.size()) < max_splits) {
    const size_t end = find_text(text.bytes(), separator.bytes(), begin);
    if (end == std::string::npos) break;
    parts.push_back(Value::of(text.part(begin, end - begin)));
    begin = end + separator.size();
  }
  parts.push_back(Value::of(text.part(begin)));
  return parts;
}

std::vector<Value> split_from_right(const Text& text, const Text& separator, int64_t max_splits) {
  if (separator.empty()) throw TemplateError("rsplit() by an empty text");
  std::vector<Value> parts;
  size_t end = text.size();
  while (static_cast<int64_t>(parts.size()) < max_splits && end >= separator.size()) {
    const size_t begin = text.bytes().rfind(separator.bytes(), end - separator.size());
    if (begin == std::string::npos) break;
    parts.push_back(Value::of(text.part(begin + separator.size(), end - begin - separator.size())));
    end = begin;
  }
  parts.push_back(Value::of(text.part(0, end)));
  std::reverse(parts.begin(), parts.end());
  return parts;
}

Value split(const Text& text, const Arguments& arguments, Budget& budget, bool from_right) {
  arguments.check("split", 2, {"sep", "maxsplit"});
  const Value* separator = arguments.find(0, "sep");
  const Value* limit = arguments.find(1, "maxsplit");
  const int64_t max_splits = limit == nullptr ? -1 : expect_integer(*limit, "maxsplit");
  const bool at_spaces = separator == nullptr || separator->is_none();
  if (at_spaces && from_right && max_splits >= 0) throw TemplateError("rsplit() at white space is not supported");
  std::vector<Value> parts;
  if (at_spaces) {
    parts = split_at_spaces(text, max_splits);
  } else if (from_right && max_splits >= 0) {
    parts = split_from_right(text, expect_text(*separator, "split"), max_splits);
  } else {
    parts = split_at(text, expect_text(*separator, "split"), max_splits);
  }
  budget.spend(parts.size());
  return Value::list(std::move(parts));
}

Value split_lines(const Text& text, const Arguments& arguments, Budget& budget) {
  arguments.check("splitlines", 1, {"keepends"});
  const Value* keep = arguments.find(0, "keepends");
  const bool keep_ends = keep != nullptr && is_true(*keep);
  const auto is_line_end = [](uint32_t c) {
    return (c >= 0x0A && c <= 0x0D) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 || c == 0x2029;
  };
  std::vector<Value> lines;
  const std::string_view bytes = text.bytes();
  size_t begin = 0;
  for (size_t at = 0; at < bytes.size();) {
    const Utf8Step step = utf8_step(bytes.substr(at));
    if (!is_line_end(step.code_point)) {
      at += step.size;
      continue;
    }
    const size_t end = at + (bytes.substr(at, 2) == "\r\n" ? 2 : step.size);
    lines.push_back(Value::of(text.part(begin, (keep_ends ? end : at) - begin)));
    begin = at = end;
  }
  if (begin < bytes.size()) lines.push_back(Value::of(text.part(begin)));
  budget.spend(lines.size());
  return Value::list(std::move(lines));
}

// startswith and endswith take one text or a tuple of them.
bool any_affix(const Arguments& arguments, const std::string& method,
               const std::function<bool(std::string_view)>& fits) {
  arguments.check(method, 1);
  const Value* affix = arguments.find(0, "");
  if (affix == nullptr) throw TemplateError(method + "() needs a text");
  if (const List* list = affix->as_list()) {
    return std::any_of(list->items.begin(), list->items.end(),
                       [&](const Value& item) { return fits(expect_text(item, method).bytes()); });
  }
  return fits(expect_text(*affix, method).bytes());
}

TextMethod strip_method(const char* name, bool left, bool right) {
  return [=](const Text& text, const Arguments& arguments, Budget&) {
    arguments.check(name, 1);
    const Value* characters = arguments.find(0, "");
    std::optional<std::string_view> set;
    if (characters != nullptr && !characters->is_none()) set = expect_text(*characters, name).bytes();
    return Value::of(stripped(text, set, left, right));
  };
}

Value find(const Text& text, const Arguments& arguments, bool from_right) {
  arguments.check("find", 1);
  if (arguments.positional.empty()) throw TemplateError("find() needs a text");
  const std::string& wanted = expect_text(arguments.positional[0], "find").bytes();
  const size_t at = from_right ? text.bytes().rfind(wanted) : find_text(text.bytes(), wanted);
  if (at == std::string::npos) return Value::of(int64_t{-1});
  return Value::of(count_characters(text.part(0, at)));
}

Value count(const Text& text, const Arguments& arguments) {
  arguments.check("count", 1);
  if (arguments.positional.empty()) throw TemplateError("count() needs a text");
  const std::string& wanted = expect_text(arguments.positional[0], "count").bytes();
  if (wanted.empty()) return Value::of(count_characters(text) + 1);
  int64_t found = 0;
  for (size_t at = find_text(text.bytes(), wanted); at != std::string::npos;
       at = find_text(text.bytes(), wanted, at + wanted.size())) {
    ++found;
  }
  return Value::of(found);
}

template <typename Property>
Value all_characters(const Text& text, Property property) {
  const std::string_view bytes = text.bytes();
  for (size_t at = 0; at < bytes.size();) {
    const Utf8Step step = utf8_step(bytes.substr(at));
    if (!property(step.code_point)) return Value::of(false);
    at += step.size;
  }
  return Value::of(!bytes.empty());
}

Value without_affix(const Text& text, const Arguments& arguments, const char* name, bool prefix) {
  arguments.check(name, 1);
  if (arguments.positional.empty()) throw TemplateError(std::string(name) + "() needs a text");
  const std::string& affix = expect_text(arguments.positional[0], name).bytes();
  const bool fits = prefix ? text.bytes().starts_with(affix) : text.bytes().ends_with(affix);
  if (!fits) return Value::of(text);
  return Value::of(prefix ? text.part(affix.size()) : text.part(0, text.size() - affix.size()));
}

Value replace_method(const Text& text, const Arguments& arguments, Budget& budget) {
  arguments.check("replace", 3, {"count"});
  if (arguments.positional.size() < 2) throw TemplateError("replace() needs two texts");
  const Value* limit = arguments.find(2, "count");
  return Value::of(replaced(text, expect_text(arguments.positional[0], "replace"),
                            expect_text(arguments.positional[1], "replace"),
                            limit == nullptr ? -1 : expect_integer(*limit, "count"), budget));
}

Value join_method(const Text& text, const Arguments& arguments, Budget& budget) {
  arguments.check("join", 1);
  if (arguments.positional.empty()) throw TemplateError("join() needs a list");
  const std::vector<Value> items = items_of(arguments.positional[0], budget);
  for (const Value& item : items) expect_text(item, "join");
  return Value::of(joined(items, text, budget));
}

const std::map<std::string, TextMethod, std::less<>>& text_methods() {
  using A = const Arguments&;
  static const std::map<std::string, TextMethod, std::less<>> kMethods = {
      {"strip", strip_method("strip", true, true)},
      {"lstrip", strip_method("lstrip", true, false)},
      {"rstrip", strip_method("rstrip", false, true)},
      {"split", [](const Text& t, A a, Budget& b) { return split(t, a, b, false); }},
      {"rsplit", [](const Text& t, A a, Budget& b) { return split(t, a, b, true); }},
      {"splitlines", split_lines},
      {"startswith",
       [](const Text& t, A a, Budget&) {
         return Value::of(any_affix(a, "startswith", [&](std::string_view x) { return t.bytes().starts_with(x); }));
       }},
      {"endswith",
       [](const Text& t, A a, Budget&) {
         return Value::of(any_affix(a, "endswith", [&](std::string_view x) { return t.bytes().ends_with(x); }));
       }},
      {"replace", replace_method},
      {"upper", [](const Text& t, A, Budget&) { return Value::of(t.derived(to_upper(t.bytes()))); }},
      {"lower", [](const Text& t, A, Budget&) { return Value::of(t.derived(to_lower(t.bytes()))); }},
      {"capitalize", [](const Text& t, A, Budget&) { return Value::of(capitalized(t)); }},
      {"find", [](const Text& t, A a, Budget&) { return find(t, a, false); }},
      {"rfind", [](const Text& t, A a, Budget&) { return find(t, a, true); }},
      {"count", [](const Text& t, A a, Budget&) { return count(t, a); }},
      {"join", join_method},
      {"isdigit",
       [](const Text& t, A, Budget&) { return all_characters(t, [](uint32_t c) { return c >= '0' && c <= '9'; }); }},
      {"isspace", [](const Text& t, A, Budget&) { return all_characters(t, is_python_space); }},
      {"removeprefix", [](const Text& t, A a, Budget&) { return without_affix(t, a, "removeprefix", true); }},
      {"removesuffix", [](const Text& t, A a, Budget&) { return without_affix(t, a, "removesuffix", false); }},
  };
  return kMethods;
}

Value call_dict_method(const Dict& dict, const std::string& name, const Arguments& arguments, Budget& budget) {
  budget.spend(dict.items.size());
  if (name == "get") {
    arguments.check("get", 2, {"default"});
    const Value* key = arguments.find(0, "key");
    if (key == nullptr) throw TemplateError("get() needs a key");
    const Value* found = key->text() == nullptr ? nullptr : dict.find(key->text()->bytes());
    const Value* fallback = arguments.find(1, "default");
    return found != nullptr ? *found : fallback != nullptr ? *fallback : Value();
  }
  arguments.check(name, 0);
  std::vector<Value> items;
  for (const auto& [key, value] : dict.items) {
    if (name == "items") items.push_back(Value::list({Value::of(key), value}, true));
    if (name == "keys") items.push_back(Value::of(key));
    if (name == "values") items.push_back(value);
  }
  return Value::list(std::move(items));
}

}  // namespace

const Value* Arguments::find(size_t position, std::string_view name) const {
  if (position < positional.size()) return &positional[position];
  for (const auto& [key, value] : named) {
    if (key == name) return &value;
  }
  return nullptr;
}

void Arguments::check(std::string_view callee, size_t max_positional,
                      std::initializer_list<std::string_view> names) const {
  if (positional.size() > max_positional) throw TemplateError(std::string(callee) + " takes fewer arguments");
  for (const auto& [name, value] : named) {
    if (std::find(names.begin(), names.end(), name) == names.end()) {
      throw TemplateError(std::string(callee) + ": the argument '" + name + "' is not supported");
    }
  }
}

bool has_method(const Value& object, std::string_view name) {
  if (object.text() != nullptr) return text_methods().contains(name);
  if (object.as_dict() != nullptr) return name == "items" || name == "keys" || name == "values" || name == "get";
  return std::holds_alternative<Loop*>(object.storage) && name == "cycle";
}

Value call_method(const Value& object, const std::string& name, const Arguments& arguments, Budget& budget) {
  if (const Text* text = object.text()) {
    budget.spend_text(text->size());
    return text_methods().find(name)->second(*text, arguments, budget);
  }
  if (const Dict* dict = object.as_dict()) return call_dict_method(*dict, name, arguments, budget);
  const Loop& loop = *std::get<Loop*>(object.storage);
  if (arguments.positional.empty()) throw TemplateError("cycle() needs values");
  return arguments.positional[loop.index % arguments.positional.size()];
}

const Text& expect_text(const Value& value, std::string_view what) {
  if (value.text() == nullptr) throw TemplateError(std::string(what) + " expects a str, not a " + type_name(value));
  return *value.text();
}

int64_t expect_integer(const Value& value, std::string_view what) {
  if (!value.is_integer()) throw TemplateError(std::string(what) + " expects an int, not a " + type_name(value));
  return value.integer();
}

Text stripped(const Text& text, std::optional<std::string_view> characters, bool left, bool right) {
  const std::string_view bytes = text.bytes();
  const auto goes = [&](std::string_view character) {
    if (!characters) return is_python_space(utf8_step(character).code_point);
    for (size_t at = 0; at < characters->size(); at += utf8_size(characters->substr(at))) {
      if (characters->substr(at, utf8_size(characters->substr(at))) == character) return true;
    }
    return false;
  };
  size_t begin = 0;
  size_t end = bytes.size();
  while (left && begin < end) {
    const size_t size = utf8_size(bytes.substr(begin));
    if (!goes(bytes.substr(begin, size))) break;
    begin += size;
  }
  while (right && begin < end) {
    const size_t last = last_character(bytes.substr(0, end));
    if (!goes(bytes.substr(last, end - last))) break;
    end = last;
  }
  return text.part(begin, end - begin);
}

Text replaced(const Text& text, const Text& from, const Text& to, int64_t max_count, Budget& budget) {
  if (from.empty()) throw TemplateError("replace() of an empty text is not supported");
  Text result;
  size_t copied = 0;
  for (int64_t count = 0; max_count < 0 || count < max_count; ++count) {
    const size_t at = find_text(text.bytes(), from.bytes(), copied);
    if (at == std::string::npos) break;
    budget.spend(1);
    result.append(text.part(copied, at - copied));
    result.append(to);
    copied = at + from.size();
    if (result.size() > budget.max_text_bytes()) budget.spend_text(result.size());
  }
  result.append(text.part(copied));
  budget.spend_text(result.size());
  return result;
}

Text joined(const std::vector<Value>& items, const Text& separator, Budget& budget) {
  Text result;
  for (size_t i = 0; i < items.size(); ++i) {
    if (i > 0) result.append(separator);
    const Text item = printed(items[i], budget);
    budget.spend(1 + (separator.size() + item.size()) / 64);
    result.append(item);
    if (result.size() > budget.max_text_bytes()) budget.spend_text(result.size());
  }
  return result;
}

Text capitalized(const Text& text) {
  if (text.empty()) return text;
  const size_t first = utf8_size(text.bytes());
  return text.derived(to_upper(text.bytes().substr(0, first)) + to_lower(text.bytes().substr(first)));
}

std::vector<Value> characters_of(const Text& text, Budget& budget) {
  budget.spend(text.size());
  std::vector<Value> characters;
  const std::string_view bytes = text.bytes();
  for (size_t at = 0; at < bytes.size();) {
    const size_t size = utf8_size(bytes.substr(at));
    characters.push_back(Value::of(text.part(at, size)));
    at += size;
  }
  return characters;
}

int64_t count_characters(const Text& text) {
  return std::count_if(text.bytes().begin(), text.bytes().end(), is_character_start);
}

size_t offset_of_character(const Text& text, int64_t index) {
  size_t at = 0;
  for (int64_t left = index; at < text.size(); ++at) {
    if (is_character_start(text.bytes()[at]) && left-- == 0) break;
  }
  return at;
}

size_t find_text(std::string_view text, std::string_view wanted, size_t from) {
  if (from > text.size()) return std::string_view::npos;
  // The C library's memmem is linear also where a text repeats itself; std::string_view::find is not.
  const void* found = memmem(text.data() + from, text.size() - from, wanted.data(), wanted.size());
  return found == nullptr ? std::string_view::npos : static_cast<size_t>(static_cast<const char*>(found) - text.data());
}

}  // namespace troupe::jinja
