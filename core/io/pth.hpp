// PyTorch's checkpoint files (.pth, .pt, .bin): a zip archive with one pickle and one raw file per storage. Reading
// executes nothing: the pickle is parsed for tensors in dictionaries (ordered or not), lists, tuples, numbers, strings
// and None; any other object is an error that names it. Offsets, counts, sizes and strides are checked before
// anything is allocated, checksums before a tensor is handed out. Errors are std::runtime_error naming the file and the
// key. Not read: compressed archives, files of torch before 1.6, TorchScript modules, big-endian data, storages of
// complex or 8-bit floating-point numbers.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <optional>

#include "core/io/disk.hpp"
#include "core/models/state_dict.hpp"

namespace troupe {

// All tensors by name, contiguous and in memory of their own; those of nested dictionaries and lists as "outer/inner"
// ("model/lm_head.weight", "optimizer/state/0/exp_avg"). Values that are no tensors are left out.
// dtype: floating-point tensors are converted.
StateDict read_pth(const std::filesystem::path& file, std::optional<at::ScalarType> dtype = std::nullopt);

// A flat dictionary of tensors, written aside, synced and renamed; opens with torch.load(file, weights_only=True).
// Contiguous tensors of one and the same memory (tied weights) are written once and share it again. dtype:
// floating-point tensors are converted. The same tensors give the same bytes.
void save_pth(Disk& disk, const std::filesystem::path& file, const StateDict& tensors,
              std::optional<at::ScalarType> dtype = std::nullopt);

}  // namespace troupe
