#include <cstdio>
#include <iostream>

#include "core/generate/engine.hpp"
#include "core/generate/kernels.hpp"
#include "core/io/model_folder.hpp"
#include "roles/model_source.hpp"
#include "roles/run_role.hpp"

namespace troupe {

int generate_command(const GenerateOptions& options) {
  if (options.dtype != "bf16" && options.dtype != "f32")
    throw std::invalid_argument("--dtype: '" + options.dtype + "', expected bf16 or f32");
  const at::ScalarType dtype = options.dtype == "bf16" ? at::kBFloat16 : at::kFloat;
  const LoadedModel model = load_model(options.model, dtype);
  const Tokenizer tokenizer = load_tokenizer(options.model);
  std::vector<int32_t> prompt;
  if (options.chat) {
    std::vector<ChatMessage> messages;
    if (options.system) messages.push_back({"system", *options.system});
    messages.push_back({"user", options.prompt});
    prompt = tokenizer.encode_chat(tokenizer.chat_template(), messages, true);
  } else {
    prompt = tokenizer.encode_with_bos(options.prompt);
  }
  // Room for at least one answer and its copy of the prompt's last page; touched on use only.
  const int64_t length = static_cast<int64_t>(prompt.size()) + options.sampling.max_new_tokens;
  Engine engine(model.config, model.weights, [&](std::span<const int32_t> ids) { return tokenizer.decode(ids, true); },
                {.dtype = dtype,
                 .threads = static_cast<int>(options.threads),
                 .max_tokens = std::max(EngineOptions{}.max_tokens, length + 2 * kernels::kPageTokens)});
  engine.submit({.id = 1,
                 .seed = options.seed,
                 .num_samples = options.count,
                 .prompt = std::move(prompt),
                 .sampling = options.sampling});
  while (engine.step()) {
  }
  const auto finished = engine.take_finished();
  if (!finished) throw std::logic_error("the engine stopped before the answer was finished");
  for (const Completion& answer : finished->completions) std::cout << answer.text << '\n';
  return 0;
}

}  // namespace troupe
