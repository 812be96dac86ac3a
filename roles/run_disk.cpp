#include "roles/run_disk.hpp"

#include <cerrno>
#include <cstdio>
#include <thread>

#include "actors/fault_hooks.hpp"

namespace troupe {
namespace {

thread_local std::function<bool(const std::string&)> wait_for_room;

class DurableFile final : public File {
 public:
  DurableFile(std::unique_ptr<File> file, bool journal) : file_(std::move(file)), journal_(journal) {}

  std::size_t read_at(uint64_t offset, std::span<std::byte> out) const override { return file_->read_at(offset, out); }
  // In two halves, so that a fault between them leaves what a power cut leaves: a torn tail.
  void append(std::span<const std::byte> bytes) override {
    patiently([&] {
      const uint64_t before = file_->size();
      try {
        file_->append(bytes.first(bytes.size() / 2));
        journal_ ? fault_point("journal.write") : fault_point("checkpoint.write");
        file_->append(bytes.subspan(bytes.size() / 2));
      } catch (const DiskError&) {
        file_->truncate(before);  // throws in its turn: then nobody knows what is there, and it is no matter of room
        throw;
      }
    });
  }
  void truncate(uint64_t size) override { file_->truncate(size); }
  void reserve(uint64_t bytes) override {
    patiently([&] { file_->reserve(bytes); });
  }
  void sync() override {
    journal_ ? fault_point("journal.sync") : fault_point("checkpoint.sync");
    file_->sync();
    if (journal_) fault_point("journal.synced");
  }
  uint64_t size() const override { return file_->size(); }

 private:
  const std::unique_ptr<File> file_;
  const bool journal_;
};

class DurableDisk final : public Disk {
 public:
  explicit DurableDisk(bool journal) : journal_(journal) {}

  std::unique_ptr<File> open(const std::filesystem::path& path, OpenMode mode) override {
    std::unique_ptr<File> file;
    patiently([&] { file = real_disk().open(path, mode); });
    if (mode == OpenMode::kRead) return file;
    return std::make_unique<DurableFile>(std::move(file), journal_);
  }
  void rename(const std::filesystem::path& from, const std::filesystem::path& to) override {
    before_rename();
    patiently([&] { real_disk().rename(from, to); });
    after_rename();
  }
  bool exchange(const std::filesystem::path& a, const std::filesystem::path& b) override {
    before_rename();
    const bool done = real_disk().exchange(a, b);
    if (done) after_rename();
    return done;
  }
  void remove_all(const std::filesystem::path& path) override { real_disk().remove_all(path); }
  bool exists(const std::filesystem::path& path) override { return real_disk().exists(path); }
  std::vector<std::string> list(const std::filesystem::path& folder) override { return real_disk().list(folder); }
  void create_dirs(const std::filesystem::path& folder) override {
    patiently([&] { real_disk().create_dirs(folder); });
  }
  void sync_dir(const std::filesystem::path& folder) override { real_disk().sync_dir(folder); }

 private:
  void before_rename() const {
    if (!journal_) fault_point("checkpoint.rename");
  }
  void after_rename() const {
    if (!journal_) fault_point("checkpoint.renamed");
  }
  const bool journal_;
};

}  // namespace

void while_disk_is_full(std::function<bool(const std::string&)> wait) {
  wait_for_room = std::move(wait);
}

void wait_for_room_beating(Context& context) {
  while_disk_is_full([&context, told = false](const std::string& what) mutable {
    if (!std::exchange(told, true)) std::fprintf(stderr, "%s: disk full: %s\n", context.node().c_str(), what.c_str());
    context.beat("disk_full", "no space left, waits for room: " + what);
    std::this_thread::sleep_for(Millis(500));
    return !context.stopping();
  });
}

void patiently(const std::function<void()>& write) {
  for (;;) {
    try {
      return write();
    } catch (const DiskError& error) {
      const bool full = error.error_number() == ENOSPC || error.error_number() == EDQUOT;
      if (!full || !wait_for_room || !wait_for_room(error.what())) throw;
    }
  }
}

Disk& journal_disk() {
  static DurableDisk disk(true);
  return disk;
}

Disk& checkpoint_disk() {
  static DurableDisk disk(false);
  return disk;
}

}  // namespace troupe
