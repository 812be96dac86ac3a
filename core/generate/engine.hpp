// Generation: continuous batching over a paged key-value cache.
//
// Requests wait in a bounded queue; each step() runs one token of every running answer plus a slice of the prompts that
// wait, in one pass over the weights. A group's prompt is computed once: its samples share the prompt's full pages.
// On the CPU the kernels are this folder's own (kernels.hpp), chosen once per engine by what the machine can do; with
// EngineOptions::plain_kernels everything is at:: operations (any device), kept beside as the reference.
//
// Reproducible: with the own kernels a token's logits are the same bits whatever else is in the batch, however prompts
// are sliced, and with any number of threads. Randomness is counter-based (philox.hpp): seed, draw, sample index and
// position decide it. So a request gives the same answers whichever engine of the same kernels serves it.
//
// Threads: one thread calls everything, except prepare_weights, which any one other thread may call at any time.
#pragma once

#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/models/config.hpp"
#include "core/models/state_dict.hpp"
#include "protocol/types.hpp"

namespace troupe {

// Token ids -> text, special tokens left out. Needed for stop strings and Completion::text; may be empty otherwise.
using TextDecoder = std::function<std::string(std::span<const int32_t>)>;

struct GenerateRequest {
  uint64_t id = 0;              // unique among the requests in the engine
  uint64_t seed = 0;            // the run's seed
  uint64_t draw = 0;            // which prompt of the run; (seed, draw, sample, position) decide every random number
  int64_t num_samples = 1;      // answers to the prompt, >= 1
  std::vector<int32_t> prompt;  // >= 1 ids below vocab_size; prompt + max_new_tokens <= max_positions
  Sampling sampling;
  // A talk's turn, of one sample: its keys and values stay when it ends or is cancelled, and the next request of this
  // kind computes only what of its prompt is not the same tokens. The answer is the same bits (with the own kernels).
  bool keeps_cache = false;
};

struct Completion {               // one answer
  std::vector<int32_t> tokens;    // [T], EOS included when it ended the answer
  std::vector<float> logprobs;    // [T], log softmax(logits / temperature), at temperature 1 when greedy
  std::vector<int32_t> versions;  // [T], the weights that produced each token
  FinishReason finish = FinishReason::kLength;
  std::string text;  // decoded, cut before the stop string; "" without a TextDecoder
};

struct Finished {
  uint64_t id = 0;
  std::vector<Completion> completions;  // [num_samples], in sample order
};

struct EngineOptions {
  c10::ScalarType dtype = c10::ScalarType::BFloat16;  // weights, GEMM inputs and KV cache: BFloat16 or Float
  int threads = 0;                                    // 0: one per hardware thread
  int64_t max_batch = 64;                             // answers running at the same time
  int64_t max_tokens = 32768;                         // room of the KV cache, tokens (memory is touched on use only)
  int64_t max_requests = 4096;                        // requests in the engine; submit throws past it
  bool plain_kernels = false;
  std::string kernels = "auto";  // "amx", "avx512bf16", "avx512", "avx2", "portable": refuse any other choice
  c10::Device device = c10::DeviceType::CPU;  // other than the CPU: plain_kernels only
};

struct EngineStats {
  int64_t running_sequences = 0;  // answers that get a token in the next step
  int64_t waiting_requests = 0;   // requests with an answer that has not started
  int64_t kv_tokens_held = 0;     // reserved room of the KV cache, tokens
  int64_t kv_tokens_capacity = 0;
  uint64_t generated_tokens = 0;  // since construction
  uint64_t prompt_tokens = 0;     // computed, since construction
  uint64_t version = 0;           // of the weights in use
};

class Engine {
 public:
  // Copies (packs) the weights. Throws std::invalid_argument for a missing tensor, a wrong shape, or kernels that this
  // machine lacks.
  Engine(DecoderConfig config, const StateDict& weights, TextDecoder decode_text, EngineOptions options,
         uint64_t version = 0);
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  // Queues a request. Throws std::invalid_argument for one that can never run (ids, lengths, sampling values, one
  // answer alone larger than the KV cache, a repeated id), std::runtime_error when max_requests are in the engine.
  void submit(GenerateRequest request);

  // One pass: a token for every running answer, and a slice of waiting prompts. False when there was nothing to do.
  // Throws std::runtime_error when logits are not finite (a model that diverged): requests stay as they were, to be
  // cancelled, or stepped on with other weights.
  bool step();

  // The tokens of one answer so far, to be shown while it grows; empty for an id that is not in the engine. Valid until
  // the next call.
  std::span<const int32_t> tokens_so_far(uint64_t id, int64_t sample = 0) const;

  // A request all of whose answers are done, oldest first; nullopt when there is none.
  std::optional<Finished> take_finished();

  // Drops a request wherever it is (queued, running, finished but not taken). False when the id is unknown.
  bool cancel(uint64_t id);

  // New weights of the same shapes. prepare_weights packs into a back buffer (any thread; blocks only that thread) and
  // replaces weights prepared earlier and not yet swapped in; swap_prepared takes them between two steps: running
  // answers keep their KV cache and go on. False when nothing was prepared.
  void prepare_weights(const StateDict& weights, uint64_t version);
  bool swap_prepared();
  // Both at once, packed in the place of the old weights: no second copy, and nothing to generate with meanwhile. What
  // throws std::invalid_argument leaves the old ones in use.
  void swap_weights(const StateDict& weights, uint64_t version);
  // Gives the key-value cache's memory back to the system until it is needed; nothing where a request holds some of it.
  void discard_cache();
  // Whether the weights in use are these, bit for bit: what the next step reads is compared, not what was handed in.
  // The own kernels keep panels in another order and padded; they are compared with `weights` packed again.
  bool holds(const StateDict& weights) const;

  // log softmax(logits / temperature) of the response tokens of packed sequences (prompt, then response, one after
  // another). [sum(P_i + T_i)], [B], [B] -> [sum T_i]. Same kernels and bits as generation. Uses free KV room; throws
  // std::invalid_argument for bad lengths or ids, std::runtime_error when running requests leave too little room.
  std::vector<float> logprobs(std::span<const int32_t> tokens, std::span<const int32_t> prompt_lengths,
                              std::span<const int32_t> response_lengths, double temperature);

  // The logits of the last `rows` tokens of one sequence, float32 [rows, vocab]: for tests and tools.
  std::vector<float> logits(std::span<const int32_t> tokens, int64_t rows);

  EngineStats stats() const;
  std::string kernel_name() const;  // "amx", ..., "plain"

 private:
  class Scheduler;
  std::unique_ptr<Scheduler> scheduler_;
};

}  // namespace troupe
