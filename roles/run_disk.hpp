// The real disk as the durable parts of a run use it. Two things come on top of the calls themselves: fault points
// between them (actors/fault_hooks.hpp), and patience: where the disk is full, a write waits, whole, until there is
// room again, in place of ending the process that would only be restarted into the same full disk. Shared by all
// threads; each thread waits in its own way.
#pragma once

#include <functional>
#include <string>

#include "actors/handle.hpp"
#include "core/io/disk.hpp"

namespace troupe {

Disk& journal_disk();     // passes journal.write, journal.sync, journal.synced
Disk& checkpoint_disk();  // passes checkpoint.write, checkpoint.sync, checkpoint.rename, checkpoint.renamed

// What the calling thread does while the disk is full: called again and again with what is wrong; it takes its time and
// returns true to have the write tried again, false to have it fail. Without it a write fails at once.
void while_disk_is_full(std::function<bool(const std::string& what)> wait);

// The way of a role's thread: says so in its phase "disk_full", and gives up when it is told to stop.
void wait_for_room_beating(Context& context);

// `write` until it fails no more for want of room (ENOSPC, EDQUOT). It must be repeatable.
void patiently(const std::function<void()>& write);

}  // namespace troupe
