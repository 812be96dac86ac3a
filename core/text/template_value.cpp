#include "core/text/template_value.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>

#include "core/text/unicode.hpp"

namespace troupe::jinja {
namespace {

constexpr int kMaxContainerDepth = 64;

int checked_depth(int depth) {
  if (depth > kMaxContainerDepth) throw TemplateError("lists or dictionaries nest too deeply");
  return depth;
}

// Python's repr of a string.
std::string quoted(std::string_view text) {
  const bool use_double = text.find('\'') != std::string_view::npos && text.find('"') == std::string_view::npos;
  const char quote = use_double ? '"' : '\'';
  std::string result(1, quote);
  for (size_t at = 0; at < text.size();) {
    const Utf8Step step = utf8_step(text.substr(at));
    const uint32_t c = step.code_point;
    char escape[16];
    if (c == '\\' || c == static_cast<uint32_t>(quote)) {
      result += {'\\', static_cast<char>(c)};
    } else if (c == '\n' || c == '\r' || c == '\t') {
      result += c == '\n' ? "\\n" : c == '\r' ? "\\r" : "\\t";
    } else if (is_printable(c)) {
      result += text.substr(at, step.size);
    } else {
      std::snprintf(escape, sizeof escape, c < 0x100 ? "\\x%02x" : c < 0x10000 ? "\\u%04x" : "\\U%08x", c);
      result += escape;
    }
    at += step.size;
  }
  return result + quote;
}

std::string json_quoted(std::string_view text) {
  std::string result = "\"";
  for (const char c : text) {
    const auto byte = static_cast<uint8_t>(c);
    char escape[8];
    switch (c) {
      case '"':
      case '\\':
        result += {'\\', c};
        break;
      case '\n':
        result += "\\n";
        break;
      case '\r':
        result += "\\r";
        break;
      case '\t':
        result += "\\t";
        break;
      case '\b':
        result += "\\b";
        break;
      case '\f':
        result += "\\f";
        break;
      default:
        if (byte < 0x20) {
          std::snprintf(escape, sizeof escape, "\\u%04x", byte);
          result += escape;
        } else {
          result += c;
        }
    }
  }
  return result + '"';
}

// Writes values and remembers whether a caller's text is among them.
struct Writer {
  Budget& budget;
  std::string out;
  bool trusted = true;

  Text take() {
    budget.spend_text(out.size());
    return trusted ? Text::trusted(std::move(out)) : Text::untrusted(std::move(out));
  }

  std::string_view bytes_of(const Text& text) {
    trusted = trusted && text.is_trusted();
    budget.spend_text(out.size() + text.size());
    return text.bytes();
  }

  void repr(const Value& value) {
    if (const Text* text = value.text()) {
      out += quoted(bytes_of(*text));
    } else if (const List* list = value.as_list()) {
      out += list->is_tuple ? "(" : "[";
      for (size_t i = 0; i < list->items.size(); ++i) {
        if (i > 0) out += ", ";
        repr(list->items[i]);
      }
      if (list->is_tuple && list->items.size() == 1) out += ',';
      out += list->is_tuple ? ")" : "]";
    } else if (const Dict* dict = value.as_dict()) {
      out += '{';
      for (size_t i = 0; i < dict->items.size(); ++i) {
        if (i > 0) out += ", ";
        out += quoted(bytes_of(dict->items[i].first)) + ": ";
        repr(dict->items[i].second);
      }
      out += '}';
    } else {
      plain(value, "True", "False", "None");
    }
  }

  void plain(const Value& value, const char* yes, const char* no, const char* none) {
    if (const bool* truth = std::get_if<bool>(&value.storage)) {
      out += *truth ? yes : no;
    } else if (const int64_t* integer = std::get_if<int64_t>(&value.storage)) {
      out += std::to_string(*integer);
    } else if (const double* number = std::get_if<double>(&value.storage)) {
      out += float_text(*number);
    } else if (value.is_none()) {
      out += none;
    } else {
      throw TemplateError("a " + type_name(value) + " cannot be written as text");
    }
  }

  void new_line(int64_t indent, int depth) {
    if (indent < 0) return;
    out += '\n';
    out.append(static_cast<size_t>(indent) * static_cast<size_t>(depth), ' ');
  }

  void json(const Value& value, int64_t indent, int depth) {
    if (const Text* text = value.text()) {
      out += json_quoted(bytes_of(*text));
    } else if (const List* list = value.as_list()) {
      sequence('[', ']', list->items.size(), indent, depth, [&](size_t i) { json(list->items[i], indent, depth + 1); });
    } else if (const Dict* dict = value.as_dict()) {
      sequence('{', '}', dict->items.size(), indent, depth, [&](size_t i) {
        out += json_quoted(bytes_of(dict->items[i].first)) + ": ";
        json(dict->items[i].second, indent, depth + 1);
      });
    } else {
      plain(value, "true", "false", "null");
    }
  }

  template <typename Write>
  void sequence(char open, char close, size_t count, int64_t indent, int depth, Write write) {
    out += open;
    for (size_t i = 0; i < count; ++i) {
      if (i > 0) out += indent < 0 ? ", " : ",";
      new_line(indent, depth + 1);
      write(i);
    }
    if (count > 0) new_line(indent, depth);
    out += close;
  }
};

}  // namespace

Text Text::untrusted(std::string bytes) {
  std::string marks(bytes.size(), '\0');
  return Text(std::move(bytes), std::move(marks));
}

Text Text::part(size_t begin, size_t count) const {
  return Text(bytes_.substr(begin, count), marks_.empty() ? std::string() : marks_.substr(begin, count));
}

void Text::append(const Text& other) {
  if (other.empty()) return;
  if (!marks_.empty() || !other.marks_.empty()) {
    marks_.resize(bytes_.size(), '\1');
    other.marks_.empty() ? marks_.append(other.size(), '\1') : marks_.append(other.marks_);
  }
  bytes_ += other.bytes_;
}

const Value* Dict::find(std::string_view key) const {
  for (const auto& [name, value] : items) {
    if (name.bytes() == key) return &value;
  }
  return nullptr;
}

Value Value::list(std::vector<Value> items, bool is_tuple) {
  int depth = 0;
  for (const Value& item : items) depth = std::max(depth, depth_of(item));
  return Value(std::make_shared<const List>(List{std::move(items), is_tuple, checked_depth(depth + 1)}));
}

Value Value::dict(std::vector<std::pair<Text, Value>> items) {
  int depth = 0;
  for (const auto& [key, item] : items) depth = std::max(depth, depth_of(item));
  return Value(std::make_shared<const Dict>(Dict{std::move(items), checked_depth(depth + 1)}));
}

int64_t Value::integer() const {
  const bool* truth = std::get_if<bool>(&storage);
  return truth != nullptr ? int64_t{*truth} : std::get<int64_t>(storage);
}

double Value::number() const {
  return is_integer() ? static_cast<double>(integer()) : std::get<double>(storage);
}

int depth_of(const Value& value) {
  if (const List* list = value.as_list()) return list->depth;
  if (const Dict* dict = value.as_dict()) return dict->depth;
  // A method keeps its object alive.
  if (const auto* method = std::get_if<Method>(&value.storage)) return depth_of(*method->self) + 1;
  return 0;
}

bool is_true(const Value& value) {
  if (const Text* text = value.text()) return !text->empty();
  if (const List* list = value.as_list()) return !list->items.empty();
  if (const Dict* dict = value.as_dict()) return !dict->items.empty();
  if (value.is_number()) return value.number() != 0;
  return !value.is_undefined() && !value.is_none();
}

bool equal(const Value& left, const Value& right) {
  if (left.is_integer() && right.is_integer()) return left.integer() == right.integer();
  if (left.is_number() && right.is_number()) return left.number() == right.number();
  if (left.storage.index() != right.storage.index()) return false;
  if (left.is_none() || left.is_undefined()) return true;
  if (left.text() != nullptr) return left.text()->bytes() == right.text()->bytes();
  if (const List* list = left.as_list()) {
    const List& other = *right.as_list();
    return list->is_tuple == other.is_tuple &&
           std::equal(list->items.begin(), list->items.end(), other.items.begin(), other.items.end(), equal);
  }
  if (const Dict* dict = left.as_dict()) {
    const Dict& other = *right.as_dict();
    return dict->items.size() == other.items.size() &&
           std::all_of(dict->items.begin(), dict->items.end(), [&](const auto& item) {
             const Value* found = other.find(item.first.bytes());
             return found != nullptr && equal(item.second, *found);
           });
  }
  throw TemplateError("a " + type_name(left) + " cannot be compared");
}

int compare(const Value& left, const Value& right) {
  if (left.is_integer() && right.is_integer()) {
    return left.integer() < right.integer() ? -1 : left.integer() > right.integer() ? 1 : 0;
  }
  if (left.is_number() && right.is_number()) {
    return left.number() < right.number() ? -1 : left.number() > right.number() ? 1 : 0;
  }
  // The order of UTF-8 bytes is the order of code points.
  if (left.text() != nullptr && right.text() != nullptr) return left.text()->bytes().compare(right.text()->bytes());
  throw TemplateError("a " + type_name(left) + " and a " + type_name(right) + " have no order");
}

std::string type_name(const Value& value) {
  static constexpr const char* kNames[] = {"undefined", "None",      "bool", "int",   "float",  "str",     "list",
                                           "dict",      "namespace", "loop", "macro", "method", "function"};
  if (const auto* undefined = std::get_if<Undefined>(&value.storage))
    return "undefined value '" + undefined->name + "'";
  return kNames[value.storage.index()];
}

Text printed(const Value& value, Budget& budget) {
  if (const Text* text = value.text()) return *text;
  if (value.is_undefined()) return {};
  Writer writer{budget, {}};
  writer.repr(value);
  return writer.take();
}

Text to_json(const Value& value, int64_t indent, Budget& budget) {
  Writer writer{budget, {}};
  writer.json(value, indent, 0);
  return writer.take();
}

bool is_python_space(uint32_t code_point) {
  return is_white_space(code_point) || (code_point >= 0x1C && code_point <= 0x1F);
}

// Python's repr of a float: the shortest digits that read back the same, scientific below 1e-4 and from 1e16 on.
std::string float_text(double number) {
  if (std::isnan(number)) return "nan";
  if (std::isinf(number)) return number > 0 ? "inf" : "-inf";
  const double size = std::fabs(number);
  const bool scientific = size != 0 && (size < 1e-4 || size >= 1e16);
  char buffer[64];
  const auto format = scientific ? std::chars_format::scientific : std::chars_format::fixed;
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, number, format).ptr;
  std::string text(buffer, end);
  if (!scientific && text.find('.') == std::string::npos) text += ".0";
  return text;
}

}  // namespace troupe::jinja
