#include "core/models/parameter_arena.hpp"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/grad_mode.h>

#include <cstring>
#include <stdexcept>
#include <utility>

#include "core/models/workspace.hpp"

namespace troupe {
namespace {

constexpr int64_t kAlignment = 32;  // elements: 64 bytes of bfloat16, 128 of float32

std::string shape_text(at::IntArrayRef shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + "]";
}

}  // namespace

ParameterArena::ParameterArena(std::vector<ParameterBlock> blocks, at::ScalarType compute, bool trainable,
                               at::Device device)
    : blocks_(std::move(blocks)) {
  if (compute != at::kFloat && compute != at::kBFloat16)
    throw std::invalid_argument(std::string("compute dtype ") + c10::toString(compute) +
                                ": expected Float or BFloat16");
  int64_t total = 0;
  for (const ParameterBlock& block : blocks_) {
    const int64_t begin = total;
    for (const ParameterBlock::Part& part : block.parts) {
      const int64_t elements = part.rows * (block.columns > 0 ? block.columns : 1);
      entries_.push_back({part.name, total, part.rows, block.columns});
      total += elements;
      parameters_ += elements;
    }
    spans_.push_back({begin, total, block.decay});
    total = (total + kAlignment - 1) / kAlignment * kAlignment;
  }
  const auto buffer = [&](at::ScalarType type) {
    const at::Tensor memory = at::empty({total}, at::TensorOptions(type).device(device));
    prefer_large_pages(memory);
    return memory.zero_();
  };
  if (trainable) {
    master_ = buffer(at::kFloat);
    grad_ = buffer(at::kFloat);
    compute_ = compute == at::kFloat ? master_ : buffer(compute);
  } else {
    compute_ = buffer(compute);
  }
}

at::Tensor ParameterArena::view(const at::Tensor& buffer, int64_t offset, int64_t rows, int64_t columns) const {
  if (columns == 0) return buffer.narrow(0, offset, rows);
  return buffer.narrow(0, offset, rows * columns).view({rows, columns});
}

ParameterView ParameterArena::weight(std::string_view first_part) const {
  for (size_t i = 0; i < blocks_.size(); ++i) {
    const ParameterBlock& block = blocks_[i];
    if (block.parts.front().name != first_part) continue;
    const int64_t elements = spans_[i].end - spans_[i].begin;
    const int64_t rows = block.columns > 0 ? elements / block.columns : elements;
    ParameterView weight{view(compute_, spans_[i].begin, rows, block.columns), {}};
    if (grad_.defined()) weight.grad = view(grad_, spans_[i].begin, rows, block.columns);
    return weight;
  }
  throw std::invalid_argument("no parameter block begins with '" + std::string(first_part) + "'");
}

bool ParameterArena::contains(std::string_view name) const {
  for (const Entry& entry : entries_)
    if (entry.name == name) return true;
  return false;
}

StateDict ParameterArena::views(const at::Tensor& buffer) const {
  StateDict views;
  for (const Entry& entry : entries_) views.emplace(entry.name, view(buffer, entry.offset, entry.rows, entry.columns));
  return views;
}

void ParameterArena::load(const StateDict& state) {
  at::NoGradGuard no_grad;
  const at::Tensor& target = master_.defined() ? master_ : compute_;
  for (const Entry& entry : entries_) {
    const auto found = state.find(entry.name);
    if (found == state.end()) throw std::invalid_argument("parameter '" + entry.name + "' is missing");
    at::Tensor destination = view(target, entry.offset, entry.rows, entry.columns);
    if (found->second.sizes() != destination.sizes())
      throw std::invalid_argument("parameter '" + entry.name + "' has shape " + shape_text(found->second.sizes()) +
                                  ", expected " + shape_text(destination.sizes()));
    destination.copy_(found->second);
  }
  refresh_compute();
}

void ParameterArena::zero_grad() {
  if (grad_.defined()) grad_.zero_();
}

void ParameterArena::discard_grad() {
  if (grad_.defined()) discard(grad_);
}

void ParameterArena::refresh_compute() {
  if (!master_.defined()) return;
  renew_compute();
  refresh_compute(0, master_.numel());
}

void ParameterArena::place_compute(MemorySource source) {
  if (compute_.is_same(master_) || !compute_.is_cpu()) return;
  compute_memory_ = std::move(source);
  const at::DataPtr old = move_compute();
  std::memcpy(compute_.mutable_data_ptr(), old.get(), compute_.nbytes());
}

// All views share the storage, so they move with it. Gives back where it was.
at::DataPtr ParameterArena::move_compute() {
  at::DataPtr memory = compute_memory_(compute_.nbytes());
  frozen_ = false;
  return compute_.storage().unsafeGetStorageImpl()->set_data_ptr(std::move(memory));
}

void ParameterArena::renew_compute() {
  if (frozen_) move_compute();
}

void ParameterArena::refresh_compute(int64_t begin, int64_t end) {
  at::NoGradGuard no_grad;
  if (!compute_.is_same(master_)) compute_.slice(0, begin, end).copy_(master_.slice(0, begin, end));
}

}  // namespace troupe
