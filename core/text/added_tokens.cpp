#include "core/text/added_tokens.hpp"

#include <algorithm>
#include <stdexcept>
#include <unordered_set>

#include "core/text/unicode.hpp"

namespace troupe {
namespace {

size_t start_of_last_character(std::string_view text) {
  size_t at = text.size() - 1;
  while (at > 0 && (static_cast<uint8_t>(text[at]) & 0xC0) == 0x80) --at;
  return at;
}

bool stands_alone(std::string_view text, size_t begin, size_t end) {
  const auto is_word_at = [&](size_t at) { return is_word(utf8_step(text.substr(at)).code_point); };
  if (begin > 0 && is_word_at(start_of_last_character(text.substr(0, begin)))) return false;
  return end == text.size() || !is_word_at(end);
}

size_t before_white_space(std::string_view text, size_t at, size_t floor) {
  while (at > floor) {
    const size_t previous = start_of_last_character(text.substr(0, at));
    if (!is_white_space(utf8_step(text.substr(previous)).code_point)) break;
    at = previous;
  }
  return std::max(at, floor);
}

size_t after_white_space(std::string_view text, size_t at) {
  while (at < text.size()) {
    const Utf8Step step = utf8_step(text.substr(at));
    if (!is_white_space(step.code_point)) break;
    at += step.size;
  }
  return at;
}

uint64_t edge_of(uint32_t node, char byte) {
  return (uint64_t{node} << 8) | static_cast<uint8_t>(byte);
}

}  // namespace

bool SpecialScope::covers(size_t begin, size_t end) const {
  if (!allowed_ || marks_ == nullptr) return allowed_;
  return std::all_of(marks_ + begin, marks_ + end, [](char mark) { return mark == 1; });
}

TokenMatcher::TokenMatcher(const std::vector<const AddedToken*>& tokens, const std::vector<std::string>& spellings)
    : token_of_node_(1, nullptr) {
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (spellings[i].empty()) continue;
    uint32_t node = 0;
    for (const char byte : spellings[i]) {
      const auto [edge, is_new] = edges_.emplace(edge_of(node, byte), static_cast<uint32_t>(token_of_node_.size()));
      if (is_new) token_of_node_.push_back(nullptr);
      node = edge->second;
    }
    // Of two tokens that are normalized to one spelling, the first has it.
    if (token_of_node_[node] == nullptr) token_of_node_[node] = tokens[i];
    starts_[static_cast<uint8_t>(spellings[i].front())] = true;
    has_special_ = has_special_ || tokens[i]->special;
  }
}

// With marks, a special token outside the scope is passed over, so that a token inside the scope that begins later, or
// a shorter one, is still found: text from outside can neither form a special token nor hide one. Without them it
// counts, and split() passes it over as a whole, which is what the reference library does.
TokenMatcher::Match TokenMatcher::longest_at(std::string_view text, size_t begin, const SpecialScope& scope) const {
  Match longest;
  uint32_t node = 0;
  for (size_t at = begin; at < text.size(); ++at) {
    const auto edge = edges_.find(edge_of(node, text[at]));
    if (edge == edges_.end()) break;
    node = edge->second;
    const AddedToken* token = token_of_node_[node];
    if (token == nullptr) continue;
    if (scope.has_marks() && token->special && !scope.covers(begin, at + 1)) continue;
    if (scope.has_marks() && !token->special && swallows_special(text, begin, at + 1, scope)) continue;
    longest = {token, at + 1};
  }
  return longest;
}

// Whether a special token of the scope begins inside [begin, end), which itself begins outside the scope.
bool TokenMatcher::swallows_special(std::string_view text, size_t begin, size_t end, const SpecialScope& scope) const {
  if (!has_special_ || scope.covers(begin, begin + 1)) return false;
  for (size_t inside = begin + 1; inside < end; ++inside) {
    if (!scope.covers(inside, inside + 1)) continue;
    uint32_t node = 0;
    for (size_t at = inside; at < text.size() && scope.covers(at, at + 1); ++at) {
      const auto edge = edges_.find(edge_of(node, text[at]));
      if (edge == edges_.end()) break;
      node = edge->second;
      if (token_of_node_[node] != nullptr && token_of_node_[node]->special) return true;
    }
  }
  return false;
}

std::vector<TextPart> TokenMatcher::split(std::string_view text, const SpecialScope& scope) const {
  std::vector<TextPart> parts;
  size_t covered = 0;
  const auto cover_text_up_to = [&](size_t end) {
    if (covered < end) parts.push_back({-1, {covered, end}});
    covered = std::max(covered, end);
  };
  for (size_t at = 0; at < text.size();) {
    const Match match = starts_[static_cast<uint8_t>(text[at])] ? longest_at(text, at, scope) : Match{};
    if (match.token == nullptr) {
      ++at;
      continue;
    }
    size_t begin = at;
    size_t end = match.end;
    at = match.end;
    if (match.token->special && scope.is_nowhere()) continue;
    if (match.token->single_word && !stands_alone(text, begin, end)) continue;
    if (match.token->lstrip) begin = before_white_space(text, begin, covered);
    if (match.token->rstrip) end = after_white_space(text, end);
    cover_text_up_to(begin);
    parts.push_back({match.token->id, {begin, end}});
    covered = std::max(covered, end);
  }
  cover_text_up_to(text.size());
  return parts;
}

AddedTokens::AddedTokens(std::vector<AddedToken> tokens, Normalizer normalizer)
    : tokens_(std::move(tokens)), normalizer_(std::move(normalizer)) {
  std::unordered_set<std::string_view> seen;
  std::vector<const AddedToken*> raw;
  std::vector<const AddedToken*> normalized;
  std::vector<std::string> raw_spellings;
  std::vector<std::string> normalized_spellings;
  for (const AddedToken& token : tokens_) {
    if (token.content.empty()) throw std::invalid_argument("added token " + std::to_string(token.id) + " is empty");
    if (!seen.insert(token.content).second) {
      throw std::invalid_argument("added token '" + token.content + "' is given twice");
    }
    (token.normalized ? normalized : raw).push_back(&token);
    (token.normalized ? normalized_spellings : raw_spellings)
        .push_back(token.normalized ? normalizer_.normalize(token.content) : token.content);
  }
  raw_ = std::make_unique<TokenMatcher>(raw, raw_spellings);
  normalized_ = std::make_unique<TokenMatcher>(normalized, normalized_spellings);
}

// Normalizes a piece and its marks. Marks cannot follow characters through a normalizer that changes the text; then
// runs of equal marks are normalized one by one if a special token may be in them, and else the marks do not matter.
std::string AddedTokens::normalize(std::string_view piece, const SpecialScope& scope, std::string& marks) const {
  std::string normal = normalizer_.is_identity() ? std::string(piece) : normalizer_.normalize(piece);
  if (!scope.has_marks()) return normal;
  const auto mark_at = [&](size_t at) { return static_cast<char>(scope.covers(at, at + 1)); };
  if (normal == piece) {
    for (size_t at = 0; at < piece.size(); ++at) marks += mark_at(at);
    return normal;
  }
  if (!normalized_->has_special()) {
    marks.assign(normal.size(), 0);
    return normal;
  }
  normal.clear();
  for (size_t begin = 0; begin < piece.size();) {
    size_t end = begin + 1;
    while (end < piece.size() && mark_at(end) == mark_at(begin)) ++end;
    normal += normalizer_.normalize(piece.substr(begin, end - begin));
    marks.resize(normal.size(), mark_at(begin));
    begin = end;
  }
  return normal;
}

}  // namespace troupe
