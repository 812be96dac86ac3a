// Reads tokenizer.json: each component is turned into its struct here, or refused by name.
#include <algorithm>
#include <limits>

#include "core/text/json_view.hpp"
#include "core/text/tokenizer_parts.hpp"

namespace troupe {
namespace {

constexpr int kMaxNesting = 16;
constexpr int64_t kMaxId = std::numeric_limits<int32_t>::max();

// Splices the parts of nested Sequences: calls read(part) for each component that is no Sequence, in order.
template <typename Read>
void for_each_component(const JsonView& component, const char* list_key, Read read, int depth = 0) {
  if (component["type"].string() != "Sequence") {
    read(component);
    return;
  }
  if (depth == kMaxNesting) component.refuse("too many nested Sequences");
  component[list_key].for_each([&](const JsonView& part) { for_each_component(part, list_key, read, depth + 1); });
}

[[noreturn]] void refuse_component(const JsonView& component, const char* kind) {
  component.refuse(std::string(kind) + " '" + component["type"].string() + "' is not supported");
}

Regex read_pattern(const JsonView& pattern) {
  try {
    if (pattern.has("Regex")) return Regex(pattern["Regex"].string());
    const std::string& literal = pattern["String"].string();
    if (literal.empty()) pattern.refuse("the string to find is empty");
    return Regex::of_literal(literal);
  } catch (const std::invalid_argument& error) {
    pattern.refuse(error.what());
  }
}

NormalizerStep read_normalizer_step(const JsonView& step) {
  const std::string& type = step["type"].string();
  if (type == "NFC") return NormalForm::kNfc;
  if (type == "NFD") return NormalForm::kNfd;
  if (type == "NFKC") return NormalForm::kNfkc;
  if (type == "NFKD") return NormalForm::kNfkd;
  if (type == "Lowercase") return Lowercase{};
  if (type == "Prepend") return Prepend{step["prepend"].string()};
  if (type == "Replace") return ReplaceAll{read_pattern(step["pattern"]), step["content"].string()};
  refuse_component(step, "normalizer");
}

SplitBehavior read_behavior(const JsonView& behavior) {
  const std::string& name = behavior.string();
  if (name == "Removed") return SplitBehavior::kRemoved;
  if (name == "Isolated") return SplitBehavior::kIsolated;
  if (name == "MergedWithPrevious") return SplitBehavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return SplitBehavior::kMergedWithNext;
  if (name == "Contiguous") return SplitBehavior::kContiguous;
  behavior.refuse("split behavior '" + name + "' is not supported");
}

PreTokenizerStep read_pre_tokenizer_step(const JsonView& step) {
  const std::string& type = step["type"].string();
  if (type == "ByteLevel")
    return ByteLevelStep{step.boolean("add_prefix_space", true), step.boolean("use_regex", true)};
  if (type == "Digits") return DigitsStep{step.boolean("individual_digits", false)};
  if (type == "Split") {
    return SplitStep{read_pattern(step["pattern"]), read_behavior(step["behavior"]), step.boolean("invert", false)};
  }
  refuse_component(step, "pre-tokenizer");
}

// The library runs decoder steps on a list of tokens. Those that work token by token must come before those that work
// on the whole text, which is how the known tokenizers order them; another order is refused.
void read_decoder_step(const JsonView& step, DecoderRules& rules, int& stage) {
  enum Stage { kReplace, kBytes, kFuse, kStrip };
  const std::string& type = step["type"].string();
  const auto enter = [&](Stage at_least) {
    if (stage > at_least) step.refuse("decoder '" + type + "' is not supported at this place in the sequence");
    stage = at_least;
  };
  if (type == "Replace") {
    enter(kReplace);
    const std::string& from = step["pattern"]["String"].string();
    if (from.empty()) step.refuse("the string to replace is empty");
    rules.replacements.emplace_back(from, step["content"].string());
  } else if (type == "ByteFallback" || type == "ByteLevel") {
    enter(kBytes);
    if (rules.byte_level || rules.byte_fallback) step.refuse("a second decoder of bytes is not supported");
    (type == "ByteLevel" ? rules.byte_level : rules.byte_fallback) = true;
  } else if (type == "Fuse") {
    enter(kFuse);
  } else if (type == "Strip" && stage == kFuse) {
    enter(kStrip);
    if (step["stop"].index(kMaxId) != 0) step.refuse("stripping the end of a text is not supported");
    rules.strip_text = step["content"].string();
    rules.strip_count = static_cast<size_t>(step["start"].index(1 << 20));
    if (rules.strip_text.empty()) step.refuse("the text to strip is empty");
  } else {
    refuse_component(step, "decoder");
  }
}

void append_ids(const JsonView& special_tokens, const std::string& name, std::vector<int32_t>& ids) {
  special_tokens[name.c_str()]["ids"].for_each(
      [&](const JsonView& id) { ids.push_back(static_cast<int32_t>(id.index(kMaxId))); });
}

void read_post_processor_step(const JsonView& step, TokenizerDescription& description) {
  const std::string& type = step["type"].string();
  if (type == "ByteLevel") return;  // changes offsets only
  if (type != "TemplateProcessing") refuse_component(step, "post-processor");
  std::vector<int32_t> before;
  std::vector<int32_t> after;
  int num_sequences = 0;
  step["single"].for_each([&](const JsonView& part) {
    if (part.has("Sequence")) {
      ++num_sequences;
    } else {
      append_ids(step["special_tokens"], part["SpecialToken"]["id"].string(), num_sequences == 0 ? before : after);
    }
  });
  if (num_sequences != 1) step.refuse("expected one Sequence in 'single'");
  description.prefix_ids.insert(description.prefix_ids.begin(), before.begin(), before.end());
  description.suffix_ids.insert(description.suffix_ids.end(), after.begin(), after.end());
}

void read_tokens(const JsonView& vocab, std::vector<std::string>& tokens) {
  if (!vocab.value().is_object() || vocab.value().empty()) vocab.refuse("expected an object of tokens and ids");
  // Ids may have gaps, but a file must not make us allocate far more than it holds.
  const int64_t limit = std::min<int64_t>(kMaxId, 4 * static_cast<int64_t>(vocab.value().size()) + 65536);
  for (const auto& [token, id_value] : vocab.value().items()) {
    if (token.empty()) vocab.refuse("a token is empty");
    const auto id = static_cast<size_t>(JsonView(id_value, vocab.path() + " '" + token + "'").index(limit));
    if (id >= tokens.size()) tokens.resize(id + 1);
    if (!tokens[id].empty()) {
      vocab.refuse("id " + std::to_string(id) + " belongs to both '" + tokens[id] + "' and '" + token + "'");
    }
    tokens[id] = token;
  }
}

std::pair<std::string, std::string> read_merge(const JsonView& merge) {
  if (merge.value().is_array()) {
    if (merge.value().size() != 2) merge.refuse("expected two tokens");
    return {JsonView(merge.value()[0], merge.path()).string(), JsonView(merge.value()[1], merge.path()).string()};
  }
  const std::string& text = merge.string();
  const size_t space = text.find(' ');
  const bool has_two_parts = space != std::string::npos && text.find(' ', space + 1) == std::string::npos;
  if (!has_two_parts || space == 0 || space + 1 == text.size()) merge.refuse("expected two tokens and one space");
  return {text.substr(0, space), text.substr(space + 1)};
}

BpeVocabulary read_model(const JsonView& model) {
  if (model.has("type") && model["type"].string() != "BPE") refuse_component(model, "model");
  if (model.has("dropout") && model["dropout"].value() != 0.0) model.refuse("dropout is not supported");
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (model.has(key) && !model[key].string().empty()) model[key].refuse("is not supported");
  }
  BpeVocabulary vocabulary;
  read_tokens(model["vocab"], vocabulary.tokens);
  model["merges"].for_each([&](const JsonView& merge) { vocabulary.merges.push_back(read_merge(merge)); });
  if (model.has("unk_token") && !model["unk_token"].string().empty())
    vocabulary.unknown_token = model["unk_token"].string();
  vocabulary.fuse_unknown = model.boolean("fuse_unk", false);
  vocabulary.byte_fallback = model.boolean("byte_fallback", false);
  vocabulary.ignore_merges = model.boolean("ignore_merges", false);
  return vocabulary;
}

AddedToken read_added_token(const JsonView& token, int64_t limit) {
  AddedToken added;
  added.id = static_cast<int32_t>(token["id"].index(limit));
  added.content = token["content"].string();
  added.special = token.boolean("special", false);
  added.single_word = token.boolean("single_word", false);
  added.lstrip = token.boolean("lstrip", false);
  added.rstrip = token.boolean("rstrip", false);
  added.normalized = token.boolean("normalized", !added.special);
  return added;
}

}  // namespace

TokenizerDescription read_tokenizer_json(const nlohmann::json& tokenizer, const std::string& file) {
  const JsonView root(tokenizer, file + ": ");
  TokenizerDescription description;
  description.vocabulary = read_model(root["model"]);
  if (root.has("added_tokens")) {
    const JsonView list = root["added_tokens"];
    const auto limit = std::min<int64_t>(
        kMaxId, 4 * static_cast<int64_t>(description.vocabulary.tokens.size() + list.value().size()) + 65536);
    list.for_each([&](const JsonView& token) { description.added_tokens.push_back(read_added_token(token, limit)); });
  }
  if (root.has("normalizer")) {
    for_each_component(root["normalizer"], "normalizers",
                       [&](const JsonView& step) { description.normalizer.push_back(read_normalizer_step(step)); });
  }
  if (root.has("pre_tokenizer")) {
    for_each_component(root["pre_tokenizer"], "pretokenizers", [&](const JsonView& step) {
      description.pre_tokenizer.push_back(read_pre_tokenizer_step(step));
    });
  }
  if (root.has("post_processor")) {
    for_each_component(root["post_processor"], "processors",
                       [&](const JsonView& step) { read_post_processor_step(step, description); });
  }
  int stage = 0;
  for_each_component(root["decoder"], "decoders",
                     [&](const JsonView& step) { read_decoder_step(step, description.decoder, stage); });
  return description;
}

}  // namespace troupe
