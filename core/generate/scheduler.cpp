#include "core/generate/scheduler.hpp"

#include <algorithm>
#include <thread>

#include "core/generate/decoder_sizes.hpp"

namespace troupe {
namespace {

using kernels::kPageTokens;

constexpr int64_t kPromptRows = 512;  // prompt tokens in one pass
constexpr int64_t kLogitRows = 64;    // rows of logits held at a time

int64_t pages_for(int64_t tokens) {
  return round_up(tokens, kPageTokens) / kPageTokens;
}

[[noreturn]] void refuse(const std::string& what) {
  throw std::invalid_argument(what);
}

EngineOptions checked(EngineOptions o) {
  if (o.dtype != at::kFloat && o.dtype != at::kBFloat16) refuse("engine: dtype must be float32 or bfloat16");
  if (o.threads == 0) o.threads = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  if (o.threads < 1 || o.threads > 1024)
    refuse("engine: threads is " + std::to_string(o.threads) + ", expected 0 to 1024");
  if (o.max_batch < 1 || o.max_batch > 65536)
    refuse("engine: max_batch is " + std::to_string(o.max_batch) + ", expected 1 to 65536");
  if (o.max_tokens < kPageTokens || o.max_tokens > int64_t{1} << 31)
    refuse("engine: max_tokens is " + std::to_string(o.max_tokens) + ", expected 16 to 2^31");
  o.max_tokens = round_up(o.max_tokens, kPageTokens);
  if (o.max_requests < 1) refuse("engine: max_requests is " + std::to_string(o.max_requests) + ", expected 1 or more");
  if (!o.plain_kernels && !o.device.is_cpu()) refuse("engine: on " + o.device.str() + " only plain_kernels run");
  return o;
}

// As far as rotary positions are meant to go; "dynamic" stretches them by its factor.
int64_t position_limit(const DecoderConfig& c) {
  if (c.rope.type != "dynamic") return c.max_positions;
  return static_cast<int64_t>(static_cast<double>(c.max_positions) * std::max(1.0, c.rope.factor));
}

std::unique_ptr<CachedDecoder> make_decoder(const DecoderConfig& config, const EngineOptions& o,
                                            const ScoreLimits& limits, WorkerPool& pool) {
  const bool bf16 = o.dtype == at::kBFloat16;
  const kernels::KernelTable& table = kernels::choose(o.kernels, bf16);
  const CachedDecoderOptions options{.config = config,
                                     .num_pages = o.max_tokens / kPageTokens,
                                     .max_rows = limits.max_rows,
                                     .max_logits = limits.max_logits};
  return o.plain_kernels ? make_plain_decoder(options, table, o.dtype, o.device)
                         : make_packed_decoder(options, table, pool);
}

void check_ids(std::span<const int32_t> tokens, int64_t vocab_size, const char* what) {
  for (size_t i = 0; i < tokens.size(); ++i)
    if (tokens[i] < 0 || tokens[i] >= vocab_size)
      refuse(std::string(what) + ": token " + std::to_string(i) + " is " + std::to_string(tokens[i]) +
             ", expected 0 to " + std::to_string(vocab_size - 1));
}

}  // namespace

Engine::Scheduler::Scheduler(DecoderConfig config, const StateDict& weights, TextDecoder decode_text,
                             EngineOptions options, uint64_t version)
    : config_(std::move(config)),
      decode_text_(std::move(decode_text)),
      options_(checked(std::move(options))),
      position_limit_(position_limit(config_)),
      limits_{.max_rows = options_.max_batch + kPromptRows, .max_logits = kLogitRows},
      pool_(options_.plain_kernels ? 1 : options_.threads),
      decoder_(make_decoder(config_, options_, limits_, pool_)),
      pages_(options_.max_tokens / kPageTokens),
      version_(version) {
  prepare_weights(weights, version);
  swap_prepared();
}

// ---- requests -------------------------------------------------------------------------------------------------------

// A prompt's last page that is not full goes on as its only answer's; several answers continue a copy each.
int64_t Engine::Scheduler::shared_pages(const GenerateRequest& ask) const {
  const auto prompt = static_cast<int64_t>(ask.prompt.size());
  return ask.num_samples == 1 ? pages_for(prompt) : prompt / kPageTokens;
}

int64_t Engine::Scheduler::own_pages(const GenerateRequest& ask) const {
  const auto prompt = static_cast<int64_t>(ask.prompt.size());
  // The last token of an answer is never fed back: it needs no room.
  return pages_for(prompt + ask.sampling.max_new_tokens - 1) - shared_pages(ask);
}

void Engine::Scheduler::check(const GenerateRequest& ask) const {
  const std::string name = "request " + std::to_string(ask.id);
  const auto prompt = static_cast<int64_t>(ask.prompt.size());
  if (requests_.contains(ask.id)) refuse(name + ": a request of this id is in the engine");
  if (ask.num_samples < 1 || ask.num_samples > 65536)
    refuse(name + ": num_samples is " + std::to_string(ask.num_samples) + ", expected 1 to 65536");
  if (prompt < 1) refuse(name + ": the prompt is empty");
  check_ids(ask.prompt, config_.vocab_size, (name + ": prompt").c_str());
  check_sampling(ask.sampling);
  if (ask.sampling.max_new_tokens > position_limit_ - prompt)
    refuse(name + ": a prompt of " + std::to_string(prompt) + " and max_new_tokens " +
           std::to_string(ask.sampling.max_new_tokens) + " exceed the model's " + std::to_string(position_limit_) +
           " positions");
  if (pages_for(prompt) + own_pages(ask) > pages_.capacity())
    refuse(name + ": one answer needs room for " + std::to_string((pages_for(prompt) + own_pages(ask)) * kPageTokens) +
           " tokens, the KV cache has " + std::to_string(pages_.capacity() * kPageTokens));
  if (!ask.sampling.stop.empty() && !decode_text_)
    refuse(name + ": stop strings need a text decoder, the engine has none");
  if (ask.keeps_cache && ask.num_samples != 1) refuse(name + ": keeps_cache with several samples");
}

void Engine::Scheduler::submit(GenerateRequest ask) {
  check(ask);
  if (static_cast<int64_t>(requests_.size()) >= options_.max_requests)
    throw std::runtime_error("request " + std::to_string(ask.id) + ": the engine holds " +
                             std::to_string(requests_.size()) + " requests, its limit");
  auto request = std::make_unique<Request>();
  request->completions.resize(static_cast<size_t>(ask.num_samples));
  request->ask = std::move(ask);
  waiting_.push_back(request.get());
  requests_.emplace(request->ask.id, std::move(request));
}

std::span<const int32_t> Engine::Scheduler::tokens_so_far(uint64_t id, int64_t sample) const {
  const auto found = requests_.find(id);
  if (found == requests_.end()) return {};
  return found->second->completions.at(static_cast<size_t>(sample)).tokens;
}

std::optional<Finished> Engine::Scheduler::take_finished() {
  if (finished_.empty()) return std::nullopt;
  Request* request = finished_.front();
  finished_.pop_front();
  Finished done{request->ask.id, std::move(request->completions)};
  requests_.erase(done.id);
  return done;
}

bool Engine::Scheduler::cancel(uint64_t id) {
  const auto found = requests_.find(id);
  if (found == requests_.end()) return false;
  Request* request = found->second.get();
  std::erase_if(answers_, [&](const std::unique_ptr<Answer>& a) {
    if (a->request != request) return false;
    keep_cache(*request, *a);
    for (int32_t page : a->pages) pages_.release(page);
    return true;
  });
  for (int32_t page : request->prompt_pages) pages_.release(page);
  std::erase(waiting_, request);
  std::erase(prompts_, request);
  std::erase(finished_, request);
  requests_.erase(found);
  return true;
}

// ---- admission ------------------------------------------------------------------------------------------------------

bool Engine::Scheduler::has_room(const Request& r) const {
  if (static_cast<int64_t>(answers_.size()) >= options_.max_batch) return false;
  const int64_t prompt = r.started == 0 ? pages_for(r.prompt_length()) : 0;
  return prompt + own_pages(r.ask) <= pages_.num_free() + static_cast<int64_t>(kept_.pages.size());
}

void Engine::Scheduler::admit() {
  while (!waiting_.empty() && has_room(*waiting_.front())) {
    Request& r = *waiting_.front();
    if (r.started == 0) begin_prompt(r);
    if (own_pages(r.ask) > pages_.num_free()) release_kept();
    start_answer(r);
    if (r.started < r.ask.num_samples) continue;
    waiting_.pop_front();
    if (r.prompt_ready()) release_prompt(r);
  }
}

void Engine::Scheduler::begin_prompt(Request& r) {
  take_kept(r);
  const int64_t missing = pages_for(r.prompt_length()) - static_cast<int64_t>(r.prompt_pages.size());
  if (missing > pages_.num_free()) release_kept();
  const std::vector<int32_t> more = pages_.take(missing);
  r.prompt_pages.insert(r.prompt_pages.end(), more.begin(), more.end());
  prompts_.push_back(&r);
}

void Engine::Scheduler::start_answer(Request& r) {
  auto answer = std::make_unique<Answer>();
  answer->request = &r;
  answer->sample = r.started++;
  const int64_t shared = shared_pages(r.ask);
  answer->pages.assign(r.prompt_pages.begin(), r.prompt_pages.begin() + shared);
  for (int32_t page : answer->pages) pages_.hold(page);
  const std::vector<int32_t> own = pages_.take(own_pages(r.ask));
  answer->pages.insert(answer->pages.end(), own.begin(), own.end());
  answers_.push_back(std::move(answer));
  if (!r.prompt_ready()) return;
  Answer& late = *answers_.back();
  give_first_page(late);
  append(late, draw(late, {r.logits.data(), r.stats.data(), config_.vocab_size}), r.logits_version);
}

void Engine::Scheduler::give_first_page(Answer& answer) {
  const Request& r = *answer.request;
  const int64_t shared = shared_pages(r.ask);
  if (shared < pages_for(r.prompt_length()))
    decoder_->copy_page(r.prompt_pages.back(), answer.pages[static_cast<size_t>(shared)]);
}

void Engine::Scheduler::add_computed(Request& r, int64_t prompt_tokens) {
  r.prompt_done += prompt_tokens;
  prompt_tokens_ += static_cast<uint64_t>(prompt_tokens);
}

void Engine::Scheduler::finish_prompt(Request& r, const LogitRow& row) {
  add_computed(r, r.prompt_length() - r.prompt_done);
  std::erase(prompts_, &r);
  for (const auto& answer : answers_)
    if (answer->request == &r) give_first_page(*answer);
  if (r.started == r.ask.num_samples) return release_prompt(r);
  r.logits.assign(row.values, row.values + round_up(row.vocab_size, 16));
  const int64_t blocks = (row.vocab_size + kernels::kLogitBlock - 1) / kernels::kLogitBlock;
  r.stats.assign(row.stats, row.stats + blocks);
  r.logits_version = version_;
}

void Engine::Scheduler::release_prompt(Request& r) {
  for (int32_t page : r.prompt_pages) pages_.release(page);
  r.prompt_pages.clear();
  r.logits = {};
  r.stats = {};
}

// ---- the cache kept between requests
// ---------------------------------------------------------------------------------

void Engine::Scheduler::keep_cache(const Request& r, Answer& answer) {
  if (!r.ask.keeps_cache) return;
  release_kept();
  // The last token drawn has not been fed back.
  const std::vector<int32_t>& drawn = answer.completion().tokens;
  kept_.tokens.assign(r.ask.prompt.begin(), r.ask.prompt.begin() + r.prompt_done);
  if (!drawn.empty()) kept_.tokens.insert(kept_.tokens.end(), drawn.begin(), drawn.end() - 1);
  const auto full = answer.pages.begin() + pages_for(static_cast<int64_t>(kept_.tokens.size()));
  kept_.pages.assign(answer.pages.begin(), full);
  answer.pages.erase(answer.pages.begin(), full);
}

// The pages of the tokens that the prompt begins with, but for its last token: that one's logits are wanted. "dynamic"
// positions depend on the sequence's length.
void Engine::Scheduler::take_kept(Request& r) {
  if (r.ask.keeps_cache && config_.rope.type != "dynamic") {
    const auto same = std::ranges::mismatch(kept_.tokens, r.ask.prompt).in1 - kept_.tokens.begin();
    r.prompt_done = std::min<int64_t>(same, r.prompt_length() - 1);
    const auto taken = kept_.pages.begin() + pages_for(r.prompt_done);
    r.prompt_pages.assign(kept_.pages.begin(), taken);
    kept_.pages.erase(kept_.pages.begin(), taken);
  }
  if (r.ask.keeps_cache) release_kept();
}

void Engine::Scheduler::release_kept() {
  for (int32_t page : kept_.pages) pages_.release(page);
  kept_ = {};
}

// ---- weights, scores, figures
// ----------------------------------------------------------------------------------------

void Engine::Scheduler::prepare_weights(const StateDict& weights, uint64_t version) {
  decoder_->prepare(weights);
  const std::lock_guard lock(prepared_mutex_);
  prepared_version_ = version;
}

bool Engine::Scheduler::swap_prepared() {
  const std::lock_guard lock(prepared_mutex_);
  if (!decoder_->swap()) return false;
  begin_version(prepared_version_);
  return true;
}

void Engine::Scheduler::swap_weights(const StateDict& weights, uint64_t version) {
  decoder_->replace(weights);
  begin_version(version);
}

void Engine::Scheduler::discard_cache() {
  if (pages_.num_free() == pages_.capacity()) decoder_->discard_cache();
}

void Engine::Scheduler::begin_version(uint64_t version) {
  // What is kept, or will be of a request under way, is other weights' keys and values.
  release_kept();
  for (const auto& [id, request] : requests_)
    if (request->started > 0) request->ask.keeps_cache = false;
  version_ = version;
}

std::vector<float> Engine::Scheduler::logprobs(std::span<const int32_t> tokens, std::span<const int32_t> prompt_lengths,
                                               std::span<const int32_t> response_lengths, double temperature) {
  if (prompt_lengths.size() != response_lengths.size())
    refuse("logprobs: " + std::to_string(prompt_lengths.size()) + " prompt lengths, " +
           std::to_string(response_lengths.size()) + " response lengths");
  if (!(temperature > 0)) refuse("logprobs: temperature is " + std::to_string(temperature) + ", expected above 0");
  int64_t total = 0;
  for (size_t i = 0; i < prompt_lengths.size(); ++i) {
    if (prompt_lengths[i] < 1 || response_lengths[i] < 0)
      refuse("logprobs: sequence " + std::to_string(i) + " has a prompt of " + std::to_string(prompt_lengths[i]) +
             " and a response of " + std::to_string(response_lengths[i]) + " tokens");
    total += int64_t{prompt_lengths[i]} + response_lengths[i];
  }
  if (total != static_cast<int64_t>(tokens.size()))
    refuse("logprobs: the lengths add up to " + std::to_string(total) + ", there are " + std::to_string(tokens.size()) +
           " tokens");
  check_ids(tokens, config_.vocab_size, "logprobs");
  release_kept();
  return score_tokens(*decoder_, pages_, limits_, tokens, prompt_lengths, response_lengths, temperature,
                      config_.rope.type != "dynamic");
}

std::vector<float> Engine::Scheduler::logits(std::span<const int32_t> tokens, int64_t rows) {
  if (tokens.empty() || rows < 1 || rows > static_cast<int64_t>(tokens.size()))
    refuse("logits: " + std::to_string(rows) + " rows of " + std::to_string(tokens.size()) + " tokens");
  check_ids(tokens, config_.vocab_size, "logits");
  release_kept();
  return sequence_logits(*decoder_, pages_, limits_, tokens, rows);
}

EngineStats Engine::Scheduler::stats() const {
  EngineStats s;
  for (const auto& answer : answers_) s.running_sequences += answer->request->prompt_ready();
  s.waiting_requests = static_cast<int64_t>(waiting_.size());
  s.kv_tokens_capacity = pages_.capacity() * kPageTokens;
  s.kv_tokens_held = (pages_.capacity() - pages_.num_free()) * kPageTokens;
  s.generated_tokens = generated_tokens_;
  s.prompt_tokens = prompt_tokens_;
  s.version = version_;
  return s;
}

}  // namespace troupe
