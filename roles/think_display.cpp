#include "roles/think_display.hpp"

#include <algorithm>

namespace troupe {
namespace {

constexpr std::string_view kOpen = "<think>", kClose = "</think>";
constexpr std::string_view kDim = "\033[2m", kNormal = "\033[22m";

// How much of the text's end may be the beginning of `tag`.
size_t partial_tag(std::string_view text, std::string_view tag) {
  for (size_t n = std::min(text.size(), tag.size() - 1); n > 0; --n)
    if (text.ends_with(tag.substr(0, n))) return n;
  return 0;
}

}  // namespace

ThinkDisplay::ThinkDisplay(bool dim, bool thinking) : dim_(dim), thinking_(thinking) {}

std::string ThinkDisplay::push(std::string_view piece) {
  if (!dim_) return std::string(piece);
  std::string out;
  if (!begun_ && thinking_) out += kDim;
  begun_ = true;
  held_ += piece;
  while (true) {
    const std::string_view tag = thinking_ ? kClose : kOpen;
    const size_t at = held_.find(tag);
    if (at == held_.npos) break;
    const std::string before = held_.substr(0, at);
    held_.erase(0, at + tag.size());
    out += thinking_ ? before + std::string(tag) + std::string(kNormal) : before + std::string(kDim) + std::string(tag);
    thinking_ = !thinking_;
  }
  const size_t certain = held_.size() - partial_tag(held_, thinking_ ? kClose : kOpen);
  out += held_.substr(0, certain);
  held_.erase(0, certain);
  return out;
}

std::string ThinkDisplay::end() {
  std::string out = std::move(held_);
  held_.clear();
  if (dim_ && thinking_ && begun_) out += kNormal;
  return out;
}

}  // namespace troupe
