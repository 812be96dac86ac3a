#include "roles/replayed_learners.hpp"

#include <future>
#include <thread>

#include "core/io/weight_layout.hpp"
#include "roles/run_file.hpp"
#include "roles/update_loop.hpp"

namespace troupe {
namespace {

// Wherever they were in the run, here they are in one process.
Topology in_one_place(Topology topology) {
  topology.transport.control = ControlTransport::kIpc;
  return topology;
}

}  // namespace

// Serves the first one until the end of scope.
class ReplayedLearners::Follower {
 public:
  Follower(const RoleSetting& setting, NodeOptions options)
      : mailbox_(std::move(options)), thread_([this, setting] { run(setting); }) {
    loaded_.get_future().get();
  }
  ~Follower() { mailbox_.request_stop("the replay has ended"); }

 private:
  void run(const RoleSetting& setting) {
    Context context(mailbox_);
    std::optional<Learner> learner;
    try {
      learner.emplace(setting, context);
    } catch (const std::exception&) {  // the constructor throws it on
      return loaded_.set_exception(std::current_exception());
    }
    loaded_.set_value();
    serve(*learner, context);
  }

  SocketMailbox mailbox_;
  std::promise<void> loaded_;
  std::jthread thread_;
};

ReplayedLearners::ReplayedLearners(const Topology& topology, const std::filesystem::path& folder)
    : topology_(in_one_place(topology)),
      folder_(folder),
      instances_(instances_of_role(topology, "learner")),
      transport_(Transport::create()) {
  if (instances_.size() > 1)
    rendezvous_ = std::make_unique<RendezvousServer>(options_of(std::string(kRendezvousNode)),
                                                     std::make_shared<RendezvousTable>());
  for (std::size_t i = 1; i < instances_.size(); ++i)
    followers_.push_back(std::make_unique<Follower>(setting_of(instances_[i]), options_of(instances_[i])));
  mailbox_ = std::make_unique<SocketMailbox>(options_of(instances_.at(0)));
  context_ = std::make_unique<Context>(*mailbox_);
  first_ = std::make_unique<Learner>(setting_of(instances_.at(0)), *context_);
}

ReplayedLearners::~ReplayedLearners() = default;

RoleSetting ReplayedLearners::setting_of(const std::string& instance) const {
  return {.topology = topology_,
          .run_folder = folder_,
          .instance = instance,
          .threads = static_cast<int>(node_of(topology_, instance).threads),
          .socket_folder = folder_.string(),
          .one_process = true};
}

NodeOptions ReplayedLearners::options_of(const std::string& node) const {
  NodeOptions options{.node = node, .run = "replay", .transport = transport_};
  const auto endpoint_of = [](const std::string& name) { return "inproc://" + file_name_of(name); };
  options.endpoint = endpoint_of(node);
  for (const std::string& instance : instances_)
    if (instance != node) options.peers[instance] = {endpoint_of(instance), ""};
  if (node != kRendezvousNode)
    options.peers[std::string(kRendezvousNode)] = {endpoint_of(std::string(kRendezvousNode)), ""};
  return options;
}

Updated ReplayedLearners::update(const Experience& batch) {
  return first_->handle(Update{.batch = batch, .temperature = topology_.sampling.temperature});
}

double ReplayedLearners::digest() {
  const uint64_t version = step();
  const PublishWeights publish{
      .version = version, .dtype = dtype_of_actors(topology_), .same_host = true, .keep_from = version};
  return digest_metric(first_->handle(publish).manifest);
}

std::filesystem::path ReplayedLearners::checkpoint(const std::filesystem::path& folder, const std::string& export_to) {
  return first_->handle(Checkpoint{.folder = folder.string(), .step = step(), .export_folder = export_to}).folder;
}

}  // namespace troupe
