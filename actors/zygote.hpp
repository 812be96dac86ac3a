// Processes that begin as a copy of one that is loaded already, in place of being loaded anew: they are there at once,
// and the pages that loading made their own (LibTorch's relocations: 59 MiB) are shared by all of them.
//
// The zygote is a child of one thread that does nothing but fork. What it starts is no child of its own but of the
// process that has the Zygote (orphaned on purpose and adopted, PR_SET_CHILD_SUBREAPER), so that all that Process
// promises holds, and the zygote's death harms nothing that runs: from then on spawn() has nothing to give, and the
// caller starts processes by exec.
#pragma once

#include <functional>
#include <optional>

#include "actors/process.hpp"

namespace troupe {

class Zygote {
 public:
  // What a process runs, given its arguments; what it returns is the exit code.
  using Main = std::function<int(int argc, char** argv)>;

  // Forks; call it while the process has no other thread. Its later children copy what is in memory now, and have
  // nothing that is opened later. Throws std::runtime_error. It dies with the calling thread.
  explicit Zygote(Main main);
  ~Zygote();  // ends it; what it has started lives on
  Zygote(const Zygote&) = delete;
  Zygote& operator=(const Zygote&) = delete;

  // As Process::spawn, except that argv[0] is a name and the program is Main. `ps` shows the other arguments
  // behind this program's name, as one text.
  // What a library reads from the environment when it is loaded, it has read before. Nothing when the zygote does not
  // answer any more. Throws std::runtime_error when the process can't be set up (its log).
  std::optional<Process> spawn(const ProcessOptions& options);

  pid_t pid() const { return process_ ? process_->pid() : -1; }

  struct Begun;

 private:
  std::optional<Begun> order(const ProcessOptions& options);
  std::optional<Process> process_;  // none: it has gone
  Descriptor orders_;
};

}  // namespace troupe
