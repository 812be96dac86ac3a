#include "core/io/pickle.hpp"

#include <bit>
#include <cstdio>
#include <map>
#include <optional>
#include <stdexcept>

namespace troupe {
namespace {

constexpr std::size_t kMaxNameBytes = 1024;

// A stack machine, as pickle is defined; values instead of objects.
class Machine {
 public:
  explicit Machine(std::string_view bytes) : bytes_(bytes) {}

  PickleDocument run() {
    for (;;) {
      opcode_at_ = at_;
      const auto opcode = static_cast<uint8_t>(take(1)[0]);
      if (opcode == '.') break;
      step(opcode);
    }
    document_.root = pop();
    return std::move(document_);
  }

 private:
  void step(uint8_t opcode);
  bool step_value(uint8_t opcode);
  bool step_container(uint8_t opcode);
  bool step_memory(uint8_t opcode);
  bool step_object(uint8_t opcode);

  [[noreturn]] void fail(const std::string& reason) const {
    throw std::runtime_error("pickle, byte " + std::to_string(opcode_at_) + ": " + reason);
  }

  std::string_view take(uint64_t size) {
    if (size > bytes_.size() - at_) fail("cut short");
    at_ += size;
    return bytes_.substr(at_ - size, size);
  }
  uint64_t number(std::size_t size) {
    const std::string_view raw = take(size);
    uint64_t value = 0;
    for (std::size_t i = size; i > 0; --i) value = value << 8 | static_cast<uint8_t>(raw[i - 1]);
    return value;
  }
  std::string line() {
    const std::size_t end = bytes_.find('\n', at_);
    if (end == bytes_.npos || end - at_ > kMaxNameBytes) fail("a name without an end");
    const std::string text(take(end - at_));
    take(1);
    return text;
  }

  void push(PickleValue value) { stack_.push_back(std::move(value)); }
  PickleValue pop() {
    if (stack_.size() <= floor()) fail("takes a value where there is none");
    PickleValue value = std::move(stack_.back());
    stack_.pop_back();
    return value;
  }
  PickleValue& top() {
    if (stack_.size() <= floor()) fail("needs a value where there is none");
    return stack_.back();
  }
  std::size_t floor() const { return marks_.empty() ? 0 : marks_.back(); }
  // The values above the last mark, which goes.
  std::vector<PickleValue> pop_marked() {
    if (marks_.empty()) fail("there is no mark");
    const auto begin = stack_.begin() + static_cast<std::ptrdiff_t>(marks_.back());
    std::vector<PickleValue> values(std::make_move_iterator(begin), std::make_move_iterator(stack_.end()));
    stack_.resize(marks_.back());
    marks_.pop_back();
    return values;
  }

  const std::string* new_string(std::string_view text) { return &document_.strings.emplace_back(text); }
  const PickleList* new_list(std::vector<PickleValue> items) {
    return &document_.lists.emplace_back(PickleList{std::move(items)});
  }
  const PickleList* pop_tuple(std::size_t size) {
    std::vector<PickleValue> items(size);
    for (std::size_t i = size; i > 0; --i) items[i - 1] = pop();
    return new_list(std::move(items));
  }
  // The document's own container that a value points to, to be added to.
  PickleList& list_at_top() {
    const auto* list = std::get_if<const PickleList*>(&top());
    if (list == nullptr) fail("appends to " + kind_of(top()));
    return const_cast<PickleList&>(**list);
  }
  PickleDict& dict_at_top() {
    const auto* dict = std::get_if<const PickleDict*>(&top());
    if (dict == nullptr) fail("sets an item of " + kind_of(top()));
    return const_cast<PickleDict&>(**dict);
  }
  void set_items(std::vector<PickleValue> items) {
    if (items.size() % 2 != 0) fail("a key without a value");
    PickleDict& dict = dict_at_top();
    for (std::size_t i = 0; i < items.size(); i += 2)
      dict.items.emplace_back(std::move(items[i]), std::move(items[i + 1]));
  }

  const std::string& pop_string() {
    const PickleValue value = pop();
    if (const auto* text = std::get_if<const std::string*>(&value)) return **text;
    fail("expected a string, found " + kind_of(value));
  }
  void call(const PickleValue& callee, const PickleValue& arguments) {
    const auto* global = std::get_if<PickleGlobal>(&callee);
    const auto* tuple = std::get_if<const PickleList*>(&arguments);
    if (global == nullptr || tuple == nullptr) fail("calls " + kind_of(callee));
    if (*global->name == "collections.OrderedDict" && (*tuple)->items.empty()) {
      push(&document_.dicts.emplace_back());
    } else {
      push(&document_.calls.emplace_back(PickleCall{*global->name, *tuple}));
    }
  }
  void remember(uint64_t index) { memo_.insert_or_assign(index, top()); }
  void recall(uint64_t index) {
    const auto found = memo_.find(index);
    if (found == memo_.end()) fail("recalls value " + std::to_string(index) + ", which was never remembered");
    push(found->second);
  }
  // Two's complement of any length; what does not fit 64 bits is refused.
  int64_t long_number(std::size_t size) {
    if (size > 8) fail("an integer of " + std::to_string(size) + " bytes");
    const uint64_t value = number(size);
    const unsigned unused = static_cast<unsigned>(64 - 8 * size);
    return size == 0 ? 0 : static_cast<int64_t>(value << unused) >> unused;
  }

  const std::string_view bytes_;
  std::size_t at_ = 0;
  std::size_t opcode_at_ = 0;
  std::vector<PickleValue> stack_;
  std::vector<std::size_t> marks_;
  std::map<uint64_t, PickleValue> memo_;
  PickleDocument document_;
};

bool Machine::step_value(uint8_t opcode) {
  switch (opcode) {
    case 'N':
      push(PickleNone{});
      return true;
    case 0x88:
      push(true);
      return true;
    case 0x89:
      push(false);
      return true;
    case 'K':
      push(static_cast<int64_t>(number(1)));
      return true;
    case 'M':
      push(static_cast<int64_t>(number(2)));
      return true;
    case 'J':
      push(static_cast<int64_t>(static_cast<int32_t>(number(4))));
      return true;
    case 0x8a:
      push(long_number(number(1)));
      return true;
    case 'G': {  // the only number in big-endian order
      uint64_t bits = 0;
      for (const char c : take(8)) bits = bits << 8 | static_cast<uint8_t>(c);
      push(std::bit_cast<double>(bits));
      return true;
    }
    case 0x8c:
      push(new_string(take(number(1))));
      return true;  // text and bytes alike, by length's width
    case 'X':
      push(new_string(take(number(4))));
      return true;
    case 0x8d:
      push(new_string(take(number(8))));
      return true;
    case 'U':
    case 'C':
      push(new_string(take(number(1))));
      return true;
    case 'T':
    case 'B':
      push(new_string(take(number(4))));
      return true;
    case 0x8e:
      push(new_string(take(number(8))));
      return true;
    default:
      return false;
  }
}

bool Machine::step_container(uint8_t opcode) {
  switch (opcode) {
    case '(':
      marks_.push_back(stack_.size());
      return true;
    case ')':
      push(new_list({}));
      return true;
    case ']':
      push(new_list({}));
      return true;
    case '}':
      push(&document_.dicts.emplace_back());
      return true;
    case 't':
    case 'l':
      push(new_list(pop_marked()));
      return true;
    case 0x85:
      push(pop_tuple(1));
      return true;
    case 0x86:
      push(pop_tuple(2));
      return true;
    case 0x87:
      push(pop_tuple(3));
      return true;
    case 'a': {
      PickleValue item = pop();
      list_at_top().items.push_back(std::move(item));
      return true;
    }
    case 'e': {
      std::vector<PickleValue> items = pop_marked();
      PickleList& list = list_at_top();
      for (PickleValue& item : items) list.items.push_back(std::move(item));
      return true;
    }
    case 's': {
      PickleValue value = pop();
      PickleValue key = pop();
      dict_at_top().items.emplace_back(std::move(key), std::move(value));
      return true;
    }
    case 'u':
      set_items(pop_marked());
      return true;
    case 'd': {
      std::vector<PickleValue> items = pop_marked();
      push(&document_.dicts.emplace_back());
      set_items(std::move(items));
      return true;
    }
    default:
      return false;
  }
}

bool Machine::step_memory(uint8_t opcode) {
  switch (opcode) {
    case 0x80:
      if (const uint64_t protocol = number(1); protocol < 2 || protocol > 5)
        fail("protocol " + std::to_string(protocol) + "; 2 to 5 are read");
      return true;
    case 0x95:
      number(8);
      return true;  // a frame's length says nothing that is needed
    case 'q':
      remember(number(1));
      return true;
    case 'r':
      remember(number(4));
      return true;
    case 0x94:
      remember(memo_.size());
      return true;
    case 'h':
      recall(number(1));
      return true;
    case 'j':
      recall(number(4));
      return true;
    case '0':
      pop();
      return true;
    case '1':
      pop_marked();
      return true;
    case '2':
      push(PickleValue(top()));
      return true;
    default:
      return false;
  }
}

bool Machine::step_object(uint8_t opcode) {
  switch (opcode) {
    case 'c': {
      const std::string module = line();
      push(PickleGlobal{new_string(module + "." + line())});
      return true;
    }
    case 0x93: {
      const std::string& name = pop_string();
      const std::string& module = pop_string();
      if (module.size() + name.size() > kMaxNameBytes) fail("a name that is too long");
      push(PickleGlobal{new_string(module + "." + name)});
      return true;
    }
    case 'R':
    case 0x81: {
      const PickleValue arguments = pop();
      const PickleValue callee = pop();
      call(callee, arguments);
      return true;
    }
    case 'b':  // an ordered dictionary's attributes (a state dict's versions), or those of an object nobody makes here
      pop();
      top();
      return true;
    case 'Q': {
      const PickleValue id = pop();
      const auto* tuple = std::get_if<const PickleList*>(&id);
      if (tuple == nullptr) fail("a persistent object that is no tuple");
      push(&document_.calls.emplace_back(PickleCall{"", *tuple}));
      return true;
    }
    default:
      return false;
  }
}

void Machine::step(uint8_t opcode) {
  if (step_value(opcode) || step_container(opcode) || step_memory(opcode) || step_object(opcode)) return;
  char name[8];
  std::snprintf(name, sizeof name, "0x%02x", opcode);
  fail(std::string("opcode ") + name + " is not used by torch.save of tensors, and not read here");
}

}  // namespace

PickleDocument parse_pickle(std::string_view bytes) {
  return Machine(bytes).run();
}

std::string kind_of(const PickleValue& value) {
  struct Kind {
    std::string operator()(PickleNone) const { return "None"; }
    std::string operator()(bool) const { return "a truth value"; }
    std::string operator()(int64_t) const { return "an integer"; }
    std::string operator()(double) const { return "a number"; }
    std::string operator()(const std::string*) const { return "a string"; }
    std::string operator()(const PickleGlobal& global) const { return "the object " + *global.name; }
    std::string operator()(const PickleList*) const { return "a list"; }
    std::string operator()(const PickleDict*) const { return "a dictionary"; }
    std::string operator()(const PickleCall* call) const {
      return call->name.empty() ? "a storage" : "an object made by " + call->name;
    }
  };
  return std::visit(Kind{}, value);
}

}  // namespace troupe
