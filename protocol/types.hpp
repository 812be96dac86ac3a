// Values shared by messages. No ZeroMQ, no LibTorch, no MessagePack: compiles in a moment.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include "protocol/fields.hpp"

namespace troupe {

enum class DType : uint8_t { kU8, kI32, kI64, kF32, kBF16 };

constexpr std::size_t dtype_size(DType d) {
  switch (d) {
    case DType::kU8:
      return 1;
    case DType::kBF16:
      return 2;
    case DType::kI32:
    case DType::kF32:
      return 4;
    case DType::kI64:
      return 8;
  }
  return 0;
}
constexpr std::string_view dtype_name(DType d) {
  switch (d) {
    case DType::kU8:
      return "u8";
    case DType::kI32:
      return "i32";
    case DType::kI64:
      return "i64";
    case DType::kF32:
      return "f32";
    case DType::kBF16:
      return "bf16";
  }
  return "?";
}

template <class T>
inline constexpr DType dtype_of = [] {
  if constexpr (std::is_same_v<T, uint8_t>)
    return DType::kU8;
  else if constexpr (std::is_same_v<T, int32_t>)
    return DType::kI32;
  else if constexpr (std::is_same_v<T, int64_t>)
    return DType::kI64;
  else if constexpr (std::is_same_v<T, float>)
    return DType::kF32;
  else
    static_assert(!sizeof(T), "no DType for this type");
}();

// A tensor that travels beside a message in a frame of its own: never copied into MessagePack.
// Shares ownership of its bytes (a received frame, a vector, a mapping); the bytes are immutable.
struct Attachment {
  DType dtype = DType::kU8;
  std::vector<int64_t> shape;         // row-major, contiguous; {0} when empty
  std::shared_ptr<const void> owner;  // keeps `bytes` alive
  std::span<const std::byte> bytes;   // dtype_size * product(shape)

  int64_t numel() const {
    int64_t n = 1;
    for (int64_t s : shape) n *= s;
    return shape.empty() ? 0 : n;
  }

  // Takes the vector over; shape is {values.size()}.
  template <class T>
  static Attachment of(std::vector<T> values) {
    auto held = std::make_shared<const std::vector<T>>(std::move(values));
    return {dtype_of<T>, {static_cast<int64_t>(held->size())}, held, std::as_bytes(std::span<const T>(*held))};
  }

  // The elements; throws std::invalid_argument when the dtype is another one. Valid while this Attachment lives.
  template <class T>
  std::span<const T> as() const {
    if (dtype != dtype_of<T>)
      throw std::invalid_argument("attachment holds " + std::string(dtype_name(dtype)) + ", expected " +
                                  std::string(dtype_name(dtype_of<T>)));
    return {reinterpret_cast<const T*>(bytes.data()), bytes.size() / sizeof(T)};
  }
};

// How a token is drawn. Log-probabilities are of logits / temperature, before top-k/top-p/min-p and the repetition
// penalty restrict them (the learner recomputes exactly these).
struct Sampling {
  double temperature = 1.0;  // 0: greedy
  int64_t top_k = 0;         // 0: off
  double top_p = 1.0;        // 1: off
  double min_p = 0.0;        // 0: off; tokens below min_p * max probability are dropped
  double repetition_penalty = 1.0;
  int64_t max_new_tokens = 64;
  bool ignore_eos = false;        // every answer runs to max_new_tokens (fixed work, for benchmarks)
  std::vector<std::string> stop;  // an answer ends once its text contains one of these
  static constexpr std::tuple kFields{Field{"temperature", &Sampling::temperature},
                                      Field{"top_k", &Sampling::top_k},
                                      Field{"top_p", &Sampling::top_p},
                                      Field{"min_p", &Sampling::min_p},
                                      Field{"repetition_penalty", &Sampling::repetition_penalty},
                                      Field{"max_new_tokens", &Sampling::max_new_tokens},
                                      Field{"ignore_eos", &Sampling::ignore_eos},
                                      Field{"stop", &Sampling::stop}};
};
TROUPE_FIELDS_COMPLETE(Sampling);

// Why an answer ended.
enum class FinishReason : uint8_t { kEos = 0, kStop = 1, kLength = 2 };

// One published version of the policy. The bytes lie in `location`, cut into chunks of `chunk_bytes` (the last may be
// shorter), each with its CRC-32C. Tensors lie where `offsets` says, apart from each other, each start aligned to 64
// bytes.
struct WeightManifest {
  uint64_t version = 0;                      // optimizer steps applied; 0 is the base model
  std::string dtype;                         // "f32" or "bf16"
  std::vector<std::string> names;            // Hugging Face parameter names, sorted
  std::vector<std::vector<int64_t>> shapes;  // parallel to names
  std::vector<uint64_t> offsets;             // bytes, parallel to names
  uint64_t total_bytes = 0;
  uint64_t chunk_bytes = 4 << 20;
  std::vector<uint32_t> chunk_crc32c;
  std::string digest;    // hex SHA-256 over chunk_crc32c and the layout: names a version's bits
  std::string location;  // "memfd:SOCKET_PATH#NAME", "inproc:NAME" or "chunks:" (ask FetchChunk)
  static constexpr std::tuple kFields{Field{"version", &WeightManifest::version},
                                      Field{"dtype", &WeightManifest::dtype},
                                      Field{"names", &WeightManifest::names},
                                      Field{"shapes", &WeightManifest::shapes},
                                      Field{"offsets", &WeightManifest::offsets},
                                      Field{"total_bytes", &WeightManifest::total_bytes},
                                      Field{"chunk_bytes", &WeightManifest::chunk_bytes},
                                      Field{"chunk_crc32c", &WeightManifest::chunk_crc32c},
                                      Field{"digest", &WeightManifest::digest},
                                      Field{"location", &WeightManifest::location}};
};
TROUPE_FIELDS_COMPLETE(WeightManifest);

// The batch of one update, exactly as trained on; also the journal's record of the step. B sequences, each a prompt of
// P_i and an answer of T_i tokens, packed one after another (no padding). N = sum T_i.
struct Experience {
  uint64_t step = 0;              // the update that consumes it, 1, 2, 3 ...
  Attachment tokens;              // int32 [sum(P_i + T_i)]
  Attachment prompt_lengths;      // int32 [B]
  Attachment response_lengths;    // int32 [B]
  Attachment loss_mask;           // uint8 [N], 1 where the token counts
  Attachment behaviour_logprobs;  // float32 [N], from generation
  Attachment reference_logprobs;  // float32 [N], or empty when no reference takes part
  Attachment versions;            // int32 [N], policy version that sampled each token
  Attachment rewards;             // float32 [B]
  Attachment advantages;          // float32 [B]
  Attachment keep;                // uint8 [B], 0: recorded but left out of the update (a group without a signal)
  std::vector<uint64_t> draws;    // [B] which draw of a prompt each sequence answers (see Generate::draw)
  std::vector<uint64_t> samples;  // [B] sample index within its group
  static constexpr std::tuple kFields{Field{"step", &Experience::step},
                                      Field{"tokens", &Experience::tokens},
                                      Field{"prompt_lengths", &Experience::prompt_lengths},
                                      Field{"response_lengths", &Experience::response_lengths},
                                      Field{"loss_mask", &Experience::loss_mask},
                                      Field{"behaviour_logprobs", &Experience::behaviour_logprobs},
                                      Field{"reference_logprobs", &Experience::reference_logprobs},
                                      Field{"versions", &Experience::versions},
                                      Field{"rewards", &Experience::rewards},
                                      Field{"advantages", &Experience::advantages},
                                      Field{"keep", &Experience::keep},
                                      Field{"draws", &Experience::draws},
                                      Field{"samples", &Experience::samples}};
};
TROUPE_FIELDS_COMPLETE(Experience);

}  // namespace troupe
