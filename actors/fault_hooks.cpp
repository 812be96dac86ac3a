#include "actors/fault_hooks.hpp"

#include <charconv>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <thread>

namespace troupe {
namespace {

constexpr int kExitCode = 70;

struct Asked {
  std::mutex mutex;
  std::vector<Fault> faults;
  std::map<std::string, uint64_t> passages;  // by node and phase
};

Asked& asked() {
  static Asked instance;
  return instance;
}

struct Identity {
  std::string node;
  uint64_t incarnation = 0;
};
thread_local Identity identity;

std::vector<std::string_view> split(std::string_view text, char at) {
  std::vector<std::string_view> parts;
  for (;;) {
    const std::size_t end = text.find(at);
    parts.push_back(text.substr(0, end));
    if (end == text.npos) return parts;
    text.remove_prefix(end + 1);
  }
}

std::optional<uint64_t> number(std::string_view text) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

// From 1, or "*" for 0.
std::optional<uint64_t> count(std::string_view text) {
  if (text == "*") return 0;
  const auto value = number(text);
  return value == 0 ? std::nullopt : value;
}

bool read_action(std::string_view text, Fault& fault) {
  static const std::map<std::string_view, FaultAction> plain{
      {"kill", FaultAction::kKill}, {"stop", FaultAction::kStop}, {"spin", FaultAction::kSpin},
      {"exit", FaultAction::kExit}, {"flip", FaultAction::kFlip}, {"throw", FaultAction::kThrow}};
  if (const auto found = plain.find(text); found != plain.end()) {
    fault.action = found->second;
    return true;
  }
  if (!text.starts_with("delay=") && !text.starts_with("delay~")) return false;
  fault.action = text[5] == '=' ? FaultAction::kDelay : FaultAction::kRandomDelay;
  text.remove_prefix(6);
  if (const std::size_t at = text.find('@'); at != text.npos && fault.action == FaultAction::kRandomDelay) {
    const auto seed = number(text.substr(at + 1));
    if (!seed) return false;
    fault.seed = *seed;
    text = text.substr(0, at);
  }
  const auto ms = number(text);
  if (!ms || *ms > 3'600'000) return false;
  fault.delay = std::chrono::milliseconds(*ms);
  return true;
}

Fault parse_fault(std::string_view text) {
  const auto refuse = [&](const std::string& expected) {
    throw std::invalid_argument("TROUPE_FAULTS: '" + std::string(text) + "': expected " + expected);
  };
  const std::vector<std::string_view> parts = split(text, ':');
  if (parts.size() != 4) refuse("NODE[#INCARNATION]:PHASE:N:ACTION, as in learner/0:update:2:kill");
  Fault fault;
  const std::size_t hash = parts[0].find('#');
  fault.node = parts[0].substr(0, hash);
  if (fault.node.empty()) refuse("a node, a role or * in front");
  if (hash != parts[0].npos) {
    const auto incarnation = count(parts[0].substr(hash + 1));
    if (!incarnation) refuse("an incarnation from 1 or * behind #");
    fault.incarnation = *incarnation;
  }
  fault.phase = parts[1];
  if (!is_fault_phase(fault.phase)) {
    std::string all;
    for (const FaultPhase& phase : kFaultPhases) all += (all.empty() ? "" : ", ") + std::string(phase.name);
    refuse("a phase, one of " + all);
  }
  const auto passage = count(parts[2]);
  if (!passage) refuse("a count from 1 or * as third part");
  fault.count = *passage;
  if (!read_action(parts[3], fault))
    refuse("kill, stop, spin, exit, flip, throw, delay=MS or delay~MS[@SEED] as last part");
  if (fault.action == FaultAction::kFlip && fault.phase != kFlipPhase)
    refuse("flip in phase " + std::string(kFlipPhase) + " only");
  return fault;
}

bool meant(const Fault& fault, const Identity& who, std::string_view phase, uint64_t passage) {
  const std::string_view role = std::string_view(who.node).substr(0, who.node.find('/'));
  const bool node = fault.node == "*" ? who.node != "supervisor" : fault.node == who.node || fault.node == role;
  return node && fault.phase == phase && (fault.incarnation == 0 || fault.incarnation == who.incarnation) &&
         (fault.count == 0 || fault.count == passage);
}

// splitmix64 over FNV-1a: the same delay for the same passage, whatever else happens.
uint64_t random_of(const Fault& fault, const Identity& who, std::string_view phase, uint64_t passage) {
  uint64_t x = 0xcbf29ce484222325;
  const auto mix = [&](std::string_view text) {
    for (const char c : text) x = (x ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  };
  mix(who.node);
  mix(phase);
  for (const uint64_t part : {who.incarnation, passage, fault.seed}) {
    x += part + 0x9e3779b97f4a7c15;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
    x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
    x ^= x >> 31;
  }
  return x;
}

void suffer(const Fault& fault, std::string_view phase, uint64_t passage, const std::function<void()>& flip) {
  if (fault.action == FaultAction::kDelay || fault.action == FaultAction::kRandomDelay) {
    const auto most = static_cast<uint64_t>(fault.delay.count());
    const uint64_t ms =
        fault.action == FaultAction::kDelay ? most : random_of(fault, identity, phase, passage) % (most + 1);
    std::this_thread::sleep_for(std::chrono::milliseconds(ms));
    return;
  }
  static constexpr std::array<const char*, 6> kNames{"kill", "stop", "spin", "exit", "flip", "throw"};
  std::fprintf(stderr, "fault on purpose: %s#%llu, %.*s, passage %llu: %s\n", identity.node.c_str(),
               static_cast<unsigned long long>(identity.incarnation), static_cast<int>(phase.size()), phase.data(),
               static_cast<unsigned long long>(passage), kNames[static_cast<std::size_t>(fault.action)]);
  switch (fault.action) {
    case FaultAction::kKill:
      raise(SIGKILL);
      return;
    case FaultAction::kStop:
      raise(SIGSTOP);
      return;
    case FaultAction::kSpin:
      for (volatile bool on = true; on;) {
      }
      return;
    case FaultAction::kFlip:
      flip();
      return;
    case FaultAction::kThrow:
      throw std::runtime_error("fault on purpose");
    default:
      std::_Exit(kExitCode);
  }
}

}  // namespace

std::vector<Fault> parse_faults(std::string_view text) {
  std::vector<Fault> faults;
  for (const std::string_view part : split(text, ';'))
    if (!part.empty()) faults.push_back(parse_fault(part));
  return faults;
}

void ask_for_faults(std::vector<Fault> faults) {
  Asked& all = asked();
  const std::lock_guard lock(all.mutex);
  all.faults = std::move(faults);
  all.passages.clear();
  detail::faults_asked = !all.faults.empty();
}

void ask_for_faults_of_environment() {
  if (const char* text = std::getenv("TROUPE_FAULTS")) ask_for_faults(parse_faults(text));
}

void name_fault_points(std::string_view node, uint64_t incarnation) {
  identity = {std::string(node), incarnation};
}

void detail::pass_fault_point(std::string_view phase, const std::function<void()>& flip) {
  if (identity.node.empty()) return;
  Asked& all = asked();
  std::vector<Fault> due;
  uint64_t passage = 0;
  {
    const std::lock_guard lock(all.mutex);
    passage = ++all.passages[identity.node + ":" + std::string(phase)];
    for (const Fault& fault : all.faults)
      if (meant(fault, identity, phase, passage)) due.push_back(fault);
  }
  for (const Fault& fault : due) suffer(fault, phase, passage, flip);
}

}  // namespace troupe
