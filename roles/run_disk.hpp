// The real disk as the durable parts of a run use it: the same calls, with fault points between them. Without faults
// asked for (actors/fault_hooks.hpp) nothing but the calls. Shared by all threads.
#pragma once

#include "core/io/disk.hpp"

namespace troupe {

Disk& journal_disk();     // passes journal.write, journal.sync, journal.synced
Disk& checkpoint_disk();  // passes checkpoint.write, checkpoint.sync, checkpoint.rename, checkpoint.renamed

}  // namespace troupe
