// What a training run learns, and the files of a tokenizer made of it. Internal to core/text.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "core/text/bpe_trainer.hpp"

namespace troupe {

struct LearntVocabulary {
  std::vector<std::string> tokens;                  // by id, in the byte-level alphabet
  std::vector<std::pair<int32_t, int32_t>> merges;  // ids, best first
};

// tokenizer.json, vocab.json, merges.txt and tokenizer_config.json, by name.
std::map<std::string, std::string> tokenizer_files(const LearntVocabulary& learnt, const BpeTrainingOptions& options);

}  // namespace troupe
