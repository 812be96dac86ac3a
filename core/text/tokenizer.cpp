#include "core/text/tokenizer.hpp"

#include <algorithm>
#include <limits>
#include <stdexcept>

#include "core/text/tokenizer_parts.hpp"
#include "core/text/unicode.hpp"

namespace troupe {

TokenizerParts::TokenizerParts(TokenizerDescription description, TokenRoles roles, const std::string& file)
    : pre_tokenizer(std::move(description.pre_tokenizer)),
      decoder(std::move(description.decoder)),
      prefix_ids(std::move(description.prefix_ids)),
      suffix_ids(std::move(description.suffix_ids)) {
  try {
    added = std::make_unique<AddedTokens>(std::move(description.added_tokens), Normalizer(description.normalizer));
  } catch (const std::invalid_argument& error) {
    throw std::runtime_error(file + ": " + error.what());
  }
  index_tokens(description.vocabulary, file);
  index_decoded_tokens(Normalizer(std::move(description.normalizer)));
  refuse_ordinary_special_tokens(description.vocabulary, file);
  check_ids(prefix_ids, file);
  check_ids(suffix_ids, file);
  take_roles(roles);
  // A character that no token spells may become the unknown token, but must not end or start a text.
  const auto plays = [&](const std::optional<std::string>& role) {
    return role && role == description.vocabulary.unknown_token;
  };
  if (plays(roles.bos) || plays(roles.eos)) description.vocabulary.unknown_token.reset();
  description.vocabulary.special = is_special;
  try {
    bpe = std::make_unique<Bpe>(std::move(description.vocabulary));
  } catch (const std::invalid_argument& error) {
    throw std::runtime_error(file + ": model: " + error.what());
  }
}

void TokenizerParts::index_tokens(const BpeVocabulary& vocabulary, const std::string& file) {
  tokens = vocabulary.tokens;
  std::unordered_map<std::string_view, size_t> vocabulary_ids;
  for (size_t id = 0; id < vocabulary.tokens.size(); ++id) vocabulary_ids.emplace(vocabulary.tokens[id], id);
  for (const AddedToken& token : added->tokens()) {
    const auto id = static_cast<size_t>(token.id);
    if (id >= tokens.size()) tokens.resize(id + 1);
    const auto other = vocabulary_ids.find(token.content);
    if (other != vocabulary_ids.end() && other->second != id) {
      throw std::runtime_error(file + ": added token '" + token.content + "' has id " + std::to_string(id) +
                               " but the vocabulary says " + std::to_string(other->second));
    }
    if (!tokens[id].empty() && tokens[id] != token.content) {
      throw std::runtime_error(file + ": id " + std::to_string(id) + " belongs to both '" + tokens[id] + "' and '" +
                               token.content + "'");
    }
    tokens[id] = token.content;
    added_ids.emplace(token.content, token.id);
  }
  is_special.resize(tokens.size());
  for (const AddedToken& token : added->tokens()) is_special[token.id] = token.special;
}

// The reference library keeps the normalized text of a token with normalized = true, and decodes to that.
void TokenizerParts::index_decoded_tokens(const Normalizer& normalizer) {
  for (const AddedToken& token : added->tokens()) {
    if (!token.normalized) continue;
    std::string normal = normalizer.normalize(token.content);
    if (normal != token.content) decoded_tokens.emplace(token.id, std::move(normal));
  }
}

void TokenizerParts::check_ids(const std::vector<int32_t>& ids, const std::string& file) const {
  for (const int32_t id : ids) {
    if (static_cast<size_t>(id) < tokens.size() && !tokens[id].empty()) continue;
    throw std::runtime_error(file + ": post_processor: id " + std::to_string(id) + " has no token");
  }
}

// Ordinary text must never become a special token, so BPE may not produce one: neither from one character, nor from a
// byte of one, nor by a merge. (Nor from a whole word: BpeVocabulary::special.)
void TokenizerParts::refuse_ordinary_special_tokens(const BpeVocabulary& vocabulary, const std::string& file) const {
  const auto refuse_if_special = [&](const std::string& token, const std::string& origin) {
    const auto id = added_ids.find(token);
    if (id == added_ids.end() || !is_special[id->second]) return;
    throw std::runtime_error(file + ": special token '" + token + "' would be produced from ordinary text by " +
                             origin);
  };
  for (const std::string& token : vocabulary.tokens) {
    if (!token.empty() && utf8_size(token) == token.size()) refuse_if_special(token, "a single character");
  }
  for (int byte = 0; vocabulary.byte_fallback && byte < 256; ++byte)
    refuse_if_special(Bpe::byte_token(static_cast<uint8_t>(byte)), "a single byte");
  for (size_t rank = 0; rank < vocabulary.merges.size(); ++rank) {
    const auto& [left, right] = vocabulary.merges[rank];
    refuse_if_special(left + right, "merge " + std::to_string(rank));
  }
}

std::optional<int32_t> TokenizerParts::id_of_role(const std::optional<std::string>& token, const char* role,
                                                  const TokenRoles& roles) const {
  if (!token) return std::nullopt;
  const auto found = std::find(tokens.begin(), tokens.end(), *token);
  if (token->empty() || found == tokens.end()) {
    throw std::runtime_error(roles.file + ": " + role + " '" + *token + "' is not in the vocabulary");
  }
  return static_cast<int32_t>(found - tokens.begin());
}

void TokenizerParts::take_roles(const TokenRoles& roles) {
  bos_id = id_of_role(roles.bos, "bos_token", roles);
  eos_id = id_of_role(roles.eos, "eos_token", roles);
  pad_id = id_of_role(roles.pad, "pad_token", roles);
  unk_id = id_of_role(roles.unk, "unk_token", roles);
  bos_text = roles.bos.value_or("");
  eos_text = roles.eos.value_or("");
  chat_template = roles.chat_template;
  for (const int64_t id : roles.stop_ids) stop_ids.push_back(static_cast<int32_t>(id));
  if (eos_id) stop_ids.push_back(*eos_id);
  std::sort(stop_ids.begin(), stop_ids.end());
  stop_ids.erase(std::unique(stop_ids.begin(), stop_ids.end()), stop_ids.end());
}

std::vector<int32_t> TokenizerParts::encode(std::string_view text, const SpecialScope& scope) const {
  // Positions inside a word are 32 bits wide, and the byte-level alphabet may double a text.
  if (text.size() > std::numeric_limits<int32_t>::max() / 4) {
    throw std::runtime_error("a text of " + std::to_string(text.size()) + " bytes is too long to encode");
  }
  std::vector<int32_t> ids;
  added->split(
      text, scope, [&](int32_t id) { ids.push_back(id); },
      [&](std::string_view ordinary) {
        const Pieces words = pre_tokenizer.split(ordinary);
        for (const Span& word : words.spans) {
          bpe->encode(std::string_view(words.text).substr(word.begin, word.end - word.begin), ids);
        }
      });
  return ids;
}

Tokenizer::Tokenizer(std::shared_ptr<const TokenizerParts> parts) : parts_(std::move(parts)) {}

std::vector<int32_t> Tokenizer::encode(std::string_view text, SpecialTokens mode) const {
  const SpecialScope scope = mode == SpecialTokens::kParse ? SpecialScope::everywhere() : SpecialScope::nowhere();
  return is_utf8(text) ? parts_->encode(text, scope) : parts_->encode(to_valid_utf8(text), scope);
}

std::vector<int32_t> Tokenizer::encode_with_bos(std::string_view text, SpecialTokens mode) const {
  std::vector<int32_t> ids = encode(text, mode);
  ids.insert(ids.begin(), parts_->prefix_ids.begin(), parts_->prefix_ids.end());
  ids.insert(ids.end(), parts_->suffix_ids.begin(), parts_->suffix_ids.end());
  return ids;
}

std::vector<int32_t> Tokenizer::encode_chat(const ChatTemplate& chat_template, std::span<const ChatMessage> messages,
                                            bool add_generation_prompt, const TemplateVariables& variables) const {
  const RenderedChat chat = chat_template.render_marked(messages, add_generation_prompt, variables);
  return encode_rendered(chat, 0, chat.text.size());
}

std::vector<int32_t> Tokenizer::encode_rendered(const RenderedChat& chat, size_t begin, size_t end) const {
  return parts_->encode(std::string_view(chat.text).substr(begin, end - begin),
                        SpecialScope::where(std::string_view(chat.trusted).substr(begin, end - begin)));
}

std::string Tokenizer::decode(std::span<const int32_t> ids, bool skip_special) const {
  StreamDecoder decoder(*this, skip_special);
  std::string text;
  for (const int32_t id : ids) text += decoder.push(id);
  return text + decoder.flush();
}

int32_t Tokenizer::vocab_size() const {
  return static_cast<int32_t>(parts_->tokens.size());
}

std::optional<int32_t> Tokenizer::id_of(std::string_view token) const {
  const auto added = parts_->added_ids.find(token);
  return added != parts_->added_ids.end() ? std::optional(added->second) : parts_->bpe->id_of(token);
}

const std::string& Tokenizer::token_of(int32_t id) const {
  if (id < 0 || id >= vocab_size() || parts_->tokens[id].empty()) {
    throw std::invalid_argument("token id " + std::to_string(id) + " has no token (the vocabulary has " +
                                std::to_string(vocab_size()) + ")");
  }
  return parts_->tokens[id];
}

bool Tokenizer::is_special(int32_t id) const {
  return id >= 0 && id < vocab_size() && parts_->is_special[id];
}

std::optional<int32_t> Tokenizer::bos_id() const {
  return parts_->bos_id;
}
std::optional<int32_t> Tokenizer::eos_id() const {
  return parts_->eos_id;
}
std::optional<int32_t> Tokenizer::pad_id() const {
  return parts_->pad_id;
}
std::optional<int32_t> Tokenizer::unk_id() const {
  return parts_->unk_id;
}
const std::vector<int32_t>& Tokenizer::stop_ids() const {
  return parts_->stop_ids;
}
const std::string& Tokenizer::chat_template_source() const {
  return parts_->chat_template;
}

ChatTemplate Tokenizer::chat_template(ChatTemplateOptions options) const {
  if (parts_->chat_template.empty()) throw std::runtime_error("the tokenizer has no chat template");
  return ChatTemplate(parts_->chat_template, parts_->bos_text, parts_->eos_text, std::move(options));
}

StreamDecoder::StreamDecoder(const Tokenizer& tokenizer, bool skip_special)
    : parts_(tokenizer.parts_),
      stream_(std::make_unique<DecoderStream>(parts_->decoder)),
      skip_special_(skip_special) {}

StreamDecoder::~StreamDecoder() = default;
StreamDecoder::StreamDecoder(StreamDecoder&&) noexcept = default;
StreamDecoder& StreamDecoder::operator=(StreamDecoder&&) noexcept = default;

std::string StreamDecoder::push(int32_t id) {
  if (id < 0) throw std::invalid_argument("token id " + std::to_string(id) + " is negative");
  const auto index = static_cast<size_t>(id);
  const bool has_token = index < parts_->tokens.size() && !parts_->tokens[index].empty();
  if (!has_token || (skip_special_ && parts_->is_special[index])) return {};
  const auto decoded = parts_->decoded_tokens.find(id);
  return stream_->push(decoded != parts_->decoded_tokens.end() ? decoded->second : parts_->tokens[index]);
}

std::string StreamDecoder::flush() {
  return stream_->flush();
}

}  // namespace troupe
