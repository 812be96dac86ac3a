#include "core/text/template_filters.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <functional>
#include <map>

#include "core/text/unicode.hpp"

namespace troupe::jinja {
namespace {

using Filter = std::function<Value(const Value&, const Arguments&, Budget&)>;
using Test = std::function<bool(const Value&, const Arguments&, Budget&)>;

const Value& required(const Arguments& arguments, size_t position, std::string_view what) {
  if (position >= arguments.positional.size()) throw TemplateError(std::string(what) + " needs more arguments");
  return arguments.positional[position];
}

Value length(const Value& input, const Arguments&, Budget&) {
  if (const Text* text = input.text()) {
    return Value::of(count_characters(*text));
  }
  if (const List* list = input.as_list()) return Value::of(static_cast<int64_t>(list->items.size()));
  if (const Dict* dict = input.as_dict()) return Value::of(static_cast<int64_t>(dict->items.size()));
  if (input.is_undefined()) return Value::of(int64_t{0});
  throw TemplateError("a " + type_name(input) + " has no length");
}

Value trim(const Value& input, const Arguments& arguments, Budget& budget) {
  arguments.check("trim", 1, {"chars"});
  const Value* characters = arguments.find(0, "chars");
  std::optional<std::string_view> set;
  if (characters != nullptr && !characters->is_none()) set = expect_text(*characters, "trim").bytes();
  return Value::of(stripped(printed(input, budget), set, true, true));
}

Value tojson(const Value& input, const Arguments& arguments, Budget& budget) {
  arguments.check("tojson", 0, {"indent", "ensure_ascii"});
  const Value* ascii = arguments.find(1, "ensure_ascii");
  if (ascii != nullptr && is_true(*ascii)) throw TemplateError("tojson(ensure_ascii=true) is not supported");
  const Value* indent = arguments.find(0, "indent");
  if (indent == nullptr || indent->is_none()) return Value::of(to_json(input, -1, budget));
  const int64_t width = expect_integer(*indent, "indent");
  if (width < 0 || width > 16) throw TemplateError("tojson: an indent of 0 to 16 is supported");
  return Value::of(to_json(input, width, budget));
}

Value join(const Value& input, const Arguments& arguments, Budget& budget) {
  arguments.check("join", 2, {"d", "attribute"});
  const Value* separator = arguments.find(0, "d");
  const Value* attribute = arguments.find(1, "attribute");
  std::vector<Value> items = items_of(input, budget);
  if (attribute != nullptr && !attribute->is_none()) {
    for (Value& item : items) item = attribute_of(item, expect_text(*attribute, "join").bytes(), budget);
  }
  return Value::of(joined(items, separator == nullptr ? Text() : printed(*separator, budget), budget));
}

Value first_or_last(const Value& input, Budget& budget, bool first) {
  std::vector<Value> items = items_of(input, budget);
  if (items.empty()) return Value::undefined(first ? "first of nothing" : "last of nothing");
  return first ? items.front() : items.back();
}

Value fallback(const Value& input, const Arguments& arguments, Budget&) {
  arguments.check("default", 2, {"default_value", "boolean"});
  const Value* value = arguments.find(0, "default_value");
  const Value* boolean = arguments.find(1, "boolean");
  const bool missing = input.is_undefined() || (boolean != nullptr && is_true(*boolean) && !is_true(input));
  if (!missing) return input;
  return value != nullptr ? *value : Value::of(Text());
}

Value to_integer(const Value& input, const Arguments& arguments, Budget&) {
  arguments.check("int", 1, {"default"});
  const Value* otherwise = arguments.find(0, "default");
  const Value failed = otherwise != nullptr ? *otherwise : Value::of(int64_t{0});
  if (input.is_integer()) return Value::of(input.integer());
  if (const double* number = std::get_if<double>(&input.storage)) {
    if (!(std::fabs(*number) < 9e18)) return failed;
    return Value::of(static_cast<int64_t>(*number));
  }
  if (input.text() == nullptr) return failed;
  const Text text = stripped(*input.text(), std::nullopt, true, true);
  int64_t number = 0;
  const char* end = text.bytes().data() + text.size();
  const auto result = std::from_chars(text.bytes().data(), end, number);
  return result.ec == std::errc() && result.ptr == end ? Value::of(number) : failed;
}

Value absolute(const Value& input, const Arguments&, Budget&) {
  if (input.is_integer() && input.integer() != INT64_MIN) return Value::of(std::abs(input.integer()));
  if (!input.is_number()) throw TemplateError("abs expects a number, not a " + type_name(input));
  return Value(std::fabs(input.number()));
}

Value replace(const Value& input, const Arguments& arguments, Budget& budget) {
  arguments.check("replace", 3, {"count"});
  const Value* count = arguments.find(2, "count");
  const bool no_limit = count == nullptr || count->is_none();
  return Value::of(replaced(printed(input, budget), expect_text(required(arguments, 0, "replace"), "replace"),
                            expect_text(required(arguments, 1, "replace"), "replace"),
                            no_limit ? -1 : expect_integer(*count, "replace"), budget));
}

// Jinja's own: a word begins after white space or one of -({[<.
Value title(const Value& input, const Arguments&, Budget& budget) {
  const Text text = printed(input, budget);
  std::string result;
  bool at_start = true;
  for (size_t at = 0; at < text.size();) {
    const Utf8Step step = utf8_step(std::string_view(text.bytes()).substr(at));
    const std::string character = text.bytes().substr(at, step.size);
    result += at_start ? to_upper(character) : to_lower(character);
    at_start = is_python_space(step.code_point) || std::string_view("-({[<").find(character) != std::string_view::npos;
    at += step.size;
  }
  return Value::of(text.derived(std::move(result)));
}

Value indent(const Value& input, const Arguments& arguments, Budget& budget) {
  arguments.check("indent", 3, {"width", "first", "blank"});
  const Value* width = arguments.find(0, "width");
  const Value* first = arguments.find(1, "first");
  const Value* blank = arguments.find(2, "blank");
  const int64_t count = width == nullptr ? 4 : expect_integer(*width, "indent");
  if (count < 0 || count > 64) throw TemplateError("indent: a width of 0 to 64 is supported");
  const Text margin = Text::trusted(std::string(static_cast<size_t>(count), ' '));
  const Text text = printed(input, budget);
  Text result;
  size_t begin = 0;
  for (bool is_first = true; begin <= text.size(); is_first = false) {
    budget.spend(1);
    const size_t newline = text.bytes().find('\n', begin);
    const size_t end = newline == std::string::npos ? text.size() : newline + 1;
    const bool is_blank = end - begin <= 1 && (begin == text.size() || text.bytes()[begin] == '\n');
    const bool wanted =
        is_first ? first != nullptr && is_true(*first) : !is_blank || (blank != nullptr && is_true(*blank));
    if (wanted) result.append(margin);
    result.append(text.part(begin, end - begin));
    budget.spend_text(0);
    if (result.size() > budget.max_text_bytes()) budget.spend_text(result.size());
    if (newline == std::string::npos) break;
    begin = end;
  }
  return Value::of(std::move(result));
}

Value map_items(const Value& input, const Arguments& arguments, Budget& budget) {
  std::vector<Value> items = items_of(input, budget);
  if (arguments.positional.empty()) {
    arguments.check("map", 0, {"attribute", "default"});
    const Value* attribute = arguments.find(0, "attribute");
    const Value* otherwise = arguments.find(1, "default");
    if (attribute == nullptr) throw TemplateError("map needs a filter or an attribute");
    for (Value& item : items) {
      item = attribute_of(item, expect_text(*attribute, "map").bytes(), budget);
      if (item.is_undefined() && otherwise != nullptr) item = *otherwise;
    }
    return Value::list(std::move(items));
  }
  const std::string& name = expect_text(arguments.positional[0], "map").bytes();
  if (!is_filter(name)) throw TemplateError("the filter '" + name + "' is not supported");
  const Arguments rest{{arguments.positional.begin() + 1, arguments.positional.end()}, arguments.named};
  for (Value& item : items) item = apply_filter(name, item, rest, budget);
  return Value::list(std::move(items));
}

// select, reject (by_attribute = false), selectattr, rejectattr.
Value filter_items(const Value& input, const Arguments& arguments, Budget& budget, bool by_attribute, bool wanted) {
  const size_t test_at = by_attribute ? 1 : 0;
  arguments.check("select", arguments.positional.size());
  const std::string attribute =
      by_attribute ? expect_text(required(arguments, 0, "selectattr"), "selectattr").bytes() : "";
  const bool has_test = arguments.positional.size() > test_at;
  const std::string test = has_test ? expect_text(arguments.positional[test_at], "select").bytes() : "";
  if (has_test && !is_test(test)) throw TemplateError("the test '" + test + "' is not supported");
  Arguments rest;
  if (has_test)
    rest.positional.assign(arguments.positional.begin() + static_cast<int64_t>(test_at) + 1,
                           arguments.positional.end());
  std::vector<Value> chosen;
  for (const Value& item : items_of(input, budget)) {
    const Value tested = by_attribute ? attribute_of(item, attribute, budget) : item;
    if ((has_test ? apply_test(test, tested, rest, budget) : is_true(tested)) == wanted) chosen.push_back(item);
  }
  return Value::list(std::move(chosen));
}

Value unique(const Value& input, const Arguments& arguments, Budget& budget) {
  arguments.check("unique", 0);
  std::vector<Value> distinct;
  for (const Value& item : items_of(input, budget)) {
    budget.spend(1 + distinct.size());
    if (std::none_of(distinct.begin(), distinct.end(), [&](const Value& seen) { return equal(seen, item); })) {
      distinct.push_back(item);
    }
  }
  return Value::list(std::move(distinct));
}

Value reverse(const Value& input, const Arguments&, Budget& budget) {
  std::vector<Value> items = items_of(input, budget);
  std::reverse(items.begin(), items.end());
  return input.text() != nullptr ? Value::of(joined(items, Text(), budget)) : Value::list(std::move(items));
}

Value items(const Value& input, const Arguments& arguments, Budget& budget) {
  if (input.is_undefined()) return Value::list({});
  if (input.as_dict() == nullptr) throw TemplateError("items expects a dict, not a " + type_name(input));
  return call_method(input, "items", arguments, budget);
}

const std::map<std::string, Filter, std::less<>>& filters() {
  using V = const Value&;
  using A = const Arguments&;
  static const Filter kUpper = [](V v, A, Budget& b) {
    const Text text = printed(v, b);
    return Value::of(text.derived(to_upper(text.bytes())));
  };
  static const Filter kLower = [](V v, A, Budget& b) {
    const Text text = printed(v, b);
    return Value::of(text.derived(to_lower(text.bytes())));
  };
  static const std::map<std::string, Filter, std::less<>> kFilters = {
      {"abs", absolute},
      {"capitalize", [](V v, A, Budget& b) { return Value::of(capitalized(printed(v, b))); }},
      {"count", length},
      {"d", fallback},
      {"default", fallback},
      {"first", [](V v, A, Budget& b) { return first_or_last(v, b, true); }},
      {"indent", indent},
      {"int", to_integer},
      {"items", items},
      {"join", join},
      {"last", [](V v, A, Budget& b) { return first_or_last(v, b, false); }},
      {"length", length},
      {"list", [](V v, A, Budget& b) { return Value::list(items_of(v, b)); }},
      {"lower", kLower},
      {"map", map_items},
      {"reject", [](V v, A a, Budget& b) { return filter_items(v, a, b, false, false); }},
      {"rejectattr", [](V v, A a, Budget& b) { return filter_items(v, a, b, true, false); }},
      {"replace", replace},
      {"reverse", reverse},
      {"safe", [](V v, A, Budget&) { return v; }},
      {"select", [](V v, A a, Budget& b) { return filter_items(v, a, b, false, true); }},
      {"selectattr", [](V v, A a, Budget& b) { return filter_items(v, a, b, true, true); }},
      {"string", [](V v, A, Budget& b) { return Value::of(printed(v, b)); }},
      {"title", title},
      {"tojson", tojson},
      {"trim", trim},
      {"unique", unique},
      {"upper", kUpper},
  };
  return kFilters;
}

Test compared(bool (*holds)(int)) {
  return [=](const Value& value, const Arguments& arguments, Budget&) {
    return holds(compare(value, required(arguments, 0, "the comparison")));
  };
}

int64_t remainder_by(const Value& value, int64_t divisor) {
  if (divisor == 0) throw TemplateError("division by zero");
  return divisor == -1 ? 0 : expect_integer(value, "the test") % divisor;
}

const std::map<std::string, Test, std::less<>>& tests() {
  using V = const Value&;
  using A = const Arguments&;
  static const Test kEqual = [](V v, A a, Budget&) { return equal(v, required(a, 0, "the comparison")); };
  static const Test kUnequal = [](V v, A a, Budget&) { return !equal(v, required(a, 0, "the comparison")); };
  static const Test kLess = compared([](int order) { return order < 0; });
  static const Test kGreater = compared([](int order) { return order > 0; });
  static const Test kAtMost = compared([](int order) { return order <= 0; });
  static const Test kAtLeast = compared([](int order) { return order >= 0; });
  static const auto kIsBool = [](V v) { return std::holds_alternative<bool>(v.storage); };
  static const auto kHasItems = [](V v) {
    return v.text() != nullptr || v.as_list() != nullptr || v.as_dict() != nullptr;
  };
  static const std::map<std::string, Test, std::less<>> kTests = {
      {"!=", kUnequal},
      {"<", kLess},
      {"<=", kAtMost},
      {"==", kEqual},
      {">", kGreater},
      {">=", kAtLeast},
      {"boolean", [](V v, A, Budget&) { return kIsBool(v); }},
      {"defined", [](V v, A, Budget&) { return !v.is_undefined(); }},
      {"divisibleby",
       [](V v, A a, Budget&) {
         return remainder_by(v, expect_integer(required(a, 0, "divisibleby"), "divisibleby")) == 0;
       }},
      {"eq", kEqual},
      {"equalto", kEqual},
      {"even", [](V v, A, Budget&) { return remainder_by(v, 2) == 0; }},
      {"false", [](V v, A, Budget&) { return kIsBool(v) && !is_true(v); }},
      {"float", [](V v, A, Budget&) { return std::holds_alternative<double>(v.storage); }},
      {"ge", kAtLeast},
      {"greaterthan", kGreater},
      {"gt", kGreater},
      {"in", [](V v, A a, Budget& b) { return contains(required(a, 0, "in"), v, b); }},
      {"integer", [](V v, A, Budget&) { return std::holds_alternative<int64_t>(v.storage); }},
      {"iterable", [](V v, A, Budget&) { return kHasItems(v) || v.is_undefined(); }},
      {"le", kAtMost},
      {"lessthan", kLess},
      {"lt", kLess},
      {"mapping", [](V v, A, Budget&) { return v.as_dict() != nullptr; }},
      {"ne", kUnequal},
      {"none", [](V v, A, Budget&) { return v.is_none(); }},
      {"number", [](V v, A, Budget&) { return v.is_number(); }},
      {"odd", [](V v, A, Budget&) { return remainder_by(v, 2) != 0; }},
      {"sequence", [](V v, A, Budget&) { return kHasItems(v) || v.is_undefined(); }},
      {"string", [](V v, A, Budget&) { return v.text() != nullptr; }},
      {"true", [](V v, A, Budget&) { return kIsBool(v) && is_true(v); }},
      {"undefined", [](V v, A, Budget&) { return v.is_undefined(); }},
  };
  return kTests;
}

Value loop_attribute(const Loop& loop, const std::string& name) {
  const auto index = static_cast<int64_t>(loop.index);
  const auto length = static_cast<int64_t>(loop.items->size());
  if (name == "index") return Value::of(index + 1);
  if (name == "index0") return Value::of(index);
  if (name == "revindex") return Value::of(length - index);
  if (name == "revindex0") return Value::of(length - index - 1);
  if (name == "first") return Value::of(index == 0);
  if (name == "last") return Value::of(index + 1 == length);
  if (name == "length") return Value::of(length);
  if (name == "depth") return Value::of(int64_t{1});  // only recursive loops, which are refused, have others
  if (name == "depth0") return Value::of(int64_t{0});
  if (name == "previtem") return index == 0 ? Value::undefined("previtem") : (*loop.items)[loop.index - 1];
  if (name == "nextitem") return index + 1 == length ? Value::undefined("nextitem") : (*loop.items)[loop.index + 1];
  throw TemplateError("'loop." + name + "' is not supported");
}

}  // namespace

bool is_filter(std::string_view name) {
  return filters().contains(name);
}
bool is_test(std::string_view name) {
  return tests().contains(name);
}

Value apply_filter(const std::string& name, const Value& input, const Arguments& arguments, Budget& budget) {
  budget.spend_text(input.text() == nullptr ? 0 : input.text()->size());
  return filters().find(name)->second(input, arguments, budget);
}

bool apply_test(const std::string& name, const Value& input, const Arguments& arguments, Budget& budget) {
  budget.spend_text(input.text() == nullptr ? 0 : input.text()->size());
  return tests().find(name)->second(input, arguments, budget);
}

Value attribute_of(const Value& object, const std::string& name, Budget& budget) {
  if (object.is_undefined()) throw TemplateError("'" + std::get<Undefined>(object.storage).name + "' is undefined");
  if (has_method(object, name)) return Value(Method{std::make_shared<const Value>(object), name});
  if (const Loop* const* loop = std::get_if<Loop*>(&object.storage)) return loop_attribute(**loop, name);
  if (const Namespace* const* space = std::get_if<Namespace*>(&object.storage)) {
    const auto found = (*space)->values.find(name);
    return found == (*space)->values.end() ? Value::undefined(name) : found->second;
  }
  if (const Dict* dict = object.as_dict()) {
    budget.spend(dict->items.size());
    if (const Value* found = dict->find(name)) return *found;
  }
  return Value::undefined(name);
}

Value item_of(const Value& object, const Value& key, Budget& budget) {
  if (object.is_undefined()) throw TemplateError("'" + std::get<Undefined>(object.storage).name + "' is undefined");
  if (const Dict* dict = object.as_dict()) {
    budget.spend(dict->items.size());
    const Value* found = key.text() == nullptr ? nullptr : dict->find(key.text()->bytes());
    return found != nullptr ? *found : Value::undefined(key.text() == nullptr ? "item" : key.text()->bytes());
  }
  const Text* text = object.text();
  const List* list = object.as_list();
  if (!key.is_integer() || (list == nullptr && text == nullptr)) return Value::undefined("item");
  budget.spend_text(text != nullptr ? text->size() : 0);
  const auto length = text != nullptr ? count_characters(*text) : static_cast<int64_t>(list->items.size());
  const int64_t index = key.integer() < 0 ? key.integer() + length : key.integer();
  if (index < 0 || index >= length) return Value::undefined("item " + std::to_string(key.integer()));
  if (list != nullptr) return list->items[static_cast<size_t>(index)];
  const size_t begin = offset_of_character(*text, index);
  return Value::of(text->part(begin, utf8_size(std::string_view(text->bytes()).substr(begin))));
}

bool contains(const Value& container, const Value& item, Budget& budget) {
  if (const Text* text = container.text()) {
    budget.spend_text(text->size());
    return find_text(text->bytes(), expect_text(item, "'in'").bytes()) != std::string_view::npos;
  }
  if (const List* list = container.as_list()) {
    budget.spend(list->items.size());
    return std::any_of(list->items.begin(), list->items.end(), [&](const Value& other) { return equal(item, other); });
  }
  if (const Dict* dict = container.as_dict()) {
    budget.spend(dict->items.size());
    return item.text() != nullptr && dict->find(item.text()->bytes()) != nullptr;
  }
  if (container.is_undefined()) return false;
  throw TemplateError("a " + type_name(container) + " contains nothing");
}

std::vector<Value> items_of(const Value& value, Budget& budget) {
  if (const List* list = value.as_list()) {
    budget.spend(list->items.size());
    return list->items;
  }
  if (const Text* text = value.text()) return characters_of(*text, budget);
  if (value.is_undefined()) return {};
  std::vector<Value> keys;
  if (const Dict* dict = value.as_dict()) {
    budget.spend(dict->items.size());
    for (const auto& [key, item] : dict->items) keys.push_back(Value::of(key));
    return keys;
  }
  throw TemplateError("a " + type_name(value) + " is not iterable");
}

}  // namespace troupe::jinja
