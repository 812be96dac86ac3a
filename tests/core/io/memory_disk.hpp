// A disk in memory that fails on command and forgets on a crash what was not synced: appended bytes of a file without
// sync(), names made or moved without sync_dir(). Single-threaded.
#pragma once

#include <cerrno>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "core/io/disk.hpp"

namespace troupe {

class MemoryDisk final : public Disk {
 public:
  // The n-th call that writes (counted from 1 since the last call of this) fails with `error`; 0: none.
  void fail_at(int call, int error) {
    calls_ = 0;
    fail_call_ = call;
    fail_error_ = error;
  }
  int calls() const { return calls_; }
  void set_capacity(uint64_t bytes) { capacity_ = bytes; }

  // Power failure: names as of the last sync_dir, files as of their last sync plus a random part of what was appended
  // since, the end of it possibly garbage. A file that was truncated and not synced keeps its new length.
  void crash(std::mt19937_64& random) {
    names_ = durable_names_;
    for (auto& [path, node] : names_) {
      if (!node) continue;
      std::string& bytes = node->bytes;
      const std::size_t durable = std::min(node->durable, bytes.size());
      if (bytes.size() > durable) bytes.resize(durable + random() % (bytes.size() - durable + 1));
      if (bytes.size() > durable && random() % 2 == 0)
        for (std::size_t i = durable + random() % (bytes.size() - durable); i < bytes.size(); ++i)
          bytes[i] = random() % 3 == 0 ? static_cast<char>(random()) : '\0';
      node->durable = bytes.size();
    }
    fail_call_ = 0;
  }

  std::string& bytes(const std::filesystem::path& path) { return node_at(path)->bytes; }

  std::unique_ptr<File> open(const std::filesystem::path& path, OpenMode mode) override;

  void rename(const std::filesystem::path& from, const std::filesystem::path& to) override {
    step("rename", from);
    if (!names_.contains(from.string())) throw DiskError("rename", from, ENOENT);
    erase_tree(to.string());
    move_tree(from.string(), to.string());
  }
  bool exchange(const std::filesystem::path& a, const std::filesystem::path& b) override {
    step("exchange", a);
    const std::string aside = a.string() + ".exchange";
    move_tree(a.string(), aside);
    move_tree(b.string(), a.string());
    move_tree(aside, b.string());
    return true;
  }
  void remove_all(const std::filesystem::path& path) override {
    step("remove", path);
    erase_tree(path.string());
  }
  bool exists(const std::filesystem::path& path) override { return names_.contains(path.string()); }
  std::vector<std::string> list(const std::filesystem::path& folder) override {
    if (!exists(folder)) throw DiskError("list", folder, ENOENT);
    std::vector<std::string> out;
    for (const auto& [path, node] : names_)
      if (std::filesystem::path(path).parent_path() == folder) out.push_back(std::filesystem::path(path).filename());
    return out;
  }
  void create_dirs(const std::filesystem::path& folder) override {
    step("create", folder);
    std::filesystem::path at;
    for (const auto& part : folder) {
      at /= part;
      names_.emplace(at.string(), nullptr);
      durable_names_.emplace(at.string(), nullptr);  // folders are not what is tested here
    }
  }
  // Moving a folder is one operation in its parent, so the parent's sync makes the whole subtree's place durable.
  void sync_dir(const std::filesystem::path& folder) override {
    step("sync", folder);
    if (!exists(folder)) throw DiskError("sync", folder, ENOENT);
    const std::string prefix = folder.string() + "/";
    std::erase_if(durable_names_, [&](const auto& entry) { return entry.first.rfind(prefix, 0) == 0; });
    for (const auto& [path, node] : names_)
      if (path.rfind(prefix, 0) == 0) durable_names_[path] = node;
  }

 private:
  friend class MemoryFile;
  struct Node {
    std::string bytes;
    std::size_t durable = 0;
  };
  using Names = std::map<std::string, std::shared_ptr<Node>>;  // null: a folder

  void step(const char* operation, const std::filesystem::path& path) {
    if (++calls_ == fail_call_) throw DiskError(operation, path, fail_error_);
  }
  std::shared_ptr<Node> node_at(const std::filesystem::path& path) {
    const auto it = names_.find(path.string());
    if (it == names_.end()) throw DiskError("open", path, ENOENT);
    if (!it->second) throw DiskError("open", path, EISDIR);
    return it->second;
  }
  uint64_t used() const {
    uint64_t sum = 0;
    for (const auto& [path, node] : names_) sum += node ? node->bytes.size() : 0;
    return sum;
  }
  void erase_tree(const std::string& path) {
    std::erase_if(names_, [&](const auto& e) { return e.first == path || e.first.rfind(path + "/", 0) == 0; });
  }
  void move_tree(const std::string& from, const std::string& to) {
    Names moved;
    for (const auto& [path, node] : names_)
      if (path == from || path.rfind(from + "/", 0) == 0) moved[to + path.substr(from.size())] = node;
    erase_tree(from);
    names_.merge(moved);
  }

  Names names_, durable_names_;
  uint64_t capacity_ = UINT64_MAX;
  int calls_ = 0, fail_call_ = 0, fail_error_ = 0;
};

class MemoryFile final : public File {
 public:
  MemoryFile(MemoryDisk& disk, std::filesystem::path path, std::shared_ptr<MemoryDisk::Node> node)
      : disk_(disk), path_(std::move(path)), node_(std::move(node)) {}
  std::size_t read_at(uint64_t offset, std::span<std::byte> out) const override {
    if (offset >= node_->bytes.size()) return 0;
    return node_->bytes.copy(reinterpret_cast<char*>(out.data()), out.size(), offset);
  }
  void append(std::span<const std::byte> bytes) override {
    disk_.step("write", path_);
    const uint64_t room = disk_.capacity_ - std::min(disk_.capacity_, disk_.used());
    const std::size_t fits = std::min<uint64_t>(room, bytes.size());
    node_->bytes.append(reinterpret_cast<const char*>(bytes.data()), fits);
    if (fits < bytes.size()) throw DiskError("write", path_, ENOSPC);
  }
  void truncate(uint64_t size) override {
    disk_.step("truncate", path_);
    node_->bytes.resize(size);
  }
  void reserve(uint64_t bytes) override {
    disk_.step("reserve space for", path_);
    if (disk_.capacity_ - std::min(disk_.capacity_, disk_.used()) < bytes)
      throw DiskError("reserve space for", path_, ENOSPC);
  }
  void sync() override {
    disk_.step("sync", path_);
    node_->durable = node_->bytes.size();
  }
  uint64_t size() const override { return node_->bytes.size(); }

 private:
  MemoryDisk& disk_;
  const std::filesystem::path path_;
  const std::shared_ptr<MemoryDisk::Node> node_;
};

inline std::unique_ptr<File> MemoryDisk::open(const std::filesystem::path& path, OpenMode mode) {
  if (mode == OpenMode::kCreate) {
    step("open", path);
    if (!exists(path.parent_path())) throw DiskError("open", path, ENOENT);
    auto& node = names_[path.string()];
    node = std::make_shared<Node>();
  }
  return std::make_unique<MemoryFile>(*this, path, node_at(path));
}

}  // namespace troupe
