// Added tokens: texts that become one id before BPE sees them, special or not. Found leftmost first, the longest of
// those that start at one place, as in the reference library.
//
// Tokens with normalized = false are sought in the text as given, those with normalized = true (themselves normalized)
// in what remains of it, normalized.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "core/text/normalizer.hpp"
#include "core/text/regex.hpp"

namespace troupe {

struct AddedToken {
  int32_t id = -1;
  std::string content;
  bool special = false;
  bool single_word = false;  // only where no word character is next to it
  bool lstrip = false;       // takes the white space before it
  bool rstrip = false;       // takes the white space after it
  bool normalized = false;
};

// Where special tokens may be found in a text.
class SpecialScope {
 public:
  static SpecialScope everywhere() { return SpecialScope(true, nullptr); }
  static SpecialScope nowhere() { return SpecialScope(false, nullptr); }
  // Only where every byte is marked 1. The marks are as long as the text, and outlive the scope.
  static SpecialScope where(std::string_view marks) { return SpecialScope(true, marks.data()); }

  bool is_everywhere() const { return allowed_ && marks_ == nullptr; }
  bool is_nowhere() const { return !allowed_; }
  bool has_marks() const { return marks_ != nullptr; }
  // Bytes [begin, end) are all in the scope.
  bool covers(size_t begin, size_t end) const;
  // The scope of the rest of the text from `begin` on.
  SpecialScope from(size_t begin) const { return SpecialScope(allowed_, marks_ == nullptr ? nullptr : marks_ + begin); }

 private:
  SpecialScope(bool allowed, const char* marks) : allowed_(allowed), marks_(marks) {}
  bool allowed_;
  const char* marks_;
};

// A part of the text: an added token's id, or -1 for ordinary text.
struct TextPart {
  int32_t id;
  Span span;
};

// Finds the tokens of one set in a text.
class TokenMatcher {
 public:
  // `tokens` outlives the matcher; `spellings` are what to look for, one per token.
  TokenMatcher(const std::vector<const AddedToken*>& tokens, const std::vector<std::string>& spellings);

  // Covers the text with tokens and what lies between them.
  std::vector<TextPart> split(std::string_view text, const SpecialScope& scope) const;
  bool has_special() const { return has_special_; }

 private:
  struct Match {
    const AddedToken* token = nullptr;
    size_t end = 0;
  };
  Match longest_at(std::string_view text, size_t begin, const SpecialScope& scope) const;
  bool swallows_special(std::string_view text, size_t begin, size_t end, const SpecialScope& scope) const;

  // A trie over bytes: (node, byte) -> node; a node that ends a spelling has its token.
  std::unordered_map<uint64_t, uint32_t> edges_;
  std::vector<const AddedToken*> token_of_node_;
  bool starts_[256] = {};
  bool has_special_ = false;
};

class AddedTokens {
 public:
  // Throws std::invalid_argument naming the token at fault: empty, or given twice.
  AddedTokens(std::vector<AddedToken> tokens, Normalizer normalizer);
  AddedTokens(const AddedTokens&) = delete;
  AddedTokens& operator=(const AddedTokens&) = delete;

  // Calls on_token(id) and on_text(normalized text) in the order of the text, which is well-formed UTF-8.
  template <typename OnToken, typename OnText>
  void split(std::string_view text, const SpecialScope& scope, OnToken on_token, OnText on_text) const {
    for (const TextPart& part : raw_->split(text, scope)) {
      if (part.id >= 0) {
        on_token(part.id);
        continue;
      }
      const auto piece = text.substr(part.span.begin, part.span.end - part.span.begin);
      std::string marks;
      const std::string normal = normalize(piece, scope.from(part.span.begin), marks);
      const SpecialScope normal_scope = scope.has_marks() ? SpecialScope::where(marks) : scope;
      for (const TextPart& inner : normalized_->split(normal, normal_scope)) {
        if (inner.id >= 0) {
          on_token(inner.id);
        } else {
          on_text(std::string_view(normal).substr(inner.span.begin, inner.span.end - inner.span.begin));
        }
      }
    }
  }

  const std::vector<AddedToken>& tokens() const { return tokens_; }

 private:
  std::string normalize(std::string_view piece, const SpecialScope& scope, std::string& marks) const;

  std::vector<AddedToken> tokens_;
  Normalizer normalizer_;
  std::unique_ptr<TokenMatcher> raw_;
  std::unique_ptr<TokenMatcher> normalized_;
};

}  // namespace troupe
