#include "core/data/arithmetic.hpp"

#include <algorithm>
#include <stdexcept>

#include "core/config.hpp"
#include "core/data/mixing.hpp"
#include "core/io/disk.hpp"

namespace troupe {
namespace {

constexpr int64_t kMaxOperand = 1'000'000'000;  // a product stays within int64
constexpr int64_t kMaxQuestions = 4'000'000;    // ranges beyond that are cut down by the caller's own choice of range

// The questions that must stay on one side: a pair, for + and * in both orders.
using Pair = std::vector<ArithmeticQuestion>;

void replace_all(std::string& text, const std::string& what, const std::string& by) {
  for (std::size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + by.size()))
    text.replace(at, what.size(), by);
}

ArithmeticQuestion question(const ArithmeticConfig& c, int64_t a, const std::string& op, int64_t b) {
  ArithmeticQuestion q;
  q.prompt = c.question;
  replace_all(q.prompt, "{a}", std::to_string(a));
  replace_all(q.prompt, "{op}", op);
  replace_all(q.prompt, "{b}", std::to_string(b));
  q.answer = std::to_string(op == "+" ? a + b : op == "-" ? a - b : a * b);
  q.id = std::to_string(a) + op + std::to_string(b);
  return q;
}

std::vector<Pair> all_pairs(const ArithmeticConfig& c) {
  std::vector<Pair> pairs;
  for (const std::string& op : c.operations)
    for (int64_t a = c.low; a <= c.high; ++a)
      for (int64_t b = op == "-" ? c.low : a; b <= c.high; ++b) {
        Pair pair{question(c, a, op, b)};
        if (op != "-" && a != b) pair.push_back(question(c, b, op, a));
        pairs.push_back(std::move(pair));
      }
  return pairs;
}

// A number in [0, size), each equally likely: draws from the uneven end are thrown away.
uint64_t below(uint64_t size, uint64_t key, uint64_t& counter) {
  const uint64_t limit = UINT64_MAX - UINT64_MAX % size;
  for (;;) {
    const uint64_t draw = mixed(key, counter++);
    if (draw < limit) return draw % size;
  }
}

template <class T>
void shuffle(std::vector<T>& items, uint64_t key) {
  uint64_t counter = 0;
  for (std::size_t i = items.size(); i > 1; --i) std::swap(items[i - 1], items[below(i, key, counter)]);
}

void check(const ArithmeticConfig& c) {
  if (c.low < -kMaxOperand || c.high > kMaxOperand || c.low > c.high)
    throw std::invalid_argument("arithmetic: expected low <= high within +-1e9");
  if (c.operations.empty()) throw std::invalid_argument("arithmetic: expected at least one operation");
  for (std::size_t i = 0; i < c.operations.size(); ++i) {
    const std::string& op = c.operations[i];
    if (op != "+" && op != "-" && op != "*")
      throw std::invalid_argument("arithmetic: unknown operation \"" + op + "\"; expected +, - or *");
    if (std::find(c.operations.begin(), c.operations.begin() + static_cast<std::ptrdiff_t>(i), op) !=
        c.operations.begin() + static_cast<std::ptrdiff_t>(i))
      throw std::invalid_argument("arithmetic: operation \"" + op + "\" stands twice");
  }
  for (const char* place : {"{a}", "{b}", "{op}"})
    if (c.question.find(place) == std::string::npos)
      throw std::invalid_argument(std::string("arithmetic: the question lacks ") + place);
  if (c.num_heldout < 0 || c.num_train < 0) throw std::invalid_argument("arithmetic: a negative number of questions");
  const int64_t range = c.high - c.low + 1;
  if (range > kMaxQuestions / range || range * range * static_cast<int64_t>(c.operations.size()) > kMaxQuestions)
    throw std::invalid_argument("arithmetic: the range gives more than 4 million questions");
}

}  // namespace

ArithmeticTask make_arithmetic(const ArithmeticConfig& c) {
  check(c);
  std::vector<Pair> pairs = all_pairs(c);
  shuffle(pairs, mixed(c.seed, 0));
  ArithmeticTask task;
  const auto wanted = static_cast<std::size_t>(c.num_heldout);
  for (Pair& pair : pairs) {
    const bool held_out = task.heldout.size() < wanted;
    std::vector<ArithmeticQuestion>& side = held_out ? task.heldout : task.train;
    for (ArithmeticQuestion& q : pair)
      if (!held_out || side.size() < wanted) side.push_back(std::move(q));
  }
  if (task.heldout.size() < wanted)
    throw std::invalid_argument("arithmetic: " + std::to_string(wanted) + " held-out questions asked for, " +
                                std::to_string(task.heldout.size()) + " exist");
  shuffle(task.train, mixed(c.seed, 1));
  shuffle(task.heldout, mixed(c.seed, 2));
  const auto train = static_cast<std::size_t>(c.num_train);
  if (task.train.size() < train)
    throw std::invalid_argument("arithmetic: " + std::to_string(train) + " training questions asked for, " +
                                std::to_string(task.train.size()) + " are left beside the held-out ones");
  if (train > 0) task.train.resize(train);
  return task;
}

void write_questions(const std::vector<ArithmeticQuestion>& questions, const std::filesystem::path& file) {
  std::string lines;
  for (const ArithmeticQuestion& q : questions)
    lines += OrderedJson{{"id", q.id}, {"prompt", q.prompt}, {"answer", q.answer}}.dump() + "\n";
  if (file.has_parent_path()) real_disk().create_dirs(file.parent_path());
  write_file_atomically(real_disk(), file, lines);
}

}  // namespace troupe
