// Sennrich et al. 2016 (https://aclanthology.org/P16-1162) with the queue of the `tokenizers` library: each entry holds
// a pair, the count it was offered with and the words it was then found in. An entry whose count is no longer the
// pair's is offered anew with the right one when its turn comes. A pair may have several entries, and then several
// merges, of which the last one's rank counts; a merge leaves its own pair's count as it is. Both matter where two ways
// of merging spell the same token, and are kept so that the merges are the library's.
#include "core/text/bpe_trainer.hpp"

#include <algorithm>
#include <deque>
#include <stdexcept>
#include <unordered_map>

#include "core/text/bpe_trainer_parts.hpp"
#include "core/text/byte_level.hpp"
#include "core/text/pre_tokenizer.hpp"
#include "core/text/unicode.hpp"

namespace troupe {
namespace {

using Progress = std::function<void(const std::string& line)>;

// Distinct words and how often each was seen.
class WordCounts {
 public:
  void add_text(std::string_view text) {
    if (!is_utf8(text)) return add_text(to_valid_utf8(text));
    Span word{};
    for (size_t from = 0; from < text.size() && pattern_.find(text, from, word); from = word.end)
      add(text.substr(word.begin, word.end - word.begin));
  }

  const std::deque<std::string>& words() const { return words_; }
  int64_t count(size_t index) const { return counts_[index]; }
  int64_t num_seen() const { return num_seen_; }

 private:
  void add(std::string_view word) {
    ++num_seen_;
    const auto found = index_.find(word);
    if (found != index_.end()) {
      ++counts_[found->second];
      return;
    }
    index_.emplace(words_.emplace_back(word), counts_.size());
    counts_.push_back(1);
  }

  const Regex pattern_{kGpt2Pattern};
  std::deque<std::string> words_;
  std::unordered_map<std::string_view, size_t> index_;  // keys point into words_
  std::vector<int64_t> counts_;
  int64_t num_seen_ = 0;
};

using Pair = std::pair<int32_t, int32_t>;

// Numbers pairs 0, 1, 2, ... in the order they are met; open addressing, at most half full.
class PairIndex {
 public:
  size_t of(Pair pair) {
    if (2 * pairs_.size() >= slots_.size()) grow();
    uint32_t& slot = slots_[place_of(pair)];
    if (slot == kEmpty) {
      slot = static_cast<uint32_t>(pairs_.size());
      pairs_.push_back(pair);
    }
    return slot;
  }
  Pair pair(size_t index) const { return pairs_[index]; }
  size_t size() const { return pairs_.size(); }

 private:
  static constexpr uint32_t kEmpty = ~uint32_t{0};

  size_t place_of(Pair pair) const {
    const uint64_t key = static_cast<uint64_t>(pair.first) << 32 | static_cast<uint32_t>(pair.second);
    const uint64_t hash = key * 0x9E3779B97F4A7C15u;  // Fibonacci hashing: the high bits are well mixed
    size_t at = (hash ^ (hash >> 32)) & (slots_.size() - 1);
    while (slots_[at] != kEmpty && pairs_[slots_[at]] != pair) at = (at + 1) & (slots_.size() - 1);
    return at;
  }
  void grow() {
    slots_.assign(slots_.empty() ? 1024 : 2 * slots_.size(), kEmpty);
    for (size_t i = 0; i < pairs_.size(); ++i) slots_[place_of(pairs_[i])] = static_cast<uint32_t>(i);
  }

  std::vector<uint32_t> slots_;
  std::vector<Pair> pairs_;
};

class Trainer {
 public:
  explicit Trainer(const BpeTrainingOptions& options) : options_(options) { add_tokens(); }

  LearntVocabulary train(const WordCounts& words, const Progress& on_progress) {
    add_words(words);
    offer_new_pairs();
    const auto vocab_size = static_cast<size_t>(options_.vocab_size);
    while (learnt_.tokens.size() < vocab_size && !queue_.empty()) {
      Entry entry = next();
      const int64_t count = counts_[entry.pair];
      if (entry.count != count) {
        entry.count = count;
        offer(std::move(entry));
        continue;
      }
      if (count < 1 || count < options_.min_frequency) break;
      const size_t before = learnt_.tokens.size();
      merge(entry);
      if (on_progress && learnt_.tokens.size() > before && learnt_.tokens.size() % 1000 == 0)
        on_progress(std::to_string(learnt_.tokens.size()) + " of " + std::to_string(vocab_size) + " tokens");
    }
    keep_last_of_each_merge();
    return std::move(learnt_);
  }

 private:
  struct Word {
    size_t begin;  // in symbols_
    size_t size;
    int64_t count;
  };
  struct Entry {
    int64_t count;
    size_t pair;
    std::vector<uint32_t> words;
  };

  void add_tokens() {
    for (const std::string& token : options_.special_tokens) add_token(token);
    for (uint32_t character = 0; character < kByteAlphabetEnd; ++character) {
      const auto byte = byte_of_character(character);
      if (!byte) continue;
      std::string spelled;
      append_utf8(spelled, character);
      id_of_byte_[*byte] = add_token(spelled);
    }
    if (static_cast<int64_t>(learnt_.tokens.size()) > options_.vocab_size)
      throw std::invalid_argument("a vocabulary of " + std::to_string(options_.vocab_size) +
                                  "; the special tokens and " + "the 256 bytes alone are " +
                                  std::to_string(learnt_.tokens.size()));
  }

  int32_t add_token(const std::string& token) {
    const auto id = static_cast<int32_t>(learnt_.tokens.size());
    if (token.empty() || !ids_.emplace(token, id).second)
      throw std::invalid_argument("special token \"" + token + "\" is empty, stands twice, or is a single character");
    learnt_.tokens.push_back(token);
    return id;
  }

  void add_words(const WordCounts& words) {
    for (size_t i = 0; i < words.words().size(); ++i) {
      const std::string& word = words.words()[i];
      words_.push_back({symbols_.size(), word.size(), words.count(i)});
      for (const char c : word) symbols_.push_back(id_of_byte_[static_cast<uint8_t>(c)]);
    }
    for (size_t i = 0; i < words_.size(); ++i) {
      const int32_t* symbols = &symbols_[words_[i].begin];
      for (size_t at = 0; at + 1 < words_[i].size; ++at) change({symbols[at], symbols[at + 1]}, i, 1);
    }
  }

  // `times` more occurrences of the pair in the word.
  void change(Pair pair, size_t word, int64_t times) {
    const size_t index = pairs_.of(pair);
    if (index == counts_.size()) {
      counts_.push_back(0);
      new_words_.emplace_back();
    }
    counts_[index] += times * words_[word].count;
    if (times < 0) return;
    std::vector<uint32_t>& found_in = new_words_[index];
    if (found_in.empty()) to_offer_.push_back(index);
    if (found_in.empty() || found_in.back() != word) found_in.push_back(static_cast<uint32_t>(word));
  }

  // Most often first, of equal ones the smaller pair.
  bool is_later(const Entry& a, const Entry& b) const {
    return a.count != b.count ? a.count < b.count : pairs_.pair(a.pair) > pairs_.pair(b.pair);
  }
  void offer(Entry&& entry) {
    queue_.push_back(std::move(entry));
    std::push_heap(queue_.begin(), queue_.end(), [this](const Entry& a, const Entry& b) { return is_later(a, b); });
  }
  Entry next() {
    std::pop_heap(queue_.begin(), queue_.end(), [this](const Entry& a, const Entry& b) { return is_later(a, b); });
    Entry entry = std::move(queue_.back());
    queue_.pop_back();
    return entry;
  }
  void offer_new_pairs() {
    for (const size_t pair : to_offer_)
      if (counts_[pair] > 0) offer({counts_[pair], pair, std::move(new_words_[pair])});
    for (const size_t pair : to_offer_) new_words_[pair] = {};
    to_offer_.clear();
  }

  void merge(const Entry& entry) {
    const Pair pair = pairs_.pair(entry.pair);
    std::string token = learnt_.tokens[pair.first] + learnt_.tokens[pair.second];
    const auto known = ids_.find(token);
    if (known != ids_.end() && known->second < static_cast<int32_t>(options_.special_tokens.size())) return;
    const int32_t id = known != ids_.end() ? known->second : add_token(token);
    merges_.push_back(pair);
    for (const uint32_t word : entry.words) merge_in_word(word, pair, id);
    offer_new_pairs();
  }

  void merge_in_word(size_t index, Pair pair, int32_t id) {
    Word& word = words_[index];
    int32_t* symbols = &symbols_[word.begin];
    size_t to = 0;
    for (size_t from = 0; from < word.size;) {
      const bool here = symbols[from] == pair.first && from + 1 < word.size && symbols[from + 1] == pair.second;
      if (!here) {
        symbols[to++] = symbols[from++];
        continue;
      }
      from += 2;
      if (to > 0) {
        change({symbols[to - 1], pair.first}, index, -1);
        change({symbols[to - 1], id}, index, 1);
      }
      symbols[to++] = id;
      if (from < word.size) {
        change({pair.second, symbols[from]}, index, -1);
        change({id, symbols[from]}, index, 1);
      }
    }
    word.size = to;
  }

  void keep_last_of_each_merge() {
    std::unordered_map<uint64_t, size_t> last;
    const auto key = [](Pair pair) {
      return static_cast<uint64_t>(pair.first) << 32 | static_cast<uint32_t>(pair.second);
    };
    for (size_t rank = 0; rank < merges_.size(); ++rank) last[key(merges_[rank])] = rank;
    for (size_t rank = 0; rank < merges_.size(); ++rank)
      if (last.at(key(merges_[rank])) == rank) learnt_.merges.push_back(merges_[rank]);
  }

  const BpeTrainingOptions& options_;
  LearntVocabulary learnt_;
  std::vector<Pair> merges_;
  std::unordered_map<std::string, int32_t> ids_;
  int32_t id_of_byte_[256] = {};
  std::vector<int32_t> symbols_;  // of all words, one after another
  std::vector<Word> words_;
  PairIndex pairs_;
  std::vector<int64_t> counts_;                   // by pair
  std::vector<std::vector<uint32_t>> new_words_;  // by pair: where it was found since it was last offered
  std::vector<size_t> to_offer_;                  // pairs found since then
  std::vector<Entry> queue_;                      // a heap
};

}  // namespace

Tokenizer train_bpe(const TextSource& texts, const BpeTrainingOptions& options, const Progress& on_progress) {
  Trainer trainer(options);  // refuses wrong options before the texts are read
  WordCounts words;
  int64_t num_texts = 0;
  const auto report = [&] {
    if (on_progress)
      on_progress(std::to_string(num_texts) + " texts, " + std::to_string(words.num_seen()) + " words, " +
                  std::to_string(words.words().size()) + " different");
  };
  while (const auto text = texts()) {
    words.add_text(*text);
    if (++num_texts % 100'000 == 0) report();
  }
  report();
  const LearntVocabulary learnt = trainer.train(words, on_progress);
  return Tokenizer::from_files(tokenizer_files(learnt, options), "the trained tokenizer");
}

}  // namespace troupe
