// A learnt vocabulary in the files that transformers reads, spelled as the `tokenizers` library spells them.
#include <nlohmann/json.hpp>

#include "core/text/bpe_trainer_parts.hpp"
#include "core/text/tokenizer_spelling.hpp"

namespace troupe {

using Json = nlohmann::ordered_json;

const std::string kChatMlTemplate =
    R"({%- if messages[0].role != 'system' %}
    {{- '<|im_start|>system\nYou are a helpful assistant<|im_end|>\n' }}
{%- endif %}
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\n\n</think>\n\n' }}
    {%- endif %}
{%- endif %})";

namespace {

Json vocabulary_of(const LearntVocabulary& learnt) {
  Json::object_t vocabulary;
  for (size_t id = 0; id < learnt.tokens.size(); ++id) vocabulary.emplace_back(learnt.tokens[id], id);
  return vocabulary;
}

std::string tokenizer_json(const LearntVocabulary& learnt, const BpeTrainingOptions& options, const Json& vocabulary) {
  Json added = Json::array();
  for (size_t id = 0; id < options.special_tokens.size(); ++id)
    added.push_back(added_token<Json>(static_cast<int64_t>(id), options.special_tokens[id], true));
  Json merges = Json::array();
  for (const auto& [left, right] : learnt.merges) merges.push_back({learnt.tokens[left], learnt.tokens[right]});
  return tokenizer_file<Json>({.added_tokens = std::move(added),
                               .normalizer = nullptr,
                               .pre_tokenizer = byte_level_part<Json>(false, true),
                               .post_processor = nullptr,
                               .decoder = byte_level_part<Json>(true, true),
                               .model = bpe_model<Json>(vocabulary, std::move(merges), false)})
      .dump(2);
}

std::string config_json(const BpeTrainingOptions& options) {
  const std::vector<std::string>& special = options.special_tokens;
  Json decoder = Json::object();
  for (size_t id = 0; id < special.size(); ++id) {
    decoder[std::to_string(id)] = {{"content", special[id]}, {"lstrip", false},      {"normalized", false},
                                   {"rstrip", false},        {"single_word", false}, {"special", true}};
  }
  Json config = {{"add_bos_token", false},
                 {"add_eos_token", false},
                 {"add_prefix_space", false},
                 {"added_tokens_decoder", std::move(decoder)},
                 {"clean_up_tokenization_spaces", false},
                 {"model_max_length", 32768},
                 {"spaces_between_special_tokens", false},
                 {"tokenizer_class", "PreTrainedTokenizerFast"}};
  const auto put = [&](const char* role, size_t id) {
    if (id < special.size()) config[role] = special[id];
  };
  put("pad_token", 0);
  put("unk_token", 0);
  put("bos_token", 1);
  put("eos_token", 2);
  if (!options.chat_template.empty()) config["chat_template"] = options.chat_template;
  return config.dump(2) + "\n";
}

}  // namespace

std::map<std::string, std::string> tokenizer_files(const LearntVocabulary& learnt, const BpeTrainingOptions& options) {
  const Json vocabulary = vocabulary_of(learnt);
  std::string merges = "#version: 0.2\n";
  for (const auto& [left, right] : learnt.merges) merges += learnt.tokens[left] + " " + learnt.tokens[right] + "\n";
  return {{"tokenizer.json", tokenizer_json(learnt, options, vocabulary)},
          {"tokenizer_config.json", config_json(options)},
          {"vocab.json", vocabulary.dump()},
          {"merges.txt", std::move(merges)}};
}

}  // namespace troupe
