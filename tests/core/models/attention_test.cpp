#include "core/models/attention.hpp"

#include <torch/csrc/autograd/autograd.h>

#include "fixtures.hpp"

namespace troupe {
namespace {

struct Case {
  at::ScalarType type;
  int64_t heads, kv_heads, head_dim;
  bool norms;
  std::vector<int64_t> lengths;
  std::vector<int32_t> continues = {};
};

class BlockAttention : public testing::TestWithParam<Case> {};

// The plain tensor operations in float32 are the reference.
TEST_P(BlockAttention, EqualsThePlainOperations) {
  const Case& c = GetParam();
  const AttentionShape shape{c.heads, c.kv_heads, c.head_dim, 1e-6};
  DecoderConfig config;
  config.head_dim = c.head_dim;
  int64_t tokens = 0;
  for (int64_t length : c.lengths) tokens += length;
  const PackedTokens packed = pack_tokens(at::zeros({tokens}, at::kLong), c.lengths, c.continues);
  const RopeTable rope = rope_table(config, packed);
  const AttentionInput input{shape, rope, packed.cu_seqlens, packed.continues};
  at::manual_seed(1);
  at::Tensor qkv = at::randn({tokens, (c.heads + 2 * c.kv_heads) * c.head_dim}).to(c.type);
  at::Tensor dout = at::randn({tokens, c.heads * c.head_dim}).to(c.type);
  HeadNorms norms;
  if (c.norms)
    for (ParameterView* norm : {&norms.query, &norms.key})
      *norm = {(1 + 0.2 * at::randn({c.head_dim})).to(c.type), at::zeros({c.head_dim})};
  if (!has_block_attention(shape, qkv)) GTEST_SKIP() << "this machine has no block kernels for " << c.type;

  at::Tensor out = at::empty({tokens, c.heads * c.head_dim}, c.type), log_sum = at::empty({c.heads, tokens}),
             dqkv = at::full_like(qkv, NAN);
  attention_forward(input, norms, qkv, out, log_sum);
  attention_backward(input, norms, qkv, out, log_sum, dout, dqkv);

  const auto leaf = [](const at::Tensor& x) { return x.to(at::kFloat).detach().clone().requires_grad_(); };
  std::vector<at::Tensor> leaves = {leaf(qkv)};
  if (c.norms) leaves.insert(leaves.end(), {leaf(norms.query.value), leaf(norms.key.value)});
  const at::Tensor expected =
      plain_attention(input, c.norms ? leaves[1] : at::Tensor(), c.norms ? leaves[2] : at::Tensor(), leaves[0]);
  const auto gradients = torch::autograd::grad({expected}, leaves, {dout.to(at::kFloat)});
  const double bound = c.type == at::kFloat ? 1e-5 : 0.02;
  EXPECT_LT(relative_error(out, expected), bound);
  EXPECT_LT(relative_error(dqkv, gradients[0]), bound);
  if (!c.norms) return;
  EXPECT_LT(relative_error(norms.query.grad, gradients[1]), bound);
  EXPECT_LT(relative_error(norms.key.grad, gradients[2]), bound);
}

INSTANTIATE_TEST_SUITE_P(
    Attention, BlockAttention,
    testing::Values(
        Case{at::kFloat, 4, 2, 32, false, {1, 31, 32, 33, 95, 96, 97, 128, 200}},
        Case{at::kFloat, 3, 1, 8, true, {17, 150}},
        Case{at::kFloat, 4, 2, 32, true, {45, 7, 33, 1, 64, 9, 130, 40, 32}, {-1, 0, 0, 0, -1, 4, 4, -1, -1}},
        Case{at::kBFloat16, 4, 2, 32, true, {45, 7, 33, 1, 64, 9, 130, 40, 32}, {-1, 0, 0, 0, -1, 4, 4, -1, -1}},
        Case{at::kFloat, 2, 2, 128, false, {70}},
        Case{at::kBFloat16, 4, 2, 32, false, {1, 31, 32, 33, 95, 96, 97, 128, 200}},
        Case{at::kBFloat16, 3, 1, 64, true, {17, 150}}, Case{at::kBFloat16, 2, 2, 128, false, {70}},
        Case{at::kBFloat16, 4, 2, 80, true, {45, 7, 33, 1, 64, 9, 130, 40, 32}, {-1, 0, 0, 0, -1, 4, 4, -1, -1}},
        Case{at::kBFloat16, 2, 1, 16, false, {1, 31, 97, 200}}));

}  // namespace
}  // namespace troupe
