#include "roles/run_disk.hpp"

#include "actors/fault_hooks.hpp"

namespace troupe {
namespace {

class FaultyFile final : public File {
 public:
  FaultyFile(std::unique_ptr<File> file, bool journal) : file_(std::move(file)), journal_(journal) {}

  std::size_t read_at(uint64_t offset, std::span<std::byte> out) const override { return file_->read_at(offset, out); }
  // In two halves, so that a fault between them leaves what a power cut leaves: a torn tail.
  void append(std::span<const std::byte> bytes) override {
    const auto pass = [this] { journal_ ? fault_point("journal.write") : fault_point("checkpoint.write"); };
    if (!detail::faults_asked) return file_->append(bytes);
    file_->append(bytes.first(bytes.size() / 2));
    pass();
    file_->append(bytes.subspan(bytes.size() / 2));
  }
  void truncate(uint64_t size) override { file_->truncate(size); }
  void reserve(uint64_t bytes) override { file_->reserve(bytes); }
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

class FaultyDisk final : public Disk {
 public:
  explicit FaultyDisk(bool journal) : journal_(journal) {}

  std::unique_ptr<File> open(const std::filesystem::path& path, OpenMode mode) override {
    auto file = real_disk().open(path, mode);
    if (mode == OpenMode::kRead) return file;
    return std::make_unique<FaultyFile>(std::move(file), journal_);
  }
  void rename(const std::filesystem::path& from, const std::filesystem::path& to) override {
    before_rename();
    real_disk().rename(from, to);
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
  void create_dirs(const std::filesystem::path& folder) override { real_disk().create_dirs(folder); }
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

Disk& journal_disk() {
  static FaultyDisk disk(true);
  return disk;
}

Disk& checkpoint_disk() {
  static FaultyDisk disk(false);
  return disk;
}

}  // namespace troupe
