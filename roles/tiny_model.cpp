#include "roles/tiny_model.hpp"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/normal.h>
#include <ATen/ops/ones.h>

#include <charconv>
#include <random>

#include "core/io/model_folder.hpp"
#include "core/text/byte_level.hpp"
#include "core/train/engine.hpp"
#include "roles/prompt_source.hpp"

namespace troupe {
namespace {

constexpr int64_t kQuestionsPerStep = 32;
constexpr std::string_view kTemplate =
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

std::string utf8(uint32_t code) {
  if (code < 0x80) return {static_cast<char>(code)};
  return {static_cast<char>(0xC0 | code >> 6), static_cast<char>(0x80 | (code & 0x3F))};
}

// One token a byte, and the three that chats need.
Tokenizer byte_tokenizer() {
  GgufVocabulary words{.source = "the byte-level tokenizer", .model = "gpt2", .pre = "gpt-2"};
  for (const char* special : {"<|endoftext|>", "<|im_start|>", "<|im_end|>"}) {
    words.tokens.push_back(special);
    words.token_types.push_back(3);
  }
  for (int byte = 0; byte < 256; ++byte) {
    words.tokens.push_back(utf8(character_of_byte(static_cast<uint8_t>(byte))));
    words.token_types.push_back(1);
  }
  words.bos_token_id = 1;
  words.eos_token_id = 2;
  words.padding_token_id = 0;
  words.chat_template = kTemplate;
  return Tokenizer::from_gguf(words);
}

DecoderConfig tiny_config(const TinyModelOptions& options, int64_t vocab_size) {
  DecoderConfig c;
  c.family = "llama";
  c.vocab_size = vocab_size;
  c.hidden_size = options.hidden_size;
  c.intermediate_size = options.hidden_size * 3;
  c.num_layers = options.num_layers;
  c.num_heads = 4;
  c.num_kv_heads = 2;
  c.head_dim = options.hidden_size / 4;
  c.rms_norm_eps = 1e-5;
  c.max_positions = 512;
  c.tie_embeddings = true;
  c.bos_token = 1;
  c.pad_token = 0;
  c.eos_tokens = {2};
  return c;
}

StateDict random_weights(const DecoderConfig& config, uint64_t seed) {
  auto generator = at::make_generator<at::CPUGeneratorImpl>(seed);
  StateDict weights;
  for (const auto& [name, shape] : parameter_shapes(config))
    weights[name] = shape.size() == 1 ? at::ones(shape) : at::normal(0.0, 0.05, shape, generator);
  return weights;
}

// One too many; of what is no number, another question's.
std::string wrong_answer(const std::string& right, const std::string& other) {
  int64_t number = 0;
  const auto [end, error] = std::from_chars(right.data(), right.data() + right.size(), number);
  return error == std::errc() && end == right.data() + right.size() ? std::to_string(number + 1) : other;
}

// A batch of questions with their answers, right or (in wrong_share of the cases) wrong.
PackedBatch lesson(const std::vector<TokenizedPrompt>& prompts, const Tokenizer& tokenizer, double wrong_share,
                   std::mt19937_64& random) {
  std::vector<int64_t> tokens;
  PackedBatch batch;
  for (int64_t i = 0; i < kQuestionsPerStep; ++i) {
    const TokenizedPrompt& prompt = prompts[random() % prompts.size()];
    const bool wrong = static_cast<double>(random() % 1000) < wrong_share * 1000;
    const std::string& other = prompts[random() % prompts.size()].answer;
    const std::string answer = wrong ? wrong_answer(prompt.answer, other) : prompt.answer;
    std::vector<int32_t> ids = tokenizer.encode(answer);
    ids.push_back(*tokenizer.eos_id());
    tokens.insert(tokens.end(), prompt.ids.begin(), prompt.ids.end());
    tokens.insert(tokens.end(), ids.begin(), ids.end());
    batch.prompt_lengths.push_back(static_cast<int64_t>(prompt.ids.size()));
    batch.response_lengths.push_back(static_cast<int64_t>(ids.size()));
  }
  batch.tokens = at::tensor(tokens, at::kLong);
  return batch;
}

}  // namespace

void make_tiny_model(const TinyModelOptions& options, const std::function<void(const std::string&)>& on_progress) {
  require_replaceable(options.to);
  const Tokenizer tokenizer = byte_tokenizer();
  const DecoderConfig config = tiny_config(options, tokenizer.vocab_size());
  TrainEngine engine(config, random_weights(config, options.seed),
                     {.adamw = {.learning_rate = 2e-3},
                      .schedule = {.kind = "linear", .warmup_steps = 20, .total_steps = options.steps + 1},
                      .micro_batch_tokens = 0});
  if (options.steps > 0) {
    PromptsSection section;
    const auto prompts = read_tokenized_prompts(options.prompts, tokenizer, section);
    std::mt19937_64 random(options.seed);
    for (int64_t step = 1; step <= options.steps; ++step) {
      const PackedBatch batch = lesson(prompts, tokenizer, options.wrong_share, random);
      const auto count = static_cast<double>(batch.response_tokens());
      const Accumulated done = engine.accumulate(
          batch, 1.0, [&](const MicroBatch&, const TokenOutputs& out) { return -out.logprobs.sum() / count; });
      engine.apply();
      if (on_progress && (step % 50 == 0 || step == options.steps))
        on_progress("tiny model: step " + std::to_string(step) + " of " + std::to_string(options.steps) + ", loss " +
                    std::to_string(done.loss));
    }
  }
  save_model(real_disk(), options.to, config, engine.weights(), at::kFloat,
             [&](const std::filesystem::path& folder) { tokenizer.save(folder); });
}

}  // namespace troupe
