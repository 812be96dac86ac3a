#include "fiber.hpp"

#include <cxxabi.h>

#include <cstdint>
#include <cstring>
#include <new>
#include <stdexcept>
#include <utility>
#include <vector>

namespace troupe::simulation {
namespace {

constexpr std::size_t kStackBytes = 256 << 10;

thread_local Fiber* running = nullptr;

// Stacks are used again: a simulation of many seeds makes millions of fibers.
std::vector<std::byte*>& spare_stacks() {
  thread_local std::vector<std::byte*> spare;
  return spare;
}

}  // namespace

Fiber::Fiber(std::function<void()> body) : body_(std::move(body)) {
  if (spare_stacks().empty()) {
    stack_ = new std::byte[kStackBytes];
  } else {
    stack_ = spare_stacks().back();
    spare_stacks().pop_back();
  }
}

Fiber::~Fiber() {
  spare_stacks().push_back(stack_);
}

Fiber* Fiber::current() {
  return running;
}

void Fiber::enter(unsigned int high, unsigned int low) {
  auto* self = reinterpret_cast<Fiber*>((static_cast<uintptr_t>(high) << 32) | low);
  try {
    self->body_();
  } catch (const Killed&) {
  }
  self->done_ = true;
  running = nullptr;
  self->swap_exceptions();
  swapcontext(&self->own_, &self->back_);
}

void Fiber::swap_exceptions() {
  auto* globals = reinterpret_cast<Exceptions*>(abi::__cxa_get_globals());
  std::swap(globals->caught, exceptions_.caught);
  std::swap(globals->uncaught, exceptions_.uncaught);
}

void Fiber::resume() {
  if (running || done_) throw std::logic_error("a fiber is resumed from within a fiber, or after its end");
  if (!std::exchange(started_, true)) {
    getcontext(&own_);
    own_.uc_stack.ss_sp = stack_;
    own_.uc_stack.ss_size = kStackBytes;
    own_.uc_link = nullptr;
    const auto address = reinterpret_cast<uintptr_t>(this);
    makecontext(&own_, reinterpret_cast<void (*)()>(&Fiber::enter), 2, static_cast<unsigned int>(address >> 32),
                static_cast<unsigned int>(address));
  }
  running = this;
  swap_exceptions();
  swapcontext(&back_, &own_);
}

void Fiber::kill() {
  dying_ = true;
  if (!started_) {
    done_ = true;
  } else if (!done_) {
    resume();
  }
}

void Fiber::suspend() {
  Fiber* const self = running;
  running = nullptr;
  self->swap_exceptions();
  swapcontext(&self->own_, &self->back_);
  if (self->dying_) throw Killed{};
}

}  // namespace troupe::simulation
