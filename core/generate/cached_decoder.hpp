// One pass of a decoder over some tokens of some sequences, with a paged key-value cache. Two of them: PackedDecoder
// (our kernels, CPU) and PlainDecoder (at:: operations, any device). The engine decides which tokens; a decoder
// computes.
//
// One thread calls it, except prepare(), which any one other thread may call.
#pragma once

#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

#include <cstdint>
#include <memory>
#include <span>

#include "core/generate/kernels.hpp"
#include "core/generate/sampler.hpp"
#include "core/generate/worker_pool.hpp"
#include "core/models/config.hpp"
#include "core/models/state_dict.hpp"

namespace troupe {

// Consecutive tokens of one sequence; what precedes them is in the sequence's pages (or in an earlier slice).
struct TokenSlice {
  const int32_t* pages = nullptr;  // of the sequence, kernels::kPageTokens tokens each
  int64_t start = 0;               // position of the first token
  std::span<const int32_t> tokens;
  int64_t sequence_length = 0;  // as far as known; matters for the "dynamic" rotary type only
};

struct LogitRequest {
  int64_t row = 0;  // counts the tokens of all slices of the pass
  float inverse_temperature = 1;
};

struct CachedDecoderOptions {
  DecoderConfig config;
  int64_t num_pages = 0;
  int64_t max_rows = 0;    // tokens in one pass
  int64_t max_logits = 0;  // rows in one compute_logits
};

class CachedDecoder {
 public:
  virtual ~CachedDecoder() = default;

  // Computes the tokens' hidden states and writes their keys and values.
  virtual void forward(std::span<const TokenSlice> slices) = 0;
  // Logits of some rows of the last forward. Valid until the next call.
  virtual void compute_logits(std::span<const LogitRequest> requests) = 0;
  virtual LogitRow logits(int64_t request) = 0;
  virtual void copy_page(int32_t from, int32_t to) = 0;  // in all layers
  // Gives the cache's memory back to the system until the next forward; what it held is lost.
  virtual void discard_cache() {}

  // Packs new weights aside; swap() puts them in place, false when there are none.
  virtual void prepare(const StateDict& weights) = 0;
  virtual bool swap() = 0;
  // Both at once, in the place of the old weights; those that wait for swap() are dropped. Throws std::invalid_argument
  // before anything changes.
  virtual void replace(const StateDict& weights) = 0;
  // Whether the weights in place are these, bit for bit.
  virtual bool holds(const StateDict& weights) const = 0;

  virtual const kernels::KernelTable& kernels() const = 0;  // for the sampler
  virtual const char* name() const = 0;
  virtual int64_t weight_bytes() const = 0;  // read in one pass of one token
};

// The pool must outlive the decoder. Weights come by prepare() and swap(), before the first pass.
std::unique_ptr<CachedDecoder> make_packed_decoder(const CachedDecoderOptions& options,
                                                   const kernels::KernelTable& kernels, WorkerPool& pool);
// dtype: float32 or bfloat16; `kernels` serve the sampler only.
std::unique_ptr<CachedDecoder> make_plain_decoder(const CachedDecoderOptions& options,
                                                  const kernels::KernelTable& kernels, c10::ScalarType dtype,
                                                  c10::Device device);

}  // namespace troupe
