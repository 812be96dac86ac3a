// A disk in memory that loses what was not synced when the power is cut. A process that is killed loses nothing it has
// written, but may be killed in the middle of a write. Every operation takes virtual time, so a fault can hit it.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <string>

#include "core/io/disk.hpp"

namespace troupe::simulation {

using Random = std::mt19937_64;

class SimulatedDisk final : public Disk {
 public:
  // `spend(sync)` lets virtual time pass in the calling process, and may throw Killed.
  SimulatedDisk(Random& random, std::function<void(bool sync)> spend) : random_(random), spend_(std::move(spend)) {}

  // Synced bytes stay, of the others a random part; of the names made, moved and removed since their folder was synced
  // a random first part is done.
  void cut_power();

  // A sync that does nothing from now on: the fault that the simulation must be able to see.
  void forget_syncs() { syncs_work_ = false; }

  std::unique_ptr<File> open(const std::filesystem::path& path, OpenMode mode) override;
  void rename(const std::filesystem::path& from, const std::filesystem::path& to) override;
  bool exchange(const std::filesystem::path& a, const std::filesystem::path& b) override;
  void remove_all(const std::filesystem::path& path) override;
  bool exists(const std::filesystem::path& path) override;
  std::vector<std::string> list(const std::filesystem::path& folder) override;
  void create_dirs(const std::filesystem::path& folder) override;
  void sync_dir(const std::filesystem::path& folder) override;

 private:
  friend class SimulatedFile;
  struct Inode {
    bool folder = false;
    std::string bytes, synced;
  };
  using Names = std::map<std::string, std::shared_ptr<Inode>>;  // by whole path
  struct Change {  // of names: `from` goes away (with all below it), `to` comes (null inode: nothing comes)
    std::string from, to;
    std::shared_ptr<Inode> inode;
  };
  void change(Change change);
  static bool touch(const Change& a, const Change& b);
  static void apply(Names& names, const Change& change);

  Random& random_;
  std::function<void(bool)> spend_;
  bool syncs_work_ = true;
  Names now_, durable_;
  std::deque<Change> unsynced_;
};

}  // namespace troupe::simulation
