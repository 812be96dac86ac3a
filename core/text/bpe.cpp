#include "core/text/bpe.hpp"

#include <cstdio>
#include <functional>
#include <mutex>
#include <queue>
#include <stdexcept>

#include "core/text/unicode.hpp"

namespace troupe {

// (left id, right id) -> merge; open addressing, at most half full.
class Bpe::MergeTable {
 public:
  explicit MergeTable(size_t count) {
    size_t capacity = 16;
    while (capacity < 2 * count) capacity *= 2;
    slots_.resize(capacity);
    mask_ = capacity - 1;
  }

  // A pair that is there already keeps its place but takes the later merge, as in the reference library.
  void insert(int32_t left, int32_t right, Merge merge) {
    Slot& slot = slots_[position_of(key_of(left, right))];
    slot = {key_of(left, right), merge};
  }

  const Merge* find(int32_t left, int32_t right) const {
    const Slot& slot = slots_[position_of(key_of(left, right))];
    return slot.key == kEmpty ? nullptr : &slot.merge;
  }

 private:
  static constexpr uint64_t kEmpty = ~uint64_t{0};
  struct Slot {
    uint64_t key = kEmpty;
    Merge merge{};
  };

  static uint64_t key_of(int32_t left, int32_t right) {
    return (static_cast<uint64_t>(left) << 32) | static_cast<uint32_t>(right);
  }

  size_t position_of(uint64_t key) const {
    uint64_t hash = key * 0x9E3779B97F4A7C15u;  // Fibonacci hashing: the high bits are well mixed
    size_t at = (hash ^ (hash >> 32)) & mask_;
    while (slots_[at].key != key && slots_[at].key != kEmpty) at = (at + 1) & mask_;
    return at;
  }

  std::vector<Slot> slots_;
  size_t mask_;
};

// The ids of words seen lately: a table of fixed size, each word with one possible place, newer ones displacing older.
class Bpe::WordCache {
 public:
  static constexpr size_t kMaxWordBytes = 64;

  bool find(std::string_view word, size_t hash, std::vector<int32_t>& ids) const {
    const std::lock_guard lock(locks_[hash % kLocks]);
    const Entry& entry = entries_[hash % kEntries];
    if (entry.word != word) return false;
    ids.insert(ids.end(), entry.ids.begin(), entry.ids.end());
    return true;
  }

  void put(std::string_view word, size_t hash, const std::vector<int32_t>& ids) {
    const std::lock_guard lock(locks_[hash % kLocks]);
    Entry& entry = entries_[hash % kEntries];
    entry.word = word;
    entry.ids = ids;
  }

 private:
  static constexpr size_t kEntries = 16384;
  static constexpr size_t kLocks = 64;  // divides kEntries: an entry always has the same lock
  struct Entry {
    std::string word;
    std::vector<int32_t> ids;
  };
  mutable std::array<std::mutex, kLocks> locks_;
  std::vector<Entry> entries_{kEntries};
};

Bpe::Bpe(BpeVocabulary vocabulary) : vocabulary_(std::move(vocabulary)), cache_(std::make_unique<WordCache>()) {
  index_tokens();
  index_merges();
}

Bpe::~Bpe() = default;

void Bpe::index_tokens() {
  ids_.reserve(vocabulary_.tokens.size());
  for (size_t id = 0; id < vocabulary_.tokens.size(); ++id) {
    const std::string& token = vocabulary_.tokens[id];
    if (token.empty()) continue;
    if (!ids_.emplace(token, static_cast<int32_t>(id)).second) {
      throw std::invalid_argument("token '" + token + "' has two ids, " + std::to_string(ids_.at(token)) + " and " +
                                  std::to_string(id));
    }
  }
  for (uint32_t character = 0; character < kByteAlphabetEnd; ++character) {
    std::string spelled;
    append_utf8(spelled, character);
    low_character_ids_[character] = id_of(spelled).value_or(-1);
  }
  for (int byte = 0; byte < 256; ++byte) {
    byte_token_ids_[byte] = id_of(byte_token(static_cast<uint8_t>(byte))).value_or(-1);
  }
  if (vocabulary_.unknown_token) {
    unknown_id_ = id_of(*vocabulary_.unknown_token);
    if (!unknown_id_) {
      throw std::invalid_argument("unk_token '" + *vocabulary_.unknown_token + "' is not in the vocabulary");
    }
  }
}

std::string Bpe::byte_token(uint8_t byte) {
  char name[8];
  std::snprintf(name, sizeof name, "<0x%02X>", byte);
  return name;
}

void Bpe::index_merges() {
  merges_ = std::make_unique<MergeTable>(vocabulary_.merges.size());
  for (size_t rank = 0; rank < vocabulary_.merges.size(); ++rank) {
    const auto& [left, right] = vocabulary_.merges[rank];
    const auto left_id = id_of(left);
    const auto right_id = id_of(right);
    const auto merged_id = id_of(left + right);
    if (!left_id || !right_id || !merged_id) {
      const std::string& missing = !left_id ? left : !right_id ? right : left + right;
      throw std::invalid_argument("merge " + std::to_string(rank) + " ('" + left + "' + '" + right + "'): token '" +
                                  missing + "' is not in the vocabulary");
    }
    merges_->insert(*left_id, *right_id, {static_cast<int32_t>(rank), *merged_id});
  }
}

std::optional<int32_t> Bpe::id_of(std::string_view token) const {
  const auto found = ids_.find(token);
  if (found == ids_.end()) return std::nullopt;
  return found->second;
}

std::optional<int32_t> Bpe::id_of_character(std::string_view character, uint32_t code_point) const {
  if (code_point >= kByteAlphabetEnd) return id_of(character);
  const int32_t id = low_character_ids_[code_point];
  return id < 0 ? std::nullopt : std::optional(id);
}

bool Bpe::append_byte_tokens(std::string_view character, std::vector<int32_t>& ids) const {
  for (const char byte : character) {
    if (byte_token_ids_[static_cast<uint8_t>(byte)] < 0) return false;
  }
  for (const char byte : character) ids.push_back(byte_token_ids_[static_cast<uint8_t>(byte)]);
  return true;
}

void Bpe::start_ids(std::string_view word, std::vector<int32_t>& ids) const {
  bool previous_is_unknown = false;
  for (size_t at = 0; at < word.size();) {
    const Utf8Step step = utf8_step(word.substr(at));
    const std::string_view character = word.substr(at, step.size);
    at += step.size;
    const auto id = id_of_character(character, step.code_point);
    const bool known = id || (vocabulary_.byte_fallback && append_byte_tokens(character, ids));
    if (id) ids.push_back(*id);
    if (!known && unknown_id_ && !(previous_is_unknown && vocabulary_.fuse_unknown)) ids.push_back(*unknown_id_);
    previous_is_unknown = !known;
  }
}

void Bpe::merge(std::vector<int32_t>& ids) const {
  struct Symbol {
    int32_t id;
    int32_t previous;
    int32_t next;
    bool alive;
  };
  struct Candidate {
    int32_t rank;
    int32_t position;  // of the left symbol
    int32_t id;
    bool operator>(const Candidate& other) const {
      return rank != other.rank ? rank > other.rank : position > other.position;
    }
  };
  const auto count = static_cast<int32_t>(ids.size());
  std::vector<Symbol> symbols(ids.size());
  for (int32_t i = 0; i < count; ++i) symbols[i] = {ids[i], i - 1, i + 1 < count ? i + 1 : -1, true};

  std::vector<Candidate> start;
  start.reserve(ids.size());
  for (int32_t i = 0; i + 1 < count; ++i) {
    const Merge* merge = merges_->find(ids[i], ids[i + 1]);
    if (merge != nullptr) start.push_back({merge->rank, i, merge->id});
  }
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> queue(std::greater<>(), std::move(start));
  const auto offer = [&](int32_t left, int32_t right) {
    if (left < 0 || right < 0) return;
    const Merge* merge = merges_->find(symbols[left].id, symbols[right].id);
    if (merge != nullptr) queue.push({merge->rank, left, merge->id});
  };
  while (!queue.empty()) {
    const Candidate best = queue.top();
    queue.pop();
    Symbol& left = symbols[best.position];
    if (!left.alive || left.next < 0) continue;
    Symbol& right = symbols[left.next];
    // The pair may have changed since the candidate was offered.
    const Merge* merge = merges_->find(left.id, right.id);
    if (merge == nullptr || merge->id != best.id) continue;
    left.id = best.id;
    left.next = right.next;
    right.alive = false;
    if (right.next >= 0) symbols[right.next].previous = best.position;
    offer(left.previous, best.position);
    offer(best.position, left.next);
  }
  ids.clear();
  for (int32_t at = count == 0 ? -1 : 0; at >= 0; at = symbols[at].next) ids.push_back(symbols[at].id);
}

void Bpe::encode(std::string_view word, std::vector<int32_t>& ids) const {
  if (vocabulary_.ignore_merges) {
    const auto id = id_of(word);
    if (id && !(static_cast<std::size_t>(*id) < vocabulary_.special.size() && vocabulary_.special[*id])) {
      ids.push_back(*id);
      return;
    }
  }
  const bool cached = word.size() <= WordCache::kMaxWordBytes;
  const size_t hash = cached ? std::hash<std::string_view>()(word) : 0;
  if (cached && cache_->find(word, hash, ids)) return;
  std::vector<int32_t> word_ids;
  start_ids(word, word_ids);
  merge(word_ids);
  if (cached) cache_->put(word, hash, word_ids);
  ids.insert(ids.end(), word_ids.begin(), word_ids.end());
}

}  // namespace troupe
