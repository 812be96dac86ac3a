// The part of Python's pickle that checkpoints are written in, protocols 2 to 5, parsed into plain values: nothing is
// imported and nothing is called. https://docs.python.org/3/library/pickletools.html names the opcodes. No tensors.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace troupe {

struct PickleList;
struct PickleDict;
struct PickleCall;

struct PickleNone {};
struct PickleGlobal {
  const std::string* name;  // "torch.FloatStorage"
};

// What is larger than a number belongs to the document and is pointed to, so that a value that stands at many places
// costs little; a container may stand in itself.
using PickleValue = std::variant<PickleNone, bool, int64_t, double, const std::string*, PickleGlobal, const PickleList*,
                                 const PickleDict*, const PickleCall*>;

struct PickleList {  // list, tuple
  std::vector<PickleValue> items;
};
struct PickleDict {
  std::vector<std::pair<PickleValue, PickleValue>> items;
};
// What the file asks to be called, or a persistent object (name ""): for the reader to understand or to refuse.
struct PickleCall {
  std::string name;
  const PickleList* arguments;
};

struct PickleDocument {
  PickleValue root;
  std::deque<std::string> strings;
  std::deque<PickleList> lists;
  std::deque<PickleDict> dicts;
  std::deque<PickleCall> calls;
};

// Memory: at most about 64 times the bytes. collections.OrderedDict() becomes a dictionary; what an object's
// __setstate__ would be given is dropped. Throws std::runtime_error with the byte and the opcode at fault.
PickleDocument parse_pickle(std::string_view bytes);

// "None", "a string", "a call of torch.device", ...: for messages.
std::string kind_of(const PickleValue& value);

}  // namespace troupe
