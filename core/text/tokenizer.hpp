// Byte-level BPE tokenizers of the Llama-3, SmolLM2, Qwen2/2.5/3, MiniMind and DeepSeek families (and the byte-fallback
// BPE of Llama-2): the same ids as the Hugging Face `tokenizers` library gives, from tokenizer.json or from a GGUF
// vocabulary.
//
// Text and special tokens. A special token (added token with "special": true, GGUF type 3) has power over the model, so
// text becomes one only where the caller asks for it with kParse. With kAsText its look-alike is encoded as ordinary
// text, as the library does with encode_special_tokens = true. Added tokens that are not special (e.g. <think> in
// Qwen3, GGUF type 4) are matched in both modes, as in the library. A vocabulary whose ordinary text would merge into a
// special token is refused; only the unknown token, where a vocabulary has one that is neither bos nor eos, stands for
// the characters it lacks. Without one these give no id, as in the library (SmolLM2 lacks U+0004 and a few more).
//
// Bytes that are not UTF-8 are replaced by U+FFFD before encoding, one per maximal ill-formed subsequence.
//
// Threads: a Tokenizer is immutable (its word cache locks itself), so any number of threads may use one; a copy shares
// everything and costs a pointer. A StreamDecoder belongs to one thread.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/text/chat_template.hpp"
#include "core/text/gguf_vocabulary.hpp"

namespace troupe {

enum class SpecialTokens {
  kAsText,  // for what a user or a data set wrote
  kParse,   // for what a template or a program wrote
};

struct TokenizerParts;

class Tokenizer {
 public:
  // Reads tokenizer.json (required), tokenizer_config.json, special_tokens_map.json, generation_config.json and
  // chat_template.jinja (each if present). Throws std::runtime_error naming the file and the component at fault.
  static Tokenizer from_folder(const std::filesystem::path& folder);
  // The same of files in memory, by name; `folder` stands in messages alone.
  static Tokenizer from_files(std::map<std::string, std::string> files, const std::filesystem::path& folder);
  // Throws std::runtime_error naming vocabulary.source and the key at fault.
  static Tokenizer from_gguf(const GgufVocabulary& vocabulary);

  // No bos or eos is added. Time grows linearly (n log n in one word's length) with the text. Throws std::runtime_error
  // when a split pattern exceeds its match limit.
  std::vector<int32_t> encode(std::string_view text, SpecialTokens mode = SpecialTokens::kAsText) const;
  // encode, with what the tokenizer's post-processor puts before and after a single text (usually bos, or nothing).
  std::vector<int32_t> encode_with_bos(std::string_view text, SpecialTokens mode = SpecialTokens::kAsText) const;
  // The ids of the rendered chat, the same as encode(render(...), kParse) but for one thing: special tokens are formed
  // by the template's own text alone, never by roles, contents or variables, not even in part.
  std::vector<int32_t> encode_chat(const ChatTemplate& chat_template, std::span<const ChatMessage> messages,
                                   bool add_generation_prompt, const TemplateVariables& variables = {}) const;
  // The same of a part of a chat that is rendered already, bytes [begin, end); the parts' ids, joined, are the whole's
  // where a part ends with a special token or the tokenizer would split there anyway.
  std::vector<int32_t> encode_rendered(const RenderedChat& chat, size_t begin, size_t end) const;

  // Ids without a token (a model's embedding may be padded) decode to nothing; a negative id throws
  // std::invalid_argument. Bytes that do not form UTF-8 decode to U+FFFD.
  std::string decode(std::span<const int32_t> ids, bool skip_special) const;

  int32_t vocab_size() const;  // highest id + 1
  std::optional<int32_t> id_of(std::string_view token) const;
  // The token as the vocabulary spells it ("Ġthe", "<|im_end|>"). Throws std::invalid_argument for an id without one.
  const std::string& token_of(int32_t id) const;
  bool is_special(int32_t id) const;

  std::optional<int32_t> bos_id() const;
  std::optional<int32_t> eos_id() const;
  std::optional<int32_t> pad_id() const;
  std::optional<int32_t> unk_id() const;
  // Every id that ends a generation: eos_id and those that generation_config.json names; ascending, no duplicates.
  const std::vector<int32_t>& stop_ids() const;

  // The template's source, empty if there is none.
  const std::string& chat_template_source() const;
  // The template with this tokenizer's bos and eos. Throws std::runtime_error if there is none.
  ChatTemplate chat_template(ChatTemplateOptions options = {}) const;

  // Writes the tokenizer into the folder (created if missing) so that transformers' AutoTokenizer opens it and gives
  // the same ids: the files of from_folder byte for byte; from GGUF, tokenizer.json and tokenizer_config.json made
  // anew.
  void save(const std::filesystem::path& folder) const;

 private:
  friend class StreamDecoder;
  explicit Tokenizer(std::shared_ptr<const TokenizerParts> parts);
  std::shared_ptr<const TokenizerParts> parts_;
};

class DecoderStream;

// Decodes ids one by one and never splits a character: what push() and flush() return, joined, is what decode() returns
// for all ids. Keeps the tokenizer's tables alive by itself.
class StreamDecoder {
 public:
  StreamDecoder(const Tokenizer& tokenizer, bool skip_special);
  ~StreamDecoder();
  StreamDecoder(StreamDecoder&&) noexcept;
  StreamDecoder& operator=(StreamDecoder&&) noexcept;

  // The text that became certain with this id; empty while a character is incomplete.
  std::string push(int32_t id);
  // The end: what is held back, incomplete characters as U+FFFD. The decoder then starts anew.
  std::string flush();

 private:
  std::shared_ptr<const TokenizerParts> parts_;
  std::unique_ptr<DecoderStream> stream_;
  bool skip_special_;
};

}  // namespace troupe
