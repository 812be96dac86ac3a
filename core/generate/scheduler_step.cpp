// One step of the engine: what goes into the pass, the draws, and what they end.
#include <algorithm>
#include <exception>

#include "core/generate/answer_text.hpp"
#include "core/generate/philox.hpp"
#include "core/generate/scheduler.hpp"

namespace troupe {

void Engine::Scheduler::add_answers(Pass& pass) {
  for (const auto& answer : answers_) {
    const std::vector<int32_t>& tokens = answer->completion().tokens;
    if (tokens.empty()) continue;  // its prompt is not ready
    const int64_t start = answer->request->prompt_length() + static_cast<int64_t>(tokens.size()) - 1;
    pass.slices.push_back({.pages = answer->pages.data(),
                           .start = start,
                           .tokens = std::span(tokens).last(1),
                           .sequence_length = start + 1});
    DrawRow row{.logits = {pass.num_rows++, inverse_temperature(answer->request->ask.sampling)},
                .answers = {answer.get()},
                .draws = {}};
    pass.rows.push_back(std::move(row));
  }
}

void Engine::Scheduler::add_prompts(Pass& pass) {
  int64_t left = limits_.max_rows - options_.max_batch;
  for (Request* r : prompts_) {
    if (left == 0) return;
    const int64_t n = std::min(left, r->prompt_length() - r->prompt_done);
    pass.slices.push_back(
        {.pages = r->prompt_pages.data(),
         .start = r->prompt_done,
         .tokens = std::span(r->ask.prompt).subspan(static_cast<size_t>(r->prompt_done), static_cast<size_t>(n)),
         .sequence_length = r->prompt_length()});
    left -= n;
    pass.num_rows += n;
    if (r->prompt_done + n < r->prompt_length()) {
      pass.unfinished_prompt = r;
      pass.unfinished_tokens = n;
      break;
    }
    DrawRow row{
        .logits = {pass.num_rows - 1, inverse_temperature(r->ask.sampling)}, .prompt = r, .answers = {}, .draws = {}};
    for (const auto& answer : answers_)
      if (answer->request == r) row.answers.push_back(answer.get());
    pass.rows.push_back(std::move(row));
  }
}

bool Engine::Scheduler::step() {
  const uint64_t before = generated_tokens_;
  admit();
  end_answers();
  Pass pass;
  add_answers(pass);
  add_prompts(pass);
  if (pass.slices.empty()) return generated_tokens_ != before;
  decoder_->forward(pass.slices);
  if (pass.unfinished_prompt) add_computed(*pass.unfinished_prompt, pass.unfinished_tokens);
  for (size_t first = 0; first < pass.rows.size(); first += static_cast<size_t>(limits_.max_logits)) {
    const size_t count = std::min(pass.rows.size() - first, static_cast<size_t>(limits_.max_logits));
    draw_rows(std::span(pass.rows).subspan(first, count));
  }
  end_answers();
  return true;
}

Draw Engine::Scheduler::draw(const Answer& answer, const LogitRow& row) const {
  const GenerateRequest& ask = answer.request->ask;
  const std::vector<int32_t>& tokens = answer.completion().tokens;
  const double uniform =
      token_uniform(ask.seed, ask.draw, static_cast<uint32_t>(answer.sample), static_cast<uint32_t>(tokens.size()));
  return draw_token(decoder_->kernels(), row, ask.sampling, ask.prompt, tokens, uniform);
}

void Engine::Scheduler::draw_rows(std::span<DrawRow> rows) {
  std::vector<LogitRequest> requests;
  for (const DrawRow& row : rows) requests.push_back(row.logits);
  decoder_->compute_logits(requests);
  std::vector<std::exception_ptr> errors(rows.size());
  const auto n = static_cast<int64_t>(rows.size());
  const auto draw_row = [&](int64_t row, int64_t) {
    const auto i = static_cast<size_t>(row);
    try {
      for (const Answer* answer : rows[i].answers) rows[i].draws.push_back(draw(*answer, decoder_->logits(row)));
    } catch (...) {
      errors[i] = std::current_exception();
    }
  };
  pool_.run(1, n == 1, [&](int) { pool_.phase(0, n, 1, draw_row); });
  for (const std::exception_ptr& error : errors)
    if (error) std::rethrow_exception(error);
  for (size_t i = 0; i < rows.size(); ++i) {
    if (rows[i].prompt) finish_prompt(*rows[i].prompt, decoder_->logits(static_cast<int64_t>(i)));
    for (size_t j = 0; j < rows[i].answers.size(); ++j) append(*rows[i].answers[j], rows[i].draws[j], version_);
  }
}

void Engine::Scheduler::append(Answer& answer, const Draw& draw, uint64_t version) {
  Completion& c = answer.completion();
  c.tokens.push_back(draw.token);
  c.logprobs.push_back(draw.logprob);
  c.versions.push_back(static_cast<int32_t>(version));
  ++generated_tokens_;
  answer.over = is_over(answer, c.finish);
}

bool Engine::Scheduler::is_over(const Answer& answer, FinishReason& reason) const {
  const Sampling& s = answer.request->ask.sampling;
  const std::vector<int32_t>& tokens = answer.completion().tokens;
  if (!s.ignore_eos && std::ranges::find(config_.eos_tokens, tokens.back()) != config_.eos_tokens.end()) {
    reason = FinishReason::kEos;
  } else if (reaches_stop(decode_text_, tokens, s.stop)) {
    reason = FinishReason::kStop;
  } else if (static_cast<int64_t>(tokens.size()) >= s.max_new_tokens) {
    reason = FinishReason::kLength;
  } else {
    return false;
  }
  return true;
}

// Takes out the answers that are over; a request whose answers are all over is finished.
void Engine::Scheduler::end_answers() {
  std::erase_if(answers_, [&](const std::unique_ptr<Answer>& answer) {
    if (!answer->over) return false;
    Request& r = *answer->request;
    Completion& c = answer->completion();
    if (decode_text_) c.text = final_text(decode_text_, c.tokens, r.ask.sampling.stop);
    keep_cache(r, *answer);
    for (int32_t page : answer->pages) pages_.release(page);
    if (++r.ended == r.ask.num_samples) finished_.push_back(&r);
    return true;
  });
}

}  // namespace troupe
