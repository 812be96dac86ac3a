// A published version of weights as one run of bytes (protocol's WeightManifest): tensors, each start at a multiple of
// 64, gaps zero, cut into chunks with a CRC-32C each. Free functions, safe from any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>

#include "core/models/state_dict.hpp"
#include "protocol/types.hpp"

namespace troupe {

// Names, shapes, offsets, total_bytes for these tensors in `dtype` ("f32" or "bf16"); checksums, digest and location
// stay empty. Throws std::invalid_argument for another dtype or a tensor that is not floating-point.
WeightManifest layout_of(const StateDict& tensors, std::string_view dtype, uint64_t version);

// The same for tensors that lie in `bytes` already, which then are the run as it is; nullopt when one does not, or not
// as the layout wants it: contiguous, of the run's type, at a multiple of 64.
std::optional<WeightManifest> layout_within(const StateDict& tensors, std::string_view dtype, uint64_t version,
                                            std::span<const std::byte> bytes);

// Copies the tensors into `out` (manifest.total_bytes), converting float32 to bfloat16 (round to nearest even) where
// the manifest says so, and fills chunk_crc32c and digest in the same pass. Runs on at::get_num_threads() threads.
// Throws std::invalid_argument when tensors and manifest do not belong together.
void pack(const StateDict& tensors, WeightManifest& manifest, std::span<std::byte> out);

// Fills chunk_crc32c and digest from the run. Runs on at::get_num_threads() threads.
void sign(WeightManifest& manifest, std::span<const std::byte> bytes);

// Throws std::runtime_error when the manifest contradicts itself: counts, shapes, alignment, overlap, overflow, digest.
void check_manifest(const WeightManifest& manifest);

// Whether `chunk` is the manifest's chunk `index`, bit for bit (length and CRC-32C). False for an index out of range.
bool verify_chunk(const WeightManifest& manifest, std::size_t index, std::span<const std::byte> chunk);

// All chunks; throws std::runtime_error naming the first that differs. Runs on at::get_num_threads() threads.
void verify(const WeightManifest& manifest, std::span<const std::byte> bytes);

// Views of `bytes` (manifest.total_bytes, start aligned to 64), never to be written to; they share `owner`. Checks the
// manifest, not the chunks.
StateDict unpack(const WeightManifest& manifest, std::span<const std::byte> bytes, std::shared_ptr<const void> owner);

// Hex SHA-256 over the layout and the checksums: the same bits have the same name, whatever version they are.
std::string manifest_digest(const WeightManifest& manifest);

// The first 52 bits of the manifest's digest: as many as a metric's number keeps. NaN for a digest that is no hex.
double digest_metric(const WeightManifest& manifest);

}  // namespace troupe
