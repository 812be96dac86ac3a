// What Engine does (engine.hpp has the contract). First come, first served: a request's prompt pages are taken together
// with the room of one answer in full, so every request that has begun can go on, and nothing is ever thrown out.
#pragma once

#include <deque>
#include <map>
#include <mutex>

#include "core/generate/cached_decoder.hpp"
#include "core/generate/engine.hpp"
#include "core/generate/page_pool.hpp"
#include "core/generate/token_scorer.hpp"

namespace troupe {

class Engine::Scheduler {
 public:
  Scheduler(DecoderConfig config, const StateDict& weights, TextDecoder decode_text, EngineOptions options,
            uint64_t version);

  void submit(GenerateRequest ask);
  bool step();
  std::span<const int32_t> tokens_so_far(uint64_t id, int64_t sample) const;
  std::optional<Finished> take_finished();
  bool cancel(uint64_t id);
  void prepare_weights(const StateDict& weights, uint64_t version);
  bool swap_prepared();
  void swap_weights(const StateDict& weights, uint64_t version);
  void discard_cache();
  bool holds(const StateDict& weights) const { return decoder_->holds(weights); }
  std::vector<float> logprobs(std::span<const int32_t> tokens, std::span<const int32_t> prompt_lengths,
                              std::span<const int32_t> response_lengths, double temperature);
  std::vector<float> logits(std::span<const int32_t> tokens, int64_t rows);
  EngineStats stats() const;
  std::string kernel_name() const { return decoder_->name(); }

 private:
  void begin_version(uint64_t version);
  struct Request {
    GenerateRequest ask;
    std::vector<int32_t> prompt_pages;  // held until every answer has started
    int64_t prompt_done = 0;            // tokens computed
    int64_t started = 0, ended = 0;     // answers
    // The last prompt token's logits, for the answers that start later; empty once all have started.
    std::vector<float> logits;
    std::vector<kernels::BlockStats> stats;
    uint64_t logits_version = 0;
    std::vector<Completion> completions;

    int64_t prompt_length() const { return static_cast<int64_t>(ask.prompt.size()); }
    bool prompt_ready() const { return prompt_done == prompt_length(); }
  };
  struct Answer {
    Request* request;
    int64_t sample;
    std::vector<int32_t> pages;  // those shared with the prompt, then its own
    bool over = false;

    Completion& completion() const { return request->completions[static_cast<size_t>(sample)]; }
  };
  // One row of logits to be drawn from, by one answer or by all that waited for a prompt.
  struct DrawRow {
    LogitRequest logits;
    Request* prompt = nullptr;     // whose prompt ends in this row, if one does
    std::vector<Answer*> answers;  // that draw
    std::vector<Draw> draws;       // parallel to answers
  };
  // What a request with keeps_cache left: the tokens whose keys and values are in the pages.
  struct Kept {
    std::vector<int32_t> tokens, pages;
  };
  struct Pass {
    std::vector<TokenSlice> slices;
    std::vector<DrawRow> rows;
    int64_t num_rows = 0;                  // tokens
    Request* unfinished_prompt = nullptr;  // the pass ends within it
    int64_t unfinished_tokens = 0;
  };

  void check(const GenerateRequest& ask) const;
  int64_t shared_pages(const GenerateRequest& ask) const;
  int64_t own_pages(const GenerateRequest& ask) const;
  void admit();
  bool has_room(const Request& request) const;
  void begin_prompt(Request& request);
  void start_answer(Request& request);
  void add_computed(Request& request, int64_t prompt_tokens);
  void finish_prompt(Request& request, const LogitRow& row);
  void give_first_page(Answer& answer);
  void release_prompt(Request& request);
  void keep_cache(const Request& request, Answer& answer);
  void take_kept(Request& request);
  void release_kept();

  Pass plan_pass();
  void add_answers(Pass& pass);
  void add_prompts(Pass& pass);
  void draw_rows(std::span<DrawRow> rows);
  Draw draw(const Answer& answer, const LogitRow& row) const;
  void append(Answer& answer, const Draw& draw, uint64_t version);
  bool is_over(const Answer& answer, FinishReason& reason) const;
  void end_answers();

  const DecoderConfig config_;
  const TextDecoder decode_text_;
  const EngineOptions options_;
  const int64_t position_limit_;
  const ScoreLimits limits_;
  WorkerPool pool_;
  std::unique_ptr<CachedDecoder> decoder_;
  PagePool pages_;

  std::map<uint64_t, std::unique_ptr<Request>> requests_;
  std::deque<Request*> waiting_;  // with an answer that has not started, in order of arrival
  std::deque<Request*> prompts_;  // begun, prompt not computed yet
  std::vector<std::unique_ptr<Answer>> answers_;
  std::deque<Request*> finished_;
  Kept kept_;

  uint64_t version_;
  std::mutex prepared_mutex_;  // guards prepared_version_, written by prepare_weights' thread
  uint64_t prepared_version_ = 0;
  uint64_t generated_tokens_ = 0, prompt_tokens_ = 0;
};

}  // namespace troupe
