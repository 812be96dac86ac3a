// Tokenizers in GGUF files. A GGUF names its split rule and leaves the rest unsaid; here it is turned into the
// tokenizer.json that it was made from, which then is read like any other, and is what save() writes.
#include <algorithm>
#include <array>
#include <limits>

#include "core/text/json_view.hpp"
#include "core/text/tokenizer.hpp"
#include "core/text/tokenizer_parts.hpp"
#include "core/text/tokenizer_spelling.hpp"
#include "core/text/unicode.hpp"

namespace troupe {
namespace {

using nlohmann::json;

enum TokenType { kNormal = 1, kUnknown = 2, kControl = 3, kUserDefined = 4, kUnused = 5 };

constexpr std::string_view kLlama3Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kQwen2Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
// The letters with case that DeepSeek LLM's tokenizer lists, a subset of the categories Lu, Ll and Lt.
constexpr std::string_view kDeepSeekLlmWords =
    R"(\s?[)"
    R"(A-Za-z\u00B5\u00C0-\u00D6\u00D8-\u00F6\u00F8-\u01BA\u01BC-\u01BF\u01C4-\u0293\u0295-\u02AF)"
    R"(\u0370-\u0373\u0376\u0377\u037B-\u037D\u037F\u0386\u0388-\u038A\u038C\u038E-\u03A1\u03A3-\u03F5)"
    R"(\u03F7-\u0481\u048A-\u052F\u0531-\u0556\u10A0-\u10C5\u13A0-\u13F5\u13F8-\u13FD\u1C90-\u1CBA)"
    R"(\u1CBD-\u1CBF\u1D00-\u1D2B\u1D6B-\u1D77\u1D79-\u1D9A\u1E00-\u1F15\u1F18-\u1F1D\u1F20-\u1F45)"
    R"(\u1F48-\u1F4D\u1F50-\u1F57\u1F59\u1F5B\u1F5D\u1F5F-\u1F7D\u1F80-\u1FB4\u1FB6-\u1FBC\u1FBE)"
    R"(\u1FC2-\u1FC4\u1FC6-\u1FCC\u1FD0-\u1FD3\u1FD6-\u1FDB\u1FE0-\u1FEC\u1FF2-\u1FF4\u1FF6-\u1FFC\u2102)"
    R"(\u2107\u210A-\u2113\u2115\u2119-\u211D\u2124\u2126\u2128\u212A-\u212D\u212F-\u2134\u2139)"
    R"(\u213C-\u213F\u2145-\u2149\u214E\u2183\u2184\u2C00-\u2C7B\u2C7E-\u2CE4\u2CEB-\u2CEE\u2CF2\u2CF3)"
    R"(\uA640-\uA66D\uA680-\uA69B\uA722-\uA76F\uA771-\uA787\uA78B-\uA78E\uAB70-\uABBF\uFB00-\uFB06)"
    R"(\uFB13-\uFB17\uFF21-\uFF3A\uFF41-\uFF5A\x{10400}-\x{1044F}\x{104B0}-\x{104D3}\x{104D8}-\x{104FB})"
    R"(\x{10C80}-\x{10CB2}\x{10CC0}-\x{10CF2}\x{118A0}-\x{118DF}\x{1E900}-\x{1E943})"
    R"(]+)";
constexpr std::string_view kDeepSeekLlmPunctuation =
    R"(\s?[!-/:-~\uFF01-\uFF0F\uFF1A-\uFF5E\u2018-\u201F\u3000-\u3002]+)";
constexpr std::string_view kDeepSeekLlmCjk = R"([\u4E00-\u9FA5\u0800-\u4E00\uAC00-\uD7FF]+)";
constexpr std::string_view kDeepSeekV3Cjk = R"([\u4E00-\u9FA5\u3040-\u309F\u30A0-\u30FF]+)";
constexpr std::string_view kDeepSeekV3Words =
    R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|)"
    R"(\s*[\r\n]+|\s+(?!\S)|\s+)";

json split(std::string_view pattern) {
  return {{"type", "Split"}, {"pattern", {{"Regex", pattern}}}, {"behavior", "Isolated"}, {"invert", false}};
}

json byte_level(bool use_regex) {
  return byte_level_part<json>(false, use_regex);
}

json digits(bool individual) {
  return {{"type", "Digits"}, {"individual_digits", individual}};
}

// How the models under one name of tokenizer.ggml.pre split text.
struct SplitRule {
  std::vector<std::string_view> names;
  json normalizer;      // null = none
  json pre_tokenizers;  // an array
  bool ignore_merges;
  bool adds_bos;  // where the file does not say
};

const std::vector<SplitRule>& split_rules() {
  static const std::vector<SplitRule> kRules = {
      // A file without the key, or one that says "default", is split as GPT-2 splits.
      {{"", "default", "gpt-2"}, nullptr, {byte_level(true)}, false, false},
      {{"smollm", "starcoder", "refact"}, nullptr, {digits(true), byte_level(true)}, false, false},
      {{"llama-bpe", "llama3", "llama-v3"}, nullptr, {split(kLlama3Pattern), byte_level(false)}, true, true},
      {{"qwen2", "deepseek-r1-qwen"}, {{"type", "NFC"}}, {split(kQwen2Pattern), byte_level(false)}, false, false},
      {{"deepseek-llm"},
       nullptr,
       {split("[\\r\\n]"), split(kDeepSeekLlmWords), split(kDeepSeekLlmPunctuation), split("\\s+$"),
        split(kDeepSeekLlmCjk), digits(true), byte_level(false)},
       false,
       true},
      {{"deepseek-coder"},
       nullptr,
       {split("[\\r\\n]"), split("\\s?\\p{L}+"), split("\\s?\\p{P}+"), split(kDeepSeekLlmCjk), digits(true),
        byte_level(false)},
       false,
       true},
      {{"deepseek-v3"},
       nullptr,
       {split("\\p{N}{1,3}"), split(kDeepSeekV3Cjk), split(kDeepSeekV3Words), byte_level(false)},
       false,
       true},
  };
  return kRules;
}

[[noreturn]] void refuse(const GgufVocabulary& vocabulary, const std::string& key, const std::string& reason) {
  throw std::runtime_error(vocabulary.source + ": tokenizer." + key + ": " + reason);
}

const SplitRule& rule_of(const GgufVocabulary& vocabulary) {
  for (const SplitRule& rule : split_rules()) {
    if (std::find(rule.names.begin(), rule.names.end(), vocabulary.pre) != rule.names.end()) return rule;
  }
  refuse(vocabulary, "ggml.pre", "the split rule '" + vocabulary.pre + "' is not supported");
}

void check_text(const GgufVocabulary& vocabulary, const std::string& key, const std::string& text) {
  if (!is_utf8(text)) refuse(vocabulary, key, "is not UTF-8");
}

std::optional<int32_t> checked_id(const GgufVocabulary& vocabulary, const char* key, std::optional<int64_t> id) {
  if (!id) return std::nullopt;
  if (*id < 0 || *id >= static_cast<int64_t>(vocabulary.tokens.size())) {
    refuse(vocabulary, key,
           "id " + std::to_string(*id) + " is outside the vocabulary of " + std::to_string(vocabulary.tokens.size()));
  }
  return static_cast<int32_t>(*id);
}

struct RoleIds {
  std::optional<int32_t> bos, eos, pad, unk;

  explicit RoleIds(const GgufVocabulary& vocabulary)
      : bos(checked_id(vocabulary, "ggml.bos_token_id", vocabulary.bos_token_id)),
        eos(checked_id(vocabulary, "ggml.eos_token_id", vocabulary.eos_token_id)),
        pad(checked_id(vocabulary, "ggml.padding_token_id", vocabulary.padding_token_id)),
        unk(checked_id(vocabulary, "ggml.unknown_token_id", vocabulary.unknown_token_id)) {}
};

json model_of(const GgufVocabulary& vocabulary, bool ignore_merges) {
  json vocab = json::object();
  for (size_t id = 0; id < vocabulary.tokens.size(); ++id) {
    const std::string& token = vocabulary.tokens[id];
    const std::string where = "ggml.tokens[" + std::to_string(id) + "]";
    check_text(vocabulary, where, token);
    if (token.empty()) refuse(vocabulary, where, "is empty");
    if (!vocab.emplace(token, id).second) refuse(vocabulary, where, "'" + token + "' is there already");
  }
  json merges = json::array();
  for (size_t rank = 0; rank < vocabulary.merges.size(); ++rank) {
    const std::string& merge = vocabulary.merges[rank];
    const std::string where = "ggml.merges[" + std::to_string(rank) + "]";
    check_text(vocabulary, where, merge);
    const size_t space = merge.find(' ');
    if (space == std::string::npos) refuse(vocabulary, where, "expected two tokens and one space");
    merges.push_back({merge.substr(0, space), merge.substr(space + 1)});
  }
  return bpe_model<json>(std::move(vocab), std::move(merges), ignore_merges);
}

// Control tokens are special, user-defined ones are not, but both are found in text before BPE. The tokens that begin
// and end a text are special whatever their type says: text must not be able to form them.
json added_tokens_of(const GgufVocabulary& vocabulary, const RoleIds& roles) {
  const auto& types = vocabulary.token_types;
  if (!types.empty() && types.size() != vocabulary.tokens.size()) {
    refuse(vocabulary, "ggml.token_type",
           "expected " + std::to_string(vocabulary.tokens.size()) + " types, not " + std::to_string(types.size()));
  }
  json added = json::array();
  for (size_t index = 0; index < vocabulary.tokens.size(); ++index) {
    const auto id = static_cast<int32_t>(index);
    const int32_t type = types.empty() ? int32_t{kNormal} : types[index];
    if (type < kNormal || type > kUnused) {
      refuse(vocabulary, "ggml.token_type[" + std::to_string(id) + "]",
             "type " + std::to_string(type) + " is not supported in byte-level BPE");
    }
    const bool special = type == kControl || type == kUnknown || id == roles.bos || id == roles.eos;
    if (!special && type != kUserDefined) continue;
    added.push_back(added_token<json>(id, vocabulary.tokens[index], special));
  }
  return added;
}

json post_processor_of(const GgufVocabulary& vocabulary, const RoleIds& roles, bool adds_bos) {
  if (!vocabulary.add_bos_token.value_or(adds_bos)) return nullptr;
  if (!roles.bos) {
    if (vocabulary.add_bos_token) refuse(vocabulary, "ggml.add_bos_token", "is true, but there is no bos token");
    return nullptr;
  }
  const std::string& bos = vocabulary.tokens[*roles.bos];
  const auto sequence = [](const char* id, int type) { return json{{"Sequence", {{"id", id}, {"type_id", type}}}}; };
  const auto bos_token = [&](int type) { return json{{"SpecialToken", {{"id", bos}, {"type_id", type}}}}; };
  return {{"type", "TemplateProcessing"},
          {"single", {bos_token(0), sequence("A", 0)}},
          {"pair", {bos_token(0), sequence("A", 0), bos_token(1), sequence("B", 1)}},
          {"special_tokens", {{bos, {{"id", bos}, {"ids", {*roles.bos}}, {"tokens", {bos}}}}}}};
}

json config_of(const GgufVocabulary& vocabulary, const TokenRoles& roles) {
  json config = {{"tokenizer_class", "PreTrainedTokenizerFast"}, {"clean_up_tokenization_spaces", false}};
  const auto put = [&](const char* key, const std::optional<std::string>& token) {
    if (token) config[key] = *token;
  };
  put("bos_token", roles.bos);
  put("eos_token", roles.eos);
  put("pad_token", roles.pad);
  put("unk_token", roles.unk);
  check_text(vocabulary, "chat_template", vocabulary.chat_template);
  if (!vocabulary.chat_template.empty()) config["chat_template"] = vocabulary.chat_template;
  return config;
}

}  // namespace

Tokenizer Tokenizer::from_gguf(const GgufVocabulary& vocabulary) {
  if (vocabulary.model != "gpt2") {
    refuse(vocabulary, "ggml.model", "'" + vocabulary.model + "' is not supported; byte-level BPE is 'gpt2'");
  }
  if (vocabulary.tokens.empty()) refuse(vocabulary, "ggml.tokens", "is missing or empty");
  if (vocabulary.tokens.size() > static_cast<size_t>(std::numeric_limits<int32_t>::max())) {
    refuse(vocabulary, "ggml.tokens", "has too many tokens");
  }
  const SplitRule& rule = rule_of(vocabulary);
  const RoleIds ids(vocabulary);
  const json tokenizer =
      tokenizer_file<json>({.added_tokens = added_tokens_of(vocabulary, ids),
                            .normalizer = rule.normalizer,
                            .pre_tokenizer = json{{"type", "Sequence"}, {"pretokenizers", rule.pre_tokenizers}},
                            .post_processor = post_processor_of(vocabulary, ids, rule.adds_bos),
                            .decoder = byte_level(true),
                            .model = model_of(vocabulary, rule.ignore_merges)});
  const auto token_at = [&](std::optional<int32_t> id) {
    return id ? std::optional(vocabulary.tokens[*id]) : std::nullopt;
  };
  const TokenRoles roles{token_at(ids.bos),        token_at(ids.eos), token_at(ids.pad), token_at(ids.unk), {},
                         vocabulary.chat_template, vocabulary.source};
  auto parts =
      std::make_shared<TokenizerParts>(read_tokenizer_json(tokenizer, vocabulary.source), roles, vocabulary.source);
  parts->files["tokenizer.json"] = tokenizer.dump(1);
  parts->files["tokenizer_config.json"] = config_of(vocabulary, roles).dump(2);
  return Tokenizer(std::move(parts));
}

}  // namespace troupe
