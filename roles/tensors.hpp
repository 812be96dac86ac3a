// Attachments as tensors and back, without copying bytes.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/from_blob.h>

#include <stdexcept>

#include "protocol/types.hpp"

namespace troupe {

inline at::ScalarType scalar_type(DType dtype) {
  switch (dtype) {
    case DType::kU8:
      return at::kByte;
    case DType::kI32:
      return at::kInt;
    case DType::kI64:
      return at::kLong;
    case DType::kF32:
      return at::kFloat;
    case DType::kBF16:
      return at::kBFloat16;
  }
  throw std::invalid_argument("an attachment of unknown dtype");
}

// A view of the attachment's bytes that keeps them alive. The bytes are immutable: never write through the tensor.
inline at::Tensor as_tensor(const Attachment& a) {
  return at::from_blob(
      const_cast<std::byte*>(a.bytes.data()), a.shape, [owner = a.owner](void*) {}, at::dtype(scalar_type(a.dtype)));
}

// The tensor's bytes as an attachment that keeps the tensor alive. The tensor must not be written to afterwards.
inline Attachment as_attachment(const at::Tensor& tensor, DType dtype) {
  auto held = std::make_shared<at::Tensor>(tensor.to(at::kCPU, scalar_type(dtype)).contiguous());
  return {dtype,
          held->sizes().vec(),
          held,
          {static_cast<const std::byte*>(held->const_data_ptr()), static_cast<std::size_t>(held->nbytes())}};
}

}  // namespace troupe
