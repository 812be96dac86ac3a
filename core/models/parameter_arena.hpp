// All parameters of one kind (all trainable ones, or all frozen ones) in contiguous buffers.
//
// master  float32 [P]      the weights an optimizer steps; only when trainable
// compute f32|bf16 [P]     what the forward pass reads; is `master` itself when computing in float32
// grad    float32 [P]      sums of all backward passes since zero_grad(); only when trainable
//
// A block is one matrix of the network. It may hold several Hugging Face parameters as rows one after another
// (q_proj, k_proj, v_proj make one [q; k; v]), so a parameter by its name is always a plain view of its block. Blocks
// start at multiples of 64 bytes; the gaps stay zero in every buffer, so passes over whole buffers need no table.
// The compute copy may lie in memory that is handed out as it is: place_compute(), freeze_compute().
// Not thread-safe; views share the arena's storage and stay valid after it is gone.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "core/models/state_dict.hpp"

namespace troupe {

// Gives memory of so many bytes, zeroed, at a multiple of 64. Throws when there is none.
using MemorySource = std::function<at::DataPtr(std::size_t bytes)>;

// One matrix or vector of the network as computation sees it.
struct ParameterView {
  at::Tensor value;  // compute dtype, [out, in] or [n]; undefined: the network has no such weight
  at::Tensor grad;   // float32, same shape; undefined: frozen
};

struct ParameterBlock {
  struct Part {
    std::string name;  // Hugging Face name
    int64_t rows;
  };
  std::vector<Part> parts;
  int64_t columns = 0;  // 0: a vector (bias, norm); the parts are [rows], else [rows, columns]
  bool decay = true;    // whether weight decay applies by default (not on norms and biases)
};

class ParameterArena {
 public:
  struct Span {
    int64_t begin, end;  // elements of the buffers
    bool decay;
  };

  // All zero. Throws std::invalid_argument when `compute` is neither float32 nor bfloat16.
  ParameterArena(std::vector<ParameterBlock> blocks, at::ScalarType compute, bool trainable, at::Device device);

  const at::Tensor& master() const { return master_; }
  const at::Tensor& compute() const { return compute_; }
  const at::Tensor& grad() const { return grad_; }
  const std::vector<Span>& spans() const { return spans_; }
  int64_t parameters() const { return parameters_; }  // without gaps

  // The block whose first part has this name.
  ParameterView weight(std::string_view first_part) const;
  bool contains(std::string_view name) const;

  // Views by Hugging Face name of one of the buffers above.
  StateDict views(const at::Tensor& buffer) const;

  // Copies the named tensors in (converted); names that are not here are left to the caller. Throws
  // std::invalid_argument naming the parameter that is missing in `state` or has another shape.
  void load(const StateDict& state);
  void zero_grad();
  void discard_grad();                               // zero_grad(), its memory given back until it is touched again
  void refresh_compute();                            // compute <- master; the optimizer does it itself, in its own pass
  void refresh_compute(int64_t begin, int64_t end);  // of these elements

  // Lays the compute copy into memory of `source`, now and whenever it moves. Nothing happens where there is no copy,
  // and on other devices than the CPU.
  void place_compute(MemorySource source);
  // The memory that the compute copy lies in is not written any more: it is read by others too. The next values go to
  // new memory of the source, and all views see them there.
  void freeze_compute() { frozen_ = static_cast<bool>(compute_memory_); }
  // Before all of the compute copy is written: moves it, without what it holds, if it is frozen.
  void renew_compute();

 private:
  struct Entry {
    std::string name;
    int64_t offset, rows, columns;
  };
  at::Tensor view(const at::Tensor& buffer, int64_t offset, int64_t rows, int64_t columns) const;
  at::DataPtr move_compute();

  std::vector<ParameterBlock> blocks_;
  std::vector<Span> spans_;     // parallel to blocks_
  std::vector<Entry> entries_;  // one per part
  int64_t parameters_ = 0;
  at::Tensor master_, compute_, grad_;
  MemorySource compute_memory_;
  bool frozen_ = false;
};

}  // namespace troupe
