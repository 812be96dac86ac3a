// The values a chat template computes with. Internal to the template files of core/text.
//
// Every text knows for each of its bytes whether the template itself wrote it; all operations carry these marks along,
// and an operation that cannot follow single bytes (tojson, case mapping) gives the mark of the least trusted one.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace troupe::jinja {

// An error of the running template; the interpreter adds the line.
class TemplateError : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

// What one rendering may still use up.
class Budget {
 public:
  Budget(uint64_t max_steps, size_t max_text_bytes) : steps_left_(max_steps), max_text_bytes_(max_text_bytes) {}

  void spend(uint64_t steps) {
    if (steps > steps_left_) throw TemplateError("the template takes too many steps");
    steps_left_ -= steps;
  }
  // Call before making or reading through a text of this size.
  void spend_text(size_t size_bytes) {
    if (size_bytes > max_text_bytes_)
      throw TemplateError("a text grows past " + std::to_string(max_text_bytes_) + " bytes");
    spend(1 + size_bytes / 64);
  }
  size_t max_text_bytes() const { return max_text_bytes_; }

 private:
  uint64_t steps_left_;
  const size_t max_text_bytes_;
};

// Well-formed UTF-8 with a mark per byte.
class Text {
 public:
  Text() = default;
  static Text trusted(std::string bytes) { return Text(std::move(bytes), {}); }
  static Text untrusted(std::string bytes);

  const std::string& bytes() const { return bytes_; }
  size_t size() const { return bytes_.size(); }
  bool empty() const { return bytes_.empty(); }
  bool is_trusted() const { return marks_.empty(); }
  // As long as the text: 1 = the template's own byte.
  std::string marks() const { return marks_.empty() ? std::string(bytes_.size(), '\1') : marks_; }

  Text part(size_t begin, size_t count = std::string::npos) const;
  void append(const Text& other);
  // Another text computed from this one as a whole.
  Text derived(std::string bytes) const {
    return is_trusted() ? trusted(std::move(bytes)) : untrusted(std::move(bytes));
  }

 private:
  Text(std::string bytes, std::string marks) : bytes_(std::move(bytes)), marks_(std::move(marks)) {}
  std::string bytes_;
  std::string marks_;  // empty = all trusted; else as long as bytes_
};

struct Value;
struct MacroStatement;

struct Undefined {
  std::string name;  // what was looked for
};
struct None {};

// Lists, tuples and dictionaries never change once made, and know how deeply they nest.
struct List {
  std::vector<Value> items;
  bool is_tuple = false;
  int depth = 1;
};
struct Dict {
  std::vector<std::pair<Text, Value>> items;  // in the order of insertion
  int depth = 1;
  const Value* find(std::string_view key) const;
};

// Owned by the interpreter, so that a template cannot tie cycles of owners.
struct Namespace {
  std::map<std::string, Value> values;
};
struct Loop;

struct Method {
  std::shared_ptr<const Value> self;
  std::string name;
};
struct Builtin {
  std::string name;
};

struct Value {
  using Storage =
      std::variant<Undefined, None, bool, int64_t, double, std::shared_ptr<const Text>, std::shared_ptr<const List>,
                   std::shared_ptr<const Dict>, Namespace*, Loop*, const MacroStatement*, Method, Builtin>;
  Storage storage;

  Value() : storage(None{}) {}
  Value(Storage value) : storage(std::move(value)) {}
  static Value of(Text text) { return Value(std::make_shared<const Text>(std::move(text))); }
  static Value of(std::string trusted) { return of(Text::trusted(std::move(trusted))); }
  static Value of(int64_t number) { return Value(Storage(number)); }
  static Value of(bool truth) { return Value(Storage(truth)); }
  static Value list(std::vector<Value> items, bool is_tuple = false);
  static Value dict(std::vector<std::pair<Text, Value>> items);
  static Value undefined(std::string name) { return Value(Undefined{std::move(name)}); }

  const Text* text() const { return pointed<Text>(); }
  const List* as_list() const { return pointed<List>(); }
  const Dict* as_dict() const { return pointed<Dict>(); }
  bool is_undefined() const { return std::holds_alternative<Undefined>(storage); }
  bool is_none() const { return std::holds_alternative<None>(storage); }
  bool is_number() const { return is_integer() || std::holds_alternative<double>(storage); }
  // A truth value counts as an integer, as in Python.
  bool is_integer() const { return std::holds_alternative<int64_t>(storage) || std::holds_alternative<bool>(storage); }
  int64_t integer() const;  // of is_integer()
  double number() const;    // of is_number()

 private:
  template <typename T>
  const T* pointed() const {
    const auto* pointer = std::get_if<std::shared_ptr<const T>>(&storage);
    return pointer == nullptr ? nullptr : pointer->get();
  }
};

struct Loop {
  std::shared_ptr<const std::vector<Value>> items;
  size_t index = 0;
};

int depth_of(const Value& value);
bool is_true(const Value& value);
bool equal(const Value& left, const Value& right);
// Negative, zero or positive. Throws TemplateError for values without an order.
int compare(const Value& left, const Value& right);
// Python's name of the type, for messages.
std::string type_name(const Value& value);

// What {{ value }} prints: Python's str().
Text printed(const Value& value, Budget& budget);
// JSON as Python's json.dumps(ensure_ascii=False) writes it; indent < 0 is one line.
Text to_json(const Value& value, int64_t indent, Budget& budget);

// Python's str.isspace for a character.
bool is_python_space(uint32_t code_point);
std::string float_text(double number);

}  // namespace troupe::jinja
