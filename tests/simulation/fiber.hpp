// Simulated processes' threads: stacks that are switched between by hand, on one real thread. Code that waits (a role
// in Mailbox::wait_any, a sync of the disk) suspends its fiber; the world's event loop resumes it at a virtual time.
#pragma once

#include <ucontext.h>

#include <cstddef>
#include <functional>
#include <memory>

namespace troupe::simulation {

// Thrown out of suspend() in a fiber that is to die: unwinds it, as nothing in a process is caught at its SIGKILL.
// Not a std::exception, so that no handler of the program takes it for an error.
struct Killed {};

class Fiber {
 public:
  // `body` runs at the first resume(). It may throw Killed and nothing else.
  explicit Fiber(std::function<void()> body);
  ~Fiber();  // only when done(), or never resumed
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  void resume();  // from outside, until the fiber suspends or ends
  void kill();    // resumes it once more, with Killed thrown where it waits
  bool done() const { return done_; }
  bool dying() const { return dying_; }

  // The fiber that runs now; null outside of all.
  static Fiber* current();
  // Of the current fiber: back to whoever resumed it. Throws Killed when it is to die.
  static void suspend();

 private:
  static void enter(unsigned int high, unsigned int low);
  // What the C++ runtime keeps of a thread's exceptions in flight: every fiber has its own.
  struct Exceptions {
    void* caught = nullptr;
    unsigned int uncaught = 0;
  };
  void swap_exceptions();

  std::function<void()> body_;
  std::byte* stack_;
  ucontext_t own_{}, back_{};
  Exceptions exceptions_;
  bool started_ = false, done_ = false, dying_ = false;
};

}  // namespace troupe::simulation
