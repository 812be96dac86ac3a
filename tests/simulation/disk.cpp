#include "disk.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <vector>

namespace troupe::simulation {
namespace {

std::string plain(const std::filesystem::path& path) {
  std::string text = path.lexically_normal().string();
  while (text.size() > 1 && text.back() == '/') text.pop_back();
  return text;
}

std::string parent(const std::string& path) {
  return plain(std::filesystem::path(path).parent_path());
}

bool lies_in(const std::string& path, const std::string& folder) {
  return path == folder || (path.starts_with(folder) && path[folder.size()] == '/');
}

}  // namespace

class SimulatedFile final : public File {
 public:
  SimulatedFile(SimulatedDisk& disk, std::shared_ptr<SimulatedDisk::Inode> inode)
      : disk_(disk), inode_(std::move(inode)) {}

  std::size_t read_at(uint64_t offset, std::span<std::byte> out) const override {
    const std::string& bytes = inode_->bytes;
    if (offset >= bytes.size()) return 0;
    const std::size_t count = std::min<std::size_t>(out.size(), bytes.size() - offset);
    std::memcpy(out.data(), bytes.data() + offset, count);
    return count;
  }
  void append(std::span<const std::byte> bytes) override {
    const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    const std::size_t first = text.empty() ? 0 : disk_.random_() % text.size();
    inode_->bytes += text.substr(0, first);
    disk_.spend_(false);
    inode_->bytes += text.substr(first);
  }
  void truncate(uint64_t size) override {
    disk_.spend_(false);
    inode_->bytes.resize(size);
  }
  void reserve(uint64_t) override {}
  void sync() override {
    disk_.spend_(true);
    if (disk_.syncs_work_) inode_->synced = inode_->bytes;
  }
  uint64_t size() const override { return inode_->bytes.size(); }

 private:
  SimulatedDisk& disk_;
  std::shared_ptr<SimulatedDisk::Inode> inode_;
};

// Whether they change the same name, or one a folder above the other's.
bool SimulatedDisk::touch(const Change& a, const Change& b) {
  for (const std::string* x : {&a.from, &a.to})
    for (const std::string* y : {&b.from, &b.to})
      if (!x->empty() && !y->empty() && (lies_in(*x, *y) || lies_in(*y, *x))) return true;
  return false;
}

void SimulatedDisk::apply(Names& names, const Change& change) {
  if (!change.from.empty()) {
    Names moved;
    for (auto it = names.lower_bound(change.from); it != names.end() && it->first.starts_with(change.from);) {
      if (!lies_in(it->first, change.from)) {
        ++it;
        continue;
      }
      if (!change.to.empty()) moved.emplace(change.to + it->first.substr(change.from.size()), it->second);
      it = names.erase(it);
    }
    for (auto& [path, inode] : moved) names[path] = inode;
  } else {
    names[change.to] = change.inode;
  }
}

void SimulatedDisk::change(Change change) {
  apply(now_, change);
  unsynced_.push_back(std::move(change));
}

void SimulatedDisk::cut_power() {
  const std::size_t done = unsynced_.empty() ? 0 : random_() % (unsynced_.size() + 1);
  for (std::size_t i = 0; i < done; ++i) apply(durable_, unsynced_[i]);
  unsynced_.clear();
  for (auto& [path, inode] : durable_) {
    const std::string &bytes = inode->bytes, &synced = inode->synced;
    std::string left = synced;
    if (bytes.starts_with(synced)) {
      const std::size_t more = bytes.size() - synced.size();
      left += bytes.substr(synced.size(), more == 0 ? 0 : random_() % (more + 1));
      if (left.size() > synced.size() && random_() % 4 == 0) left.back() = static_cast<char>(left.back() ^ 0x40);
    } else if (random_() % 2 == 0) {
      left = bytes;
    }
    inode->bytes = inode->synced = left;
  }
  now_ = durable_;
}

std::unique_ptr<File> SimulatedDisk::open(const std::filesystem::path& path, OpenMode mode) {
  spend_(false);
  const std::string name = plain(path);
  auto found = now_.find(name);
  if (mode != OpenMode::kCreate && (found == now_.end() || found->second->folder))
    throw DiskError("open", path, ENOENT);
  if (mode == OpenMode::kCreate) {
    const auto folder = now_.find(parent(name));
    if (folder == now_.end() || !folder->second->folder) throw DiskError("open", path, ENOENT);
    if (found == now_.end()) {
      change({"", name, std::make_shared<Inode>()});
      found = now_.find(name);
    } else {
      found->second->bytes.clear();
    }
  }
  return std::make_unique<SimulatedFile>(*this, found->second);
}

void SimulatedDisk::rename(const std::filesystem::path& from, const std::filesystem::path& to) {
  spend_(false);
  if (!now_.contains(plain(from))) throw DiskError("rename", from, ENOENT);
  if (now_.contains(plain(to))) change({plain(to), "", nullptr});
  change({plain(from), plain(to), nullptr});
}

bool SimulatedDisk::exchange(const std::filesystem::path&, const std::filesystem::path&) {
  return false;
}

void SimulatedDisk::remove_all(const std::filesystem::path& path) {
  spend_(false);
  if (now_.contains(plain(path))) change({plain(path), "", nullptr});
}

bool SimulatedDisk::exists(const std::filesystem::path& path) {
  return now_.contains(plain(path));
}

std::vector<std::string> SimulatedDisk::list(const std::filesystem::path& folder) {
  const std::string above = plain(folder);
  if (!now_.contains(above)) throw DiskError("list", folder, ENOENT);
  std::vector<std::string> names;
  for (const auto& [path, inode] : now_)
    if (path != above && parent(path) == above) names.push_back(std::filesystem::path(path).filename().string());
  return names;
}

void SimulatedDisk::create_dirs(const std::filesystem::path& folder) {
  spend_(false);
  std::filesystem::path so_far;
  for (const auto& part : std::filesystem::path(plain(folder))) {
    so_far /= part;
    if (now_.contains(plain(so_far))) continue;
    auto inode = std::make_shared<Inode>();
    inode->folder = true;
    change({"", plain(so_far), inode});
  }
}

void SimulatedDisk::sync_dir(const std::filesystem::path& folder) {
  spend_(true);
  if (!syncs_work_) return;
  const std::string name = plain(folder);
  // A change of this folder is durable only with the earlier changes of the same names.
  std::vector<bool> needed(unsynced_.size());
  for (std::size_t i = unsynced_.size(); i-- > 0;) {
    const Change& change = unsynced_[i];
    needed[i] = (!change.from.empty() && parent(change.from) == name) ||
                (!change.to.empty() && (parent(change.to) == name || lies_in(name, change.to)));
    for (std::size_t later = i + 1; later < unsynced_.size() && !needed[i]; ++later)
      needed[i] = needed[later] && touch(change, unsynced_[later]);
  }
  std::deque<Change> left;
  for (std::size_t i = 0; i < needed.size(); ++i)
    needed[i] ? apply(durable_, unsynced_[i]) : left.push_back(std::move(unsynced_[i]));
  unsynced_ = std::move(left);
}

}  // namespace troupe::simulation
