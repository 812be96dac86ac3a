// The engine's own CPU kernels, as one table of functions per instruction set and element type (float32 or bfloat16).
// Every kernel is single-threaded; packed_decoder.cpp splits the work between threads by output, never by reduction.
//
// Batch invariance: an output element is computed in one order that depends on nothing but the sizes of the model: a
// GEMM element adds up k in ascending order whatever the number of rows, an attention row adds up its keys in ascending
// order whatever the other rows. Results differ between tables (the AMX unit adds in another order than AVX-512).
//
// No tensor library here: plain pointers, sizes in elements unless named otherwise. "Element" is float or bfloat16
// bits.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace troupe::kernels {

inline constexpr int64_t kPanelCols = 32;    // output columns that are packed and computed together
inline constexpr int64_t kPageTokens = 16;   // tokens in one page of the key-value cache
inline constexpr int64_t kLogitBlock = 512;  // logits whose maximum and sum are kept together
inline constexpr int64_t kRowPad = 16;       // rows of activations are readable up to a multiple of it

enum class Epilogue : uint8_t {
  kStore,   // float out[row][col] = value
  kAdd,     // float out[row][col] += value
  kSwiGlu,  // element out[row][16 * panel + i] = silu(gate_i) * up_i; a panel holds 16 gates, then their 16 ups
};

// out[rows, n] = x[rows, k] w^T, w packed as [n / 32][k / step][32][step], step 2 for bfloat16 and 1 for float32.
struct GemmCall {
  const void* x = nullptr;  // elements [rows][x_stride]
  int64_t x_stride = 0;
  int64_t rows = 0;
  const void* w = nullptr;
  int64_t k = 0;                // a multiple of 32
  const float* bias = nullptr;  // [n], or none
  Epilogue epilogue = Epilogue::kStore;
  void* out = nullptr;
  int64_t out_stride = 0;
};

// One row of the fused projection, [q heads | k heads | v heads] with head_dim_padded floats each: biased already;
// normalised (when q_norm is given), rotated, q stored as elements, k and v put into the token's page.
struct PlaceCall {
  const float* qkv = nullptr;
  int64_t num_heads = 0, num_kv_heads = 0, head_dim = 0, head_dim_padded = 0;
  const float *q_norm = nullptr, *k_norm = nullptr;  // [head_dim_padded], or none
  float norm_eps = 0;
  const float *cos = nullptr, *sin = nullptr;  // [head_dim / 2], of the token's position
  void* q_out = nullptr;                       // elements [num_heads * head_dim_padded]
  void* page = nullptr;                        // of this layer: [num_kv_heads][2: keys, values][16 * head_dim_padded]
  int64_t slot = 0;                            // token within the page
};

// Attention of consecutive tokens of one sequence, for the query heads of one key-value head.
// Keys of a page: [head_dim_padded / step][16][step]; values: [16][head_dim_padded].
struct AttendCall {
  const void* q = nullptr;  // first head of the first token; elements [tokens][token_stride]
  void* out = nullptr;      // like q
  int64_t token_stride = 0;
  int64_t num_tokens = 0, num_heads = 0, head_dim_padded = 0;
  int64_t first_position = 0;      // token i sees the keys 0 .. first_position + i
  const int32_t* pages = nullptr;  // the sequence's pages in order
  const void* cache = nullptr;     // keys of this head in page 0 of this layer
  int64_t page_stride = 0;         // elements between pages
  float scale = 1;
  float* scratch = nullptr;  // 4 * (keys rounded up to 16) floats
};

struct BlockStats {
  float max = 0;  // of the block's logits
  float sum = 0;  // of exp((logit - max) * inverse_temperature)
};

struct KernelTable {
  const char* name = "";
  bool bf16 = false;
  void (*gemm)(const GemmCall& call, int64_t first_panel, int64_t last_panel) = nullptr;
  // out = x / rms(x) * weight as elements; n a multiple of 16, zero past true_n in x and weight
  void (*rms_norm)(const float* x, const float* weight, int64_t n, int64_t true_n, float eps, void* out) = nullptr;
  void (*place_qkv)(const PlaceCall& call) = nullptr;
  void (*attend)(const AttendCall& call) = nullptr;
  // Row `token` of a packed matrix (tied embeddings) as floats.
  void (*unpack_row)(const void* w, int64_t k, int64_t token, float* out) = nullptr;
  BlockStats (*logit_stats)(const float* logits, int64_t n, float inverse_temperature) = nullptr;  // n % 16 == 0
  // out = exp((logit - max) * inverse_temperature), same bits as logit_stats adds up
  void (*exponentials)(const float* logits, int64_t n, float max, float inverse_temperature, float* out) = nullptr;
};

// The table for `choice` ("auto" or one of the names). Throws std::invalid_argument for an unknown name or one that
// this machine lacks. "auto" takes the fastest: amx (bfloat16 only), avx512bf16 (bfloat16 only), avx512, avx2,
// portable.
const KernelTable& choose(const std::string& choice, bool bf16);

// Names that choose() accepts on this machine for that element type, fastest first.
std::vector<std::string> available(bool bf16);

}  // namespace troupe::kernels
