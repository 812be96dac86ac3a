#include "actors/delivery.hpp"

#include <algorithm>

#include "actors/mailbox.hpp"

namespace troupe {
namespace {

std::size_t bytes_of(const KeptAnswer& answer) {
  std::size_t bytes = answer.message.body.bytes.size();
  for (const Frame& frame : answer.message.attachments) bytes += frame.bytes.size();
  return bytes;
}

}  // namespace

// ---- Outbox -------------------------------------------------------------------------------------------------------

OpenRequest& Outbox::add(OpenRequest request, Instant now) {
  if (request.id == 0) request.id = next_id_++;
  request.asked = request.next_send = now;
  request.gap = first_;
  const auto key = std::pair(request.peer, request.id);
  const auto [place, fresh] = open_.try_emplace(key, std::move(request));
  if (!fresh)
    throw std::invalid_argument("request " + std::to_string(key.second) + " to " + key.first + " is open already");
  return place->second;
}

OpenRequest* Outbox::find(const std::string& peer, uint64_t id) {
  const auto found = open_.find({peer, id});
  return found == open_.end() ? nullptr : &found->second;
}

void Outbox::acknowledged(OpenRequest& request, Instant now) {
  request.acknowledged = true;
  request.gap = cap_;
  request.next_send = now + cap_;
}

std::optional<OpenRequest> Outbox::close(const std::string& peer, uint64_t id) {
  auto node = open_.extract({peer, id});
  if (node.empty()) return std::nullopt;
  return std::move(node.mapped());
}

void Outbox::withdraw(const AnswerSlot* slot) {
  std::erase_if(open_, [&](const auto& entry) { return entry.second.slot.get() == slot; });
}

std::vector<OpenRequest> Outbox::take_all() {
  std::vector<OpenRequest> all;
  for (auto& [key, request] : std::exchange(open_, {})) all.push_back(std::move(request));
  return all;
}

std::vector<OpenRequest*> Outbox::take_due(Instant now) {
  std::vector<OpenRequest*> due;
  for (auto& [key, request] : open_) {
    if (request.next_send > now) continue;
    request.next_send = now + request.gap;
    request.gap = std::min(request.gap * 2, cap_);
    ++request.times_sent;
    due.push_back(&request);
  }
  return due;
}

std::vector<OpenRequest> Outbox::take_expired(Instant now) {
  std::vector<OpenRequest> expired;
  for (auto at = open_.begin(); at != open_.end();) {
    const auto next = std::next(at);
    if (at->second.deadline <= now) expired.push_back(std::move(open_.extract(at).mapped()));
    at = next;
  }
  return expired;
}

Instant Outbox::next_event() const {
  Instant next = Instant::max();
  for (const auto& [key, request] : open_) next = std::min({next, request.next_send, request.deadline});
  return next;
}

uint64_t Outbox::done_below(const std::string& peer) const {
  const auto lowest = open_.lower_bound({peer, kFirstOwnId});
  return lowest != open_.end() && lowest->first.first == peer ? lowest->first.second : next_id_;
}

// ---- Inbox --------------------------------------------------------------------------------------------------------

Inbox::Admission Inbox::admit(const std::string& src, uint64_t id, Route route) {
  if (const auto done = done_.find(src); id >= kFirstOwnId && done != done_.end() && id < done->second)
    return Admission::kDone;
  const auto [place, fresh] = entries_.try_emplace({src, id});
  place->second.route = std::move(route);
  if (fresh) return Admission::kNew;
  return place->second.answer ? Admission::kAnswered : Admission::kInFlight;
}

std::optional<Inbox::Route> Inbox::answered(const std::string& src, uint64_t id, KeptAnswer answer) {
  const auto found = entries_.find({src, id});
  if (found == entries_.end() || found->second.answer) return std::nullopt;
  kept_bytes_ += bytes_of(answer);
  ++kept_count_;
  kept_order_.push_back(found->first);
  found->second.answer = std::move(answer);
  const Route route = found->second.route;
  while (kept_count_ > kMaxKept || (kept_bytes_ > kMaxKeptBytes && kept_count_ > 1) ||
         kept_order_.size() > 2 * kMaxKept)
    drop_oldest();
  return route;
}

const KeptAnswer* Inbox::kept(const std::string& src, uint64_t id) const {
  const auto found = entries_.find({src, id});
  return found == entries_.end() || !found->second.answer ? nullptr : &*found->second.answer;
}

void Inbox::done_below(const std::string& src, uint64_t below) {
  uint64_t& done = done_[src];
  if (below <= done) return;
  done = below;
  for (auto at = entries_.lower_bound({src, kFirstOwnId}); at != entries_.end() && at->first < Key(src, below);) {
    if (!at->second.answer) {
      ++at;
      continue;
    }
    kept_bytes_ -= bytes_of(*at->second.answer);
    --kept_count_;
    at = entries_.erase(at);
  }
  while (!kept_order_.empty() && !kept(kept_order_.front().first, kept_order_.front().second)) kept_order_.pop_front();
}

void Inbox::drop_oldest() {
  const Key oldest = std::move(kept_order_.front());
  kept_order_.pop_front();
  const auto found = entries_.find(oldest);
  if (found == entries_.end() || !found->second.answer) return;
  kept_bytes_ -= bytes_of(*found->second.answer);
  --kept_count_;
  entries_.erase(found);
}

}  // namespace troupe
