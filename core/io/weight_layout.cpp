#include "core/io/weight_layout.hpp"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <bit>
#include <charconv>
#include <cstring>
#include <limits>
#include <numeric>

#include "core/io/crc32c.hpp"
#include "core/io/sha256.hpp"

namespace troupe {
namespace {

constexpr uint64_t kAlignment = 64;
constexpr std::size_t kBlockBytes = 12 << 10;  // converted, checksummed and copied while it is in the cache

at::ScalarType type_of(std::string_view dtype) {
  if (dtype == "f32") return at::kFloat;
  if (dtype == "bf16") return at::kBFloat16;
  throw std::invalid_argument("weights in \"" + std::string(dtype) + "\" are not published; known: f32, bf16");
}

// Round to nearest, ties to even, as at::Tensor::to does; a NaN becomes the quiet one (0x7fc0).
inline uint16_t rounded(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  const uint32_t nearest_even = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
  return static_cast<uint16_t>((bits & 0x7fffffff) > 0x7f800000 ? 0x7fc0 : nearest_even);
}

// In strides that the compiler turns into whole vectors; reading bounds this, so what comes next is fetched in time.
inline void round_to_bf16(const float* in, uint16_t* out, std::size_t n) {
  constexpr std::size_t kStride = 32, kLine = 64 / sizeof(float), kAhead = 512;
  std::size_t i = 0;
  for (; i + kStride <= n; i += kStride) {
    for (std::size_t line = 0; line < kStride; line += kLine) __builtin_prefetch(in + i + kAhead + line);
    for (std::size_t j = i; j < i + kStride; ++j) out[j] = rounded(in[j]);
  }
  for (; i < n; ++i) out[i] = rounded(in[i]);
}

#if defined(__x86_64__)
__attribute__((target("avx2"), flatten)) void round_to_bf16_avx2(const float* in, uint16_t* out, std::size_t n) {
  round_to_bf16(in, out, n);
}
__attribute__((target("avx512f,avx512bw,avx512vl"), flatten)) void round_to_bf16_avx512(const float* in, uint16_t* out,
                                                                                        std::size_t n) {
  round_to_bf16(in, out, n);
}
#endif

using RoundFn = void (*)(const float*, uint16_t*, std::size_t);
RoundFn fastest_round() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl")) return round_to_bf16_avx512;
  if (__builtin_cpu_supports("avx2")) return round_to_bf16_avx2;
#endif
  return round_to_bf16;
}
const RoundFn kRound = fastest_round();

// Where bytes of the packed run come from.
struct Source {
  uint64_t begin, end;  // bytes of the run
  at::Tensor tensor;    // contiguous; of the run's type, or float32 where the run is bfloat16
};

// Bytes [begin, end) of the run, gaps zero. `first` is the first source that ends behind `begin`.
void fill(const std::vector<Source>& sources, std::size_t first, bool round, uint64_t begin, std::span<std::byte> out) {
  uint64_t at = begin;
  const uint64_t end = begin + out.size();
  const auto to = [&](uint64_t position) { return out.data() + (position - begin); };
  for (std::size_t i = first; at < end; ++i) {
    const uint64_t start = i < sources.size() ? std::min(end, sources[i].begin) : end;
    if (start > at) std::memset(to(at), 0, start - at);
    at = std::max(at, start);
    if (at == end) return;
    const Source& source = sources[i];
    const uint64_t stop = std::min(end, source.end);
    const auto* from = static_cast<const std::byte*>(source.tensor.const_data_ptr());
    if (round && source.tensor.scalar_type() == at::kFloat)
      kRound(reinterpret_cast<const float*>(from) + (at - source.begin) / 2, reinterpret_cast<uint16_t*>(to(at)),
             (stop - at) / 2);
    else
      std::memcpy(to(at), from + (at - source.begin), stop - at);
    at = stop;
  }
}

// Bytes [begin, begin + n) of the run, n <= kBlockBytes: where they lie already, or put together in `scratch`.
std::span<const std::byte> block_of(const std::vector<Source>& sources, bool round, uint64_t begin, std::size_t n,
                                    std::span<std::byte> scratch) {
  const auto at = std::partition_point(sources.begin(), sources.end(), [&](const Source& s) { return s.end <= begin; });
  if (at != sources.end() && at->begin <= begin && begin + n <= at->end &&
      !(round && at->tensor.scalar_type() == at::kFloat))
    return {static_cast<const std::byte*>(at->tensor.const_data_ptr()) + (begin - at->begin), n};
  fill(sources, static_cast<std::size_t>(at - sources.begin()), round, begin, scratch.first(n));
  return scratch.first(n);
}

uint64_t num_chunks(const WeightManifest& m) {
  return m.total_bytes / m.chunk_bytes + (m.total_bytes % m.chunk_bytes != 0);
}

std::span<const std::byte> chunk_of(const WeightManifest& m, std::span<const std::byte> bytes, std::size_t index) {
  const uint64_t begin = index * m.chunk_bytes;
  return bytes.subspan(begin, std::min<uint64_t>(m.chunk_bytes, m.total_bytes - begin));
}

// Bytes of a tensor; throws where the product overflows.
uint64_t tensor_bytes(const WeightManifest& m, std::size_t i) {
  uint64_t bytes = c10::elementSize(type_of(m.dtype));
  for (const int64_t n : m.shapes[i])
    if (n < 0 || __builtin_mul_overflow(bytes, static_cast<uint64_t>(n), &bytes))
      throw std::runtime_error("weight manifest: the shape of \"" + m.names[i] + "\" makes no sense");
  return bytes;
}

std::vector<Source> sources_of(const StateDict& tensors, const WeightManifest& m) {
  const at::ScalarType type = type_of(m.dtype);
  if (tensors.size() != m.names.size())
    throw std::invalid_argument("pack: " + std::to_string(tensors.size()) + " tensors for a manifest of " +
                                std::to_string(m.names.size()));
  std::vector<Source> sources;
  for (std::size_t i = 0; i < m.names.size(); ++i) {
    const auto it = tensors.find(m.names[i]);
    if (it == tensors.end() || it->second.sizes() != m.shapes[i])
      throw std::invalid_argument("pack: tensor \"" + m.names[i] +
                                  "\" is missing or of another shape than the manifest's");
    at::Tensor tensor = it->second.detach().cpu().contiguous();
    const bool rounded_here = type == at::kBFloat16 && tensor.scalar_type() == at::kFloat;
    if (tensor.scalar_type() != type && !rounded_here) tensor = tensor.to(type);
    const uint64_t bytes = tensor_bytes(m, i);
    if (bytes > 0) sources.push_back({m.offsets[i], m.offsets[i] + bytes, std::move(tensor)});
  }
  std::ranges::sort(sources, {}, &Source::begin);
  return sources;
}

void check_layout(const WeightManifest& m) {
  const auto wrong = [](const std::string& reason) { throw std::runtime_error("weight manifest: " + reason); };
  if (m.dtype != "f32" && m.dtype != "bf16") wrong("dtype \"" + m.dtype + "\"; expected f32 or bf16");
  if (m.names.size() != m.shapes.size() || m.names.size() != m.offsets.size())
    wrong("names, shapes and offsets differ in length");
  if (m.chunk_bytes == 0 || m.chunk_bytes % kAlignment != 0) wrong("chunk_bytes is " + std::to_string(m.chunk_bytes));
  for (std::size_t i = 1; i < m.names.size(); ++i)
    if (m.names[i] <= m.names[i - 1]) wrong("names are not sorted at \"" + m.names[i] + "\"");
  std::vector<std::size_t> order(m.names.size());  // by where they lie
  std::iota(order.begin(), order.end(), 0);
  std::ranges::sort(order, {}, [&](std::size_t i) { return std::pair(m.offsets[i], tensor_bytes(m, i)); });
  uint64_t at = 0;
  for (const std::size_t i : order) {
    const uint64_t bytes = tensor_bytes(m, i);
    if (m.offsets[i] % kAlignment != 0 || m.offsets[i] < at || m.offsets[i] > m.total_bytes ||
        bytes > m.total_bytes - m.offsets[i])
      wrong("\"" + m.names[i] + "\" at " + std::to_string(m.offsets[i]) + " overlaps, is misaligned or lies outside");
    at = m.offsets[i] + bytes;
  }
}

}  // namespace

WeightManifest layout_of(const StateDict& tensors, std::string_view dtype, uint64_t version) {
  const uint64_t item = c10::elementSize(type_of(dtype));
  WeightManifest m;
  m.version = version;
  m.dtype = dtype;
  for (const auto& [name, tensor] : tensors) {
    if (!tensor.is_floating_point())
      throw std::invalid_argument("layout_of: \"" + name + "\" is " + c10::toString(tensor.scalar_type()) +
                                  ", not floating-point");
    m.names.push_back(name);
    m.shapes.push_back(tensor.sizes().vec());
    m.offsets.push_back(m.total_bytes);
    const uint64_t bytes = static_cast<uint64_t>(tensor.numel()) * item;
    m.total_bytes = (m.total_bytes + bytes + kAlignment - 1) / kAlignment * kAlignment;
  }
  return m;
}

std::optional<WeightManifest> layout_within(const StateDict& tensors, std::string_view dtype, uint64_t version,
                                            std::span<const std::byte> bytes) {
  WeightManifest m = layout_of(tensors, dtype, version);
  m.total_bytes = bytes.size();
  std::size_t i = 0;
  for (const auto& [name, tensor] : tensors) {
    const auto start = reinterpret_cast<std::uintptr_t>(tensor.const_data_ptr());
    const auto first = reinterpret_cast<std::uintptr_t>(bytes.data());
    const uint64_t offset = start - first;
    if (!tensor.is_cpu() || !tensor.is_contiguous() || tensor.scalar_type() != type_of(dtype) || start < first ||
        offset > bytes.size() || tensor.nbytes() > bytes.size() - offset || offset % kAlignment != 0)
      return std::nullopt;
    m.offsets[i++] = offset;
  }
  return m;
}

void sign(WeightManifest& m, std::span<const std::byte> bytes) {
  check_layout(m);
  if (bytes.size() != m.total_bytes)
    throw std::invalid_argument("sign: " + std::to_string(bytes.size()) + " bytes for a manifest of " +
                                std::to_string(m.total_bytes));
  m.chunk_crc32c.assign(num_chunks(m), 0);
  at::parallel_for(0, static_cast<int64_t>(m.chunk_crc32c.size()), 1, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      const auto index = static_cast<std::size_t>(i);
      m.chunk_crc32c[index] = crc32c(chunk_of(m, bytes, index));
    }
  });
  m.digest = manifest_digest(m);
}

void pack(const StateDict& tensors, WeightManifest& m, std::span<std::byte> out) {
  check_layout(m);
  if (out.size() != m.total_bytes)
    throw std::invalid_argument("pack: " + std::to_string(out.size()) + " bytes for a manifest of " +
                                std::to_string(m.total_bytes));
  const std::vector<Source> sources = sources_of(tensors, m);
  const bool round = m.dtype == "bf16";
  m.chunk_crc32c.assign(num_chunks(m), 0);
  at::parallel_for(0, static_cast<int64_t>(m.chunk_crc32c.size()), 1, [&](int64_t first, int64_t last) {
    std::vector<std::byte> scratch(kBlockBytes);
    for (int64_t c = first; c < last; ++c) {
      const uint64_t begin = static_cast<uint64_t>(c) * m.chunk_bytes;
      const uint64_t end = std::min(begin + m.chunk_bytes, m.total_bytes);
      uint32_t crc = 0;
      for (uint64_t at = begin; at < end; at += kBlockBytes) {
        const auto block = block_of(sources, round, at, std::min<uint64_t>(kBlockBytes, end - at), scratch);
        crc = crc32c_copy(block, out.data() + at, crc);
      }
      m.chunk_crc32c[static_cast<std::size_t>(c)] = crc;
    }
  });
  m.digest = manifest_digest(m);
}

void check_manifest(const WeightManifest& m) {
  check_layout(m);
  if (m.chunk_crc32c.size() != num_chunks(m))
    throw std::runtime_error("weight manifest: " + std::to_string(m.chunk_crc32c.size()) + " checksums for " +
                             std::to_string(num_chunks(m)) + " chunks");
  if (m.digest != manifest_digest(m)) throw std::runtime_error("weight manifest: it does not match its digest");
}

bool verify_chunk(const WeightManifest& m, std::size_t index, std::span<const std::byte> chunk) {
  if (m.chunk_bytes == 0 || index >= m.chunk_crc32c.size() || index >= num_chunks(m)) return false;
  const uint64_t begin = index * m.chunk_bytes;
  return chunk.size() == std::min<uint64_t>(m.chunk_bytes, m.total_bytes - begin) &&
         crc32c(chunk) == m.chunk_crc32c[index];
}

void verify(const WeightManifest& m, std::span<const std::byte> bytes) {
  check_manifest(m);
  if (bytes.size() != m.total_bytes)
    throw std::runtime_error("weights of version " + std::to_string(m.version) + ": " + std::to_string(bytes.size()) +
                             " bytes, the manifest says " + std::to_string(m.total_bytes));
  at::parallel_for(0, static_cast<int64_t>(m.chunk_crc32c.size()), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const auto index = static_cast<std::size_t>(i);
      if (!verify_chunk(m, index, chunk_of(m, bytes, index)))
        throw std::runtime_error("weights of version " + std::to_string(m.version) + ": chunk " + std::to_string(i) +
                                 " does not match its checksum");
    }
  });
}

StateDict unpack(const WeightManifest& m, std::span<const std::byte> bytes, std::shared_ptr<const void> owner) {
  check_manifest(m);
  if (bytes.size() != m.total_bytes)
    throw std::invalid_argument("unpack: " + std::to_string(bytes.size()) + " bytes for a manifest of " +
                                std::to_string(m.total_bytes));
  if (reinterpret_cast<std::uintptr_t>(bytes.data()) % kAlignment != 0)
    throw std::invalid_argument("unpack: the bytes do not begin at a multiple of 64");
  StateDict tensors;
  for (std::size_t i = 0; i < m.names.size(); ++i)
    tensors[m.names[i]] = at::from_blob(
        const_cast<std::byte*>(bytes.data() + m.offsets[i]), m.shapes[i], [owner](void*) {},
        at::dtype(type_of(m.dtype)));
  return tensors;
}

std::string manifest_digest(const WeightManifest& m) {
  Sha256 hash;
  // Every variable part is preceded by its length, so that no two manifests hash the same bytes.
  const auto number = [&](uint64_t n) { hash.update(std::as_bytes(std::span(&n, 1))); };
  const auto text = [&](const std::string& s) {
    number(s.size());
    hash.update(s);
  };
  text(m.dtype);
  number(m.names.size());
  for (const std::string& name : m.names) text(name);
  for (const auto& shape : m.shapes) {
    number(shape.size());
    for (const int64_t n : shape) number(static_cast<uint64_t>(n));
  }
  for (const uint64_t offset : m.offsets) number(offset);
  number(m.total_bytes);
  number(m.chunk_bytes);
  number(m.chunk_crc32c.size());
  for (const uint32_t crc : m.chunk_crc32c) number(crc);
  return hash.finish_hex();
}

double digest_metric(const WeightManifest& m) {
  uint64_t bits = 0;
  const char* end = m.digest.data() + std::min<std::size_t>(m.digest.size(), 13);
  const bool read = std::from_chars(m.digest.data(), end, bits, 16).ptr == end && end != m.digest.data();
  return read ? static_cast<double>(bits) : std::numeric_limits<double>::quiet_NaN();
}

}  // namespace troupe
