// Two-number arithmetic asked in plain words: the demonstration's task. Pure and seeded: the same settings give the
// same files on every machine.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <tuple>
#include <vector>

#include "protocol/fields.hpp"

namespace troupe {

struct ArithmeticConfig {
  int64_t low = 1;                              // smallest operand
  int64_t high = 9;                             // largest operand
  std::vector<std::string> operations = {"+"};  // of "+", "-", "*"
  std::string question = "What is {a} {op} {b}? Answer with a number.";
  int64_t num_heldout = 0;  // held-out questions; the rest are for training
  int64_t num_train = 0;    // 0: every question that is not held out; larger than there are is an error
  uint64_t seed = 0;
  static constexpr std::tuple kFields{Field{"low", &ArithmeticConfig::low},
                                      Field{"high", &ArithmeticConfig::high},
                                      Field{"operations", &ArithmeticConfig::operations},
                                      Field{"question", &ArithmeticConfig::question},
                                      Field{"num_heldout", &ArithmeticConfig::num_heldout},
                                      Field{"num_train", &ArithmeticConfig::num_train},
                                      Field{"seed", &ArithmeticConfig::seed}};
};
TROUPE_FIELDS_COMPLETE(ArithmeticConfig);

struct ArithmeticQuestion {
  std::string prompt;
  std::string answer;
  std::string id;  // "3+4"
};

// Disjoint by pair: for + and *, whose answer does not depend on the order, a and b in either order stay on one side.
struct ArithmeticTask {
  std::vector<ArithmeticQuestion> train;
  std::vector<ArithmeticQuestion> heldout;
};

// Throws std::invalid_argument for an empty range, an unknown operation, or more questions than there are.
ArithmeticTask make_arithmetic(const ArithmeticConfig& config);

// JSON lines {"id", "prompt", "answer"}, written aside and renamed; missing folders are made. Throws std::runtime_error
// naming the file.
void write_questions(const std::vector<ArithmeticQuestion>& questions, const std::filesystem::path& file);

}  // namespace troupe
