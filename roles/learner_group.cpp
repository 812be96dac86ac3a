#include "roles/learner_group.hpp"

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <numeric>

#include "roles/run_file.hpp"

namespace troupe {
namespace {

constexpr Millis kOneAsk{
    5'000};  // of the rendezvous: the conductor may be dead meanwhile, a later ask finds its next life
constexpr Millis kForming{20'000};  // all learners have just answered, they come at once

// Where the others reach a learner: all of them are on one host.
std::string address_of_group(const RoleSetting& setting) {
  if (setting.topology.transport.control != ControlTransport::kTcp) return "127.0.0.1";
  return setting.node().bind.empty() ? setting.topology.transport.bind : setting.node().bind;
}

int rank_of(const std::string& instance) {
  return std::stoi(instance.substr(instance.rfind('/') + 1));
}

// Rows at which the prompt is another than the row's before: the first answer to each prompt.
std::vector<int64_t> prompt_starts(const PackedBatch& batch) {
  const at::Tensor tokens = batch.tokens.contiguous();
  const auto* data = tokens.const_data_ptr<int64_t>();
  std::vector<int64_t> starts;
  int64_t at = 0, before = 0;
  for (std::size_t i = 0; i < batch.prompt_lengths.size(); ++i) {
    const int64_t prompt = batch.prompt_lengths[i];
    if (i == 0 || prompt != batch.prompt_lengths[i - 1] || !std::equal(data + at, data + at + prompt, data + before))
      starts.push_back(static_cast<int64_t>(i));
    before = at;
    at += prompt + batch.response_lengths[i];
  }
  return starts;
}

}  // namespace

Agreement agreement_of(const std::vector<Standing>& all, bool sharded) {
  Agreement out;
  bool same = true;
  int64_t survivor = -1;
  for (std::size_t rank = 0; rank < all.size(); ++rank) {
    const Standing& own = all[rank];
    same &= own.whole && own.step == all[0].step && own.digest == all[0].digest;
    if (!own.whole) continue;
    if (out.root < 0 || own.step > all[static_cast<std::size_t>(out.root)].step) out.root = static_cast<int>(rank);
    if (own.fresh) continue;
    out.diverged |= survivor >= 0 && own.step != survivor;
    survivor = own.step;
  }
  for (const Standing& own : all)
    out.disagree |= out.root >= 0 && own.whole && own.step == all[static_cast<std::size_t>(out.root)].step &&
                    own.digest != all[static_cast<std::size_t>(out.root)].digest;
  if (out.disagree) out.root = -1;
  out.shared = !same && out.root >= 0;
  if (sharded && !same) out.root = -1;
  return out;
}

std::vector<int64_t> share_bounds(const PackedBatch& batch, int ranks) {
  const int64_t rows = batch.sequences();
  std::vector<int64_t> cuts = prompt_starts(batch);
  if (static_cast<int>(cuts.size()) < ranks) {
    cuts.resize(static_cast<std::size_t>(rows));
    std::iota(cuts.begin(), cuts.end(), 0);
  }
  cuts.push_back(rows);
  std::vector<int64_t> tokens{0};  // before each row
  for (int64_t row = 0; row < rows; ++row)
    tokens.push_back(tokens.back() + batch.prompt_lengths[static_cast<std::size_t>(row)] +
                     batch.response_lengths[static_cast<std::size_t>(row)]);
  std::vector<int64_t> bounds{0};
  for (int rank = 1; rank < ranks; ++rank) {
    const int64_t wanted = tokens.back() * rank / ranks;
    const auto distance = [&](int64_t row) { return std::abs(tokens[static_cast<std::size_t>(row)] - wanted); };
    const int64_t best =
        *std::min_element(cuts.begin(), cuts.end(), [&](int64_t a, int64_t b) { return distance(a) < distance(b); });
    bounds.push_back(std::max(bounds.back(), best));
  }
  bounds.push_back(rows);
  return bounds;
}

LearnerGroup::LearnerGroup(const RoleSetting& setting, Context& context)
    : context_(context),
      rank_(rank_of(setting.instance)),
      size_(static_cast<int>(setting.node().count)),
      address_(address_of_group(setting)),
      deadline_(static_cast<int64_t>(setting.topology.transport.ask_timeout_s * 1000)) {
  for (const std::string& instance : instances_of(setting.node()))
    if (instance != setting.instance) others_.push_back(context.handle<GroupLearnerFace>(instance));
}

// The conductor may be dead meanwhile.
uint64_t LearnerGroup::next_generation() {
  for (Millis waited{0};; waited += kOneAsk) {
    try {
      return context_.handle<RendezvousFace>(std::string(kRendezvousNode))
          .ask(NextGeneration{}, {.deadline = kOneAsk, .what = "next generation"})
          .get()
          .generation;
    } catch (const RemoteFailure& failure) {
      if (!failure.is(failure_code::kDeadline) || waited >= deadline_ || context_.stopping()) throw;
    }
  }
}

LearnerGroup::Call LearnerGroup::call_together() {
  context_.beat("regroup", "waiting for every learner");
  std::vector<uint64_t> incarnations;
  for (Pending<Presence>& presence : ask_others(AskPresence{}, "presence"))
    incarnations.push_back(presence.get().incarnation);
  Call call{.generation = next_generation()};
  const std::string what = "join generation " + std::to_string(call.generation);
  for (std::size_t i = 0; i < others_.size(); ++i)
    call.joining.push_back(
        others_[i].ask(JoinGroup{call.generation, incarnations[i]}, {.deadline = deadline_, .what = what}));
  return call;
}

// Closes the connections: the others' operations fail too.
void LearnerGroup::broken(const std::string& what, const std::string& why) {
  if (group_) std::fprintf(stderr, "%s: group left: %s\n", context_.node().c_str(), why.c_str());
  leave();
  throw RemoteFailure({std::string(kRegroup), context_.node(), what, why});
}

template <class Operation>
void LearnerGroup::collective(const char* what, const Operation& operation) {
  if (!group_) broken(what, "it is in no group");
  try {
    operation();
  } catch (const std::runtime_error& error) {
    broken(what, error.what());
  }
}

void LearnerGroup::join(uint64_t generation) {
  leave();
  const std::string what = "join generation " + std::to_string(generation);
  context_.beat("regroup", what);
  try {
    group_ = std::make_unique<Group>(
        GroupOptions{.generation = generation,
                     .rank = rank_,
                     .size = size_,
                     .timeout = deadline_,  // death closes the connection, a hang ends with the lease
                     .forming = kForming,
                     .address = address_,
                     .while_waiting = [this] { context_.beat(); }},
        remote_rendezvous(context_.mailbox(), std::string(kRendezvousNode), generation, kOneAsk));
  } catch (const std::runtime_error& error) {
    broken(what, error.what());
  }
  context_.mailbox().set_generation(generation);
}

std::vector<Standing> LearnerGroup::compare(const Standing& own) {
  at::Tensor all = at::zeros({size_, 4}, at::kLong);
  auto values = all.accessor<int64_t, 2>();
  values[rank_][0] = own.step;
  values[rank_][1] = own.whole;
  values[rank_][2] = own.fresh;
  values[rank_][3] = own.digest;
  collective("compare standings", [&] { group_->all_reduce_sum(all); });
  std::vector<Standing> out;
  for (int r = 0; r < size_; ++r) out.push_back({values[r][0], values[r][1] != 0, values[r][2] != 0, values[r][3]});
  return out;
}

void LearnerGroup::sum(at::Tensor& tensor) {
  collective("sum", [&] { group_->all_reduce_sum(tensor); });
}

void LearnerGroup::gather(at::Tensor& whole, std::span<const int64_t> bounds) {
  collective("gather", [&] { group_->all_gather(whole, bounds); });
}

std::vector<std::string> LearnerGroup::exchange(const std::string& own) {
  at::Tensor sizes = at::zeros({size_}, at::kLong);
  sizes[rank_] = static_cast<int64_t>(own.size());
  sum(sizes);
  std::vector<int64_t> bounds{0};
  for (int r = 0; r < size_; ++r) bounds.push_back(bounds.back() + sizes[r].item<int64_t>());
  at::Tensor text = at::empty({bounds.back()}, at::kByte);
  const auto part = [&](int r) {
    return static_cast<char*>(text.mutable_data_ptr()) + bounds[static_cast<std::size_t>(r)];
  };
  std::copy(own.begin(), own.end(), part(rank_));
  gather(text, bounds);
  std::vector<std::string> out;
  for (int r = 0; r < size_; ++r) out.emplace_back(part(r), part(r + 1));
  return out;
}

std::unique_ptr<RendezvousServer> serve_rendezvous(const RoleSetting& setting, Context& context) {
  NodeOptions options = context.mailbox().options();
  const auto own = options.peers.find(std::string(kRendezvousNode));
  if (own == options.peers.end()) return nullptr;
  const Peer place = own->second;
  options.node = kRendezvousNode;
  options.endpoint = place.endpoint;
  options.drives = false;
  options.supervisor.clear();
  if (!place.public_key.empty()) {
    options.keys.public_key = place.public_key;
    const auto file = secret_key_file(RunFile{.sockets = setting.socket_folder}, options.node);
    if (!(std::ifstream(file) >> options.keys.secret_key)) throw std::runtime_error("cannot read " + file.string());
  }
  auto table = std::make_shared<RendezvousTable>(options.epoch << LearnerGroup::kCountBits);
  return std::make_unique<RendezvousServer>(options, std::move(table));
}

}  // namespace troupe
