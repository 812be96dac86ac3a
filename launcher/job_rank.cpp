#include <sys/stat.h>

#include <cstdlib>
#include <fstream>
#include <stdexcept>

#include "launcher/play_job.hpp"

namespace troupe {
namespace {

constexpr std::size_t kLeastSecret = 16;  // characters

std::string text_of(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

int number_in(const std::string& name, const std::string& text) {
  std::size_t end = 0;
  int value = -1;
  try {
    value = std::stoi(text, &end);
  } catch (const std::exception&) {
    end = 0;
  }
  if (end != text.size() || text.empty() || value < 0)
    throw std::invalid_argument(name + "='" + text + "', expected a number");
  return value;
}

int number_of(const char* name) {
  return number_in(name, text_of(name));
}

bool on_this_host(const std::string& address) {
  return address == "localhost" || address.starts_with("127.") || address == "::1";
}

// TROUPE_SECRET, or the first line of the file TROUPE_SECRET_FILE, which its owner alone may read.
std::string job_secret() {
  std::string name = "TROUPE_SECRET", secret = text_of("TROUPE_SECRET");
  if (const std::string path = text_of("TROUPE_SECRET_FILE"); secret.empty() && !path.empty()) {
    struct stat info {};
    name = "TROUPE_SECRET_FILE=" + path;
    if (stat(path.c_str(), &info) != 0 || !S_ISREG(info.st_mode) || (info.st_mode & 0077) != 0)
      throw std::invalid_argument(name + ": expected a file with mode 0600");
    if (std::ifstream file(path); !std::getline(file, secret)) throw std::invalid_argument(name + ": cannot be read");
  } else if (secret.empty()) {
    return "";
  }
  if (secret.size() < kLeastSecret)
    throw std::invalid_argument(name + ": " + std::to_string(secret.size()) + " characters, expected at least " +
                                std::to_string(kLeastSecret) + ", for instance of 'openssl rand -hex 32'");
  return secret;
}

JobRank torchrun_rank() {
  JobRank out{.rank = number_of("RANK"),
              .size = number_of("WORLD_SIZE"),
              .address = text_of("MASTER_ADDR"),
              .port = number_of("MASTER_PORT")};
  out.on_host = text_of("LOCAL_WORLD_SIZE").empty() ? out.size : number_of("LOCAL_WORLD_SIZE");
  out.local = text_of("LOCAL_RANK").empty() ? out.rank % out.on_host : number_of("LOCAL_RANK");
  // There torchrun itself listens at the port.
  if (text_of("TORCHELASTIC_USE_AGENT_STORE") == "True") ++out.port;
  return out;
}

JobRank slurm_rank() {
  JobRank out{.rank = number_of("SLURM_PROCID"), .size = number_of("SLURM_STEP_NUM_TASKS")};
  out.on_host = tasks_of_node(text_of("SLURM_STEP_TASKS_PER_NODE"), number_of("SLURM_NODEID"));
  out.local = text_of("SLURM_LOCALID").empty() ? 0 : number_of("SLURM_LOCALID");
  const std::string nodes = text_of("SLURM_STEP_NODELIST"), address = text_of("MASTER_ADDR");
  out.address = !address.empty() ? address : text_of("SLURM_STEP_NUM_NODES") == "1" ? "127.0.0.1" : first_host(nodes);
  out.port = text_of("MASTER_PORT").empty() ? 20000 + number_of("SLURM_JOB_ID") % 20000 : number_of("MASTER_PORT");
  return out;
}

}  // namespace

std::string first_host(const std::string& nodes) {
  std::string out;
  for (std::size_t i = 0; i < nodes.size() && nodes[i] != ','; ++i) {
    if (nodes[i] != '[') {
      out += nodes[i];
      continue;
    }
    const std::size_t end = nodes.find_first_of("-,]", i + 1), close = nodes.find(']', i);
    if (close == nodes.npos) throw std::invalid_argument("SLURM_STEP_NODELIST='" + nodes + "': a [ without its ]");
    out += nodes.substr(i + 1, end - i - 1);
    i = close;
  }
  return out;
}

int tasks_of_node(const std::string& list, int node) {
  const std::string name = "SLURM_STEP_TASKS_PER_NODE";
  for (std::size_t begin = 0; begin < list.size();) {
    const std::size_t end = std::min(list.find(',', begin), list.size());
    const std::string entry = list.substr(begin, end - begin);
    const std::size_t repeat = entry.find("(x");
    const int tasks = number_in(name, entry.substr(0, repeat));
    node -= repeat == entry.npos ? 1 : number_in(name, entry.substr(repeat + 2, entry.size() - repeat - 3));
    if (node < 0) return tasks;
    begin = end + 1;
  }
  throw std::invalid_argument(name + "='" + list + "' does not tell of node " + std::to_string(node));
}

JobRank job_rank() {
  JobRank out;
  const std::string tasks = text_of("SLURM_STEP_NUM_TASKS");
  if (!text_of("RANK").empty())
    out = torchrun_rank();
  else if (!text_of("SLURM_PROCID").empty() && !tasks.empty() && tasks != "1")
    out = slurm_rank();
  if (out.size < 1 || out.rank >= out.size)
    throw std::invalid_argument("RANK is " + std::to_string(out.rank) + " of WORLD_SIZE " + std::to_string(out.size));
  if (out.size == 1) return {};
  if (out.address.empty()) throw std::invalid_argument("WORLD_SIZE > 1, but MASTER_ADDR is not set");
  out.secret = job_secret();
  if (out.secret.empty() && !on_this_host(out.address))
    throw std::invalid_argument("MASTER_ADDR is " + out.address +
                                ", another host: expected a secret that all ranks share, in TROUPE_SECRET or in the "
                                "file that TROUPE_SECRET_FILE names, for instance of 'openssl rand -hex 32'");
  return out;
}

}  // namespace troupe
