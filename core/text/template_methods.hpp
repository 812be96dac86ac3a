// Python's methods of texts and dictionaries, and the text operations that filters share with them. Internal to the
// template files of core/text.
#pragma once

#include <optional>
#include <string_view>

#include "core/text/template_value.hpp"

namespace troupe::jinja {

struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;

  // The argument at `position` or by `name`; null if absent.
  const Value* find(size_t position, std::string_view name) const;
  // Throws TemplateError if there are more positional arguments or others by name.
  void check(std::string_view callee, size_t max_positional, std::initializer_list<std::string_view> names = {}) const;
};

bool has_method(const Value& object, std::string_view name);
Value call_method(const Value& object, const std::string& name, const Arguments& arguments, Budget& budget);

// Throws TemplateError naming what wants a text.
const Text& expect_text(const Value& value, std::string_view what);
int64_t expect_integer(const Value& value, std::string_view what);

// Without `characters`, white space goes.
Text stripped(const Text& text, std::optional<std::string_view> characters, bool left, bool right);
// At most `max_count` times; a negative one is no bound.
Text replaced(const Text& text, const Text& from, const Text& to, int64_t max_count, Budget& budget);
Text joined(const std::vector<Value>& items, const Text& separator, Budget& budget);
Text capitalized(const Text& text);
// The characters, each a text of its own.
std::vector<Value> characters_of(const Text& text, Budget& budget);
int64_t count_characters(const Text& text);
// Where the character of this index, not beyond the end, begins in the bytes.
size_t offset_of_character(const Text& text, int64_t index);
// Like std::string_view::find, in linear time.
size_t find_text(std::string_view text, std::string_view wanted, size_t from = 0);

}  // namespace troupe::jinja
