// What the engine promises beyond the model's numbers: the same answers in any company, versions, room, ends.
#include "core/generate/engine.hpp"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <thread>

#include "tests/core/generate/each_model.hpp"

namespace troupe {
namespace {

EngineOptions small_options(at::ScalarType dtype = at::kFloat) {
  EngineOptions o;
  o.dtype = dtype;
  o.threads = 2;
  o.max_batch = 40;
  o.max_tokens = 8192;
  return o;
}

GenerateRequest request_of(uint64_t id, int64_t prompt_length, int64_t samples, int64_t new_tokens) {
  GenerateRequest r;
  r.id = id;
  r.seed = 99;
  r.draw = id;
  r.num_samples = samples;
  r.prompt = random_tokens(prompt_length, odd_config().vocab_size, id + 100);
  r.sampling.max_new_tokens = new_tokens;
  r.sampling.ignore_eos = true;
  return r;
}

std::map<uint64_t, std::vector<Completion>> run(Engine& engine) {
  while (engine.step()) {
  }
  std::map<uint64_t, std::vector<Completion>> all;
  while (auto done = engine.take_finished()) all[done->id] = std::move(done->completions);
  return all;
}

void expect_same(const std::vector<Completion>& a, const std::vector<Completion>& b, const std::string& where) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    EXPECT_EQ(a[i].tokens, b[i].tokens) << where << ", sample " << i;
    ASSERT_EQ(a[i].logprobs.size(), b[i].logprobs.size());
    EXPECT_EQ(std::memcmp(a[i].logprobs.data(), b[i].logprobs.data(), a[i].logprobs.size() * 4), 0)
        << where << ", sample " << i << ": log-probabilities differ in their bits";
  }
}

class EachKernels : public EachTableAndModel {
 protected:
  EngineOptions options() const { return with_table(small_options()); }
};

// The request alone; amid 31 others with prompts of other lengths that come and go; with a batch too small for its own
// samples: the same bits.
TEST_P(EachKernels, ARequestGivesTheSameBitsInAnyCompany) {
  const DecoderConfig config = model();
  const StateDict weights = random_weights(config, 5);
  GenerateRequest probe = request_of(7, 45, 3, 40);
  probe.sampling.temperature = 1.2;
  Engine alone(config, weights, {}, options());
  alone.submit(probe);
  const std::vector<Completion> want = run(alone).at(7);
  EXPECT_NE(want[0].tokens, want[1].tokens);

  Engine crowded(config, weights, {}, options());
  for (uint64_t id = 0; id < 31; ++id) {
    const uint64_t other = id < 7 ? id : id + 1;
    crowded.submit(request_of(other, 1 + static_cast<int64_t>(id * 13 % 90), 1, 10 + static_cast<int64_t>(id % 50)));
    if (id == 15) {
      for (int i = 0; i < 5; ++i) crowded.step();
      crowded.submit(probe);
    }
  }
  expect_same(run(crowded).at(7), want, "amid 31 others");

  EngineOptions narrow = options();
  narrow.max_batch = 2;
  Engine two_at_a_time(config, weights, {}, narrow);
  two_at_a_time.submit(request_of(1, 30, 2, 25));
  two_at_a_time.submit(probe);
  expect_same(run(two_at_a_time).at(7), want, "two at a time");
}

// A model large enough that its work is shared out: one thread, two, and more than the machine may have.
TEST_P(EachKernels, TheNumberOfThreadsDoesNotChangeTheBits) {
  DecoderConfig config = model();
  config.vocab_size = 3000;
  config.hidden_size = 200;
  config.intermediate_size = 300;
  config.num_layers = 2;
  const StateDict weights = random_weights(config, 5);
  std::map<uint64_t, std::vector<Completion>> want;
  for (int threads : {1, 2, 5}) {
    EngineOptions o = options();
    o.threads = threads;
    Engine engine(config, weights, {}, o);
    engine.submit(request_of(1, 40, 3, 6));
    engine.submit(request_of(2, 17, 2, 6));
    const auto got = run(engine);
    if (threads == 1) want = got;
    for (uint64_t id : {1, 2}) expect_same(got.at(id), want.at(id), std::to_string(threads) + " threads");
  }
}

// A prompt longer than one pass is computed in slices; after other prompts the slices fall elsewhere.
TEST_P(EachKernels, SlicesOfAPromptDoNotChangeItsBits) {
  DecoderConfig config = model();
  config.num_layers = 1;
  config.max_positions = 1024;
  const StateDict weights = random_weights(config, 6);
  const GenerateRequest probe = request_of(3, 700, 2, 4);
  Engine alone(config, weights, {}, options());
  alone.submit(probe);
  const std::vector<Completion> want = run(alone).at(3);
  Engine behind(config, weights, {}, options());
  behind.submit(request_of(1, 333, 1, 6));
  behind.submit(request_of(2, 77, 1, 6));
  behind.submit(probe);
  expect_same(run(behind).at(3), want, "behind 410 prompt tokens");
}

TEST_P(EachKernels, ScoresBehindACommonBeginningAreThoseOfEachAlone) {
  DecoderConfig config = odd_config();
  config.max_positions = 1024;
  Engine engine(config, random_weights(config, 8), {}, options());
  const std::vector<int32_t> examples = random_tokens(700, config.vocab_size, 3);
  std::vector<int32_t> tokens, prompts, responses;
  std::vector<float> want;
  // Equal for 700, 690, 300 tokens, not at all; prompts that end within what is equal.
  for (const auto& [equal, own, response] : {std::tuple{700, 40, 1},
                                             {700, 40, 3},
                                             {690, 9, 2},
                                             {300, 250, 5},
                                             {0, 33, 4},
                                             {700, 0, 1},
                                             {160, 0, 60},
                                             {161, 0, 7}}) {
    std::vector<int32_t> sequence(examples.begin(), examples.begin() + equal);
    const auto rest = random_tokens(own + response, config.vocab_size, static_cast<uint64_t>(equal + own));
    sequence.insert(sequence.end(), rest.begin(), rest.end());
    const std::vector<int32_t> prompt{equal + own}, scored{response};
    const std::vector<float> alone = engine.logprobs(sequence, prompt, scored, 1);
    want.insert(want.end(), alone.begin(), alone.end());
    tokens.insert(tokens.end(), sequence.begin(), sequence.end());
    prompts.push_back(equal + own);
    responses.push_back(response);
  }
  EXPECT_EQ(engine.logprobs(tokens, prompts, responses, 1), want);
  EXPECT_EQ(engine.stats().kv_tokens_held, 0);
}

TEST_P(EachKernels, ScoresOfAnAnswerAreTheBitsOfItsGeneration) {
  const DecoderConfig config = model();
  const StateDict weights = random_weights(config, 8);
  Engine engine(config, weights, {}, options());
  std::vector<GenerateRequest> requests{request_of(0, 33, 4, 20), request_of(1, 16, 2, 35), request_of(2, 1, 1, 9)};
  for (GenerateRequest& r : requests) {
    r.sampling.temperature = 0.8;
    engine.submit(r);
  }
  const auto answers = run(engine);
  std::vector<int32_t> tokens, prompts, responses;
  std::vector<float> want;
  for (const GenerateRequest& r : requests) {
    for (const Completion& c : answers.at(r.id)) {
      tokens.insert(tokens.end(), r.prompt.begin(), r.prompt.end());
      tokens.insert(tokens.end(), c.tokens.begin(), c.tokens.end());
      prompts.push_back(static_cast<int32_t>(r.prompt.size()));
      responses.push_back(static_cast<int32_t>(c.tokens.size()));
      want.insert(want.end(), c.logprobs.begin(), c.logprobs.end());
    }
  }
  EXPECT_EQ(engine.logprobs(tokens, prompts, responses, 0.8), want);
  EXPECT_EQ(engine.stats().kv_tokens_held, 0);
}

INSTANTIATE_TEST_SUITE_P(Kernels, EachKernels, each_table_and_model(), case_name);

TEST(Engine, LogProbsAreLogSoftmaxOfLogitsOverTemperature) {
  const DecoderConfig config = odd_config();
  Engine engine(config, random_weights(config, 5), {}, small_options());
  GenerateRequest r = request_of(1, 9, 1, 6);
  r.sampling.temperature = 0.6;
  r.sampling.top_k = 20;  // restricts the draw, not the log-probability
  engine.submit(r);
  const Completion answer = run(engine).at(1)[0];
  std::vector<int32_t> tokens = r.prompt;
  tokens.insert(tokens.end(), answer.tokens.begin(), answer.tokens.end());
  const std::vector<float> logits = engine.logits(tokens, 7);
  const at::Tensor want = at::log_softmax(at::tensor(logits).view({7, -1}).to(at::kDouble) / 0.6, -1);
  for (int64_t i = 0; i < 6; ++i) {
    const double expected = want[i][answer.tokens[static_cast<size_t>(i)]].item<double>();
    EXPECT_NEAR(answer.logprobs[static_cast<size_t>(i)], expected, 1e-5);
  }
}

TEST(Engine, GreedyFollowsTheLargestLogit) {
  const DecoderConfig config = odd_config();
  Engine engine(config, random_weights(config, 12), {}, small_options());
  GenerateRequest r = request_of(1, 20, 1, 8);
  r.sampling.temperature = 0;
  engine.submit(r);
  const Completion answer = run(engine).at(1)[0];
  std::vector<int32_t> tokens = r.prompt;
  for (int32_t token : answer.tokens) {
    const std::vector<float> logits = engine.logits(tokens, 1);
    EXPECT_EQ(token, std::max_element(logits.begin(), logits.end()) - logits.begin());
    tokens.push_back(token);
  }
}

TEST(Engine, PlainAndOwnKernelsDrawTheSameTokens) {
  const DecoderConfig config = full_config();
  const StateDict weights = random_weights(config, 5);
  EngineOptions plain_options = small_options();
  plain_options.plain_kernels = true;
  Engine own(config, weights, {}, small_options()), plain(config, weights, {}, plain_options);
  EXPECT_EQ(plain.kernel_name(), "plain");
  for (Engine* e : {&own, &plain}) {
    e->submit(request_of(1, 21, 2, 12));
    e->submit(request_of(2, 50, 3, 12));
  }
  const auto a = run(own), b = run(plain);
  for (uint64_t id : {1, 2}) {
    for (size_t i = 0; i < a.at(id).size(); ++i) {
      ASSERT_EQ(a.at(id)[i].tokens, b.at(id)[i].tokens);
      for (size_t t = 0; t < 12; ++t) EXPECT_NEAR(a.at(id)[i].logprobs[t], b.at(id)[i].logprobs[t], 1e-4);
    }
  }
}

TEST(Engine, AnswersEndAtEosStopStringOrLength) {
  const DecoderConfig config = odd_config();
  const StateDict weights = random_weights(config, 5);
  const TextDecoder letters = [](std::span<const int32_t> ids) {
    std::string text;
    for (int32_t id : ids) text += static_cast<char>('a' + id % 26);
    return text;
  };
  Engine engine(config, weights, letters, small_options());
  engine.submit(request_of(1, 10, 1, 30));
  const Completion whole = run(engine).at(1)[0];
  EXPECT_EQ(whole.finish, FinishReason::kLength);
  EXPECT_EQ(whole.text.size(), 30u);

  DecoderConfig with_eos = config;
  with_eos.eos_tokens = {5, whole.tokens[11]};
  const auto first = std::ranges::find(whole.tokens, whole.tokens[11]) - whole.tokens.begin();
  Engine ends(with_eos, weights, letters, small_options());
  GenerateRequest r = request_of(1, 10, 1, 30);
  r.sampling.ignore_eos = false;
  ends.submit(r);
  const Completion at_eos = run(ends).at(1)[0];
  EXPECT_EQ(at_eos.finish, FinishReason::kEos);
  EXPECT_EQ(at_eos.tokens, std::vector<int32_t>(whole.tokens.begin(), whole.tokens.begin() + first + 1));

  const std::string stop = whole.text.substr(15, 3);
  const size_t found = whole.text.find(stop);
  r.sampling.ignore_eos = true;
  r.sampling.stop = {"no such text", stop};
  ends.submit(r);
  const Completion at_stop = run(ends).at(1)[0];
  EXPECT_EQ(at_stop.finish, FinishReason::kStop);
  EXPECT_EQ(at_stop.text, whole.text.substr(0, found));
  EXPECT_EQ(at_stop.tokens.size(), found + 3);
}

TEST(Engine, EachTokenRemembersTheVersionThatProducedIt) {
  const DecoderConfig config = odd_config();
  Engine engine(config, random_weights(config, 5), {}, small_options(), 10);
  engine.submit(request_of(1, 10, 2, 12));
  for (int i = 0; i < 5; ++i) engine.step();
  std::thread packer([&] { engine.prepare_weights(random_weights(config, 6), 11); });
  packer.join();
  engine.step();
  EXPECT_EQ(engine.stats().version, 10u);
  EXPECT_TRUE(engine.swap_prepared());
  EXPECT_FALSE(engine.swap_prepared());
  EXPECT_EQ(engine.stats().version, 11u);
  const auto answers = run(engine);
  for (const Completion& c : answers.at(1)) {
    ASSERT_EQ(c.versions.size(), 12u);
    for (size_t t = 0; t < 12; ++t) EXPECT_EQ(c.versions[t], t < 6 ? 10 : 11) << "token " << t;
  }
}

TEST(Engine, ACacheGivenBackChangesNoAnswer) {
  const DecoderConfig config = odd_config();
  Engine engine(config, random_weights(config, 5), {}, small_options());
  engine.submit(request_of(1, 40, 2, 12));
  const std::vector<Completion> want = run(engine).at(1);
  engine.discard_cache();
  engine.submit(request_of(1, 40, 2, 12));
  for (int i = 0; i < 5; ++i) engine.step();
  engine.discard_cache();  // a request holds some of it: it stays
  expect_same(run(engine).at(1), want, "after it was given back");
}

TEST(Engine, SwappedWeightsAreThoseOfAFreshEngine) {
  const DecoderConfig config = full_config();
  Engine engine(config, random_weights(config, 5), {}, small_options());
  const std::vector<int32_t> tokens = random_tokens(30, config.vocab_size, 3);
  for (uint64_t seed : {6, 7, 8}) {
    const StateDict weights = random_weights(config, seed);
    engine.swap_weights(weights, seed);
    Engine fresh(config, weights, {}, small_options());
    EXPECT_EQ(engine.logits(tokens, 30), fresh.logits(tokens, 30));
  }
}

TEST(Engine, WeightsThatDoNotFitLeaveTheOldOnes) {
  const DecoderConfig config = odd_config();
  Engine engine(config, random_weights(config, 5), {}, small_options(), 1);
  StateDict broken = random_weights(config, 6);
  broken.erase("model.norm.weight");
  EXPECT_THROW(engine.prepare_weights(broken, 2), std::invalid_argument);
  EXPECT_FALSE(engine.swap_prepared());
  EXPECT_THROW(engine.swap_weights(broken, 2), std::invalid_argument);
  EXPECT_EQ(engine.stats().version, 1u);
  Engine fresh(config, random_weights(config, 5), {}, small_options());
  const std::vector<int32_t> tokens = random_tokens(10, config.vocab_size, 3);
  EXPECT_EQ(engine.logits(tokens, 10), fresh.logits(tokens, 10));
}

TEST(Engine, CancelGivesBackAllRoom) {
  const DecoderConfig config = odd_config();
  Engine engine(config, random_weights(config, 5), {}, small_options());
  for (uint64_t id : {1, 2, 3}) engine.submit(request_of(id, 30, 4, 20));
  engine.submit(request_of(4, 30, 100, 20));  // some of its answers never start
  for (int i = 0; i < 4; ++i) engine.step();
  EXPECT_GT(engine.stats().kv_tokens_held, 0);
  EXPECT_TRUE(engine.cancel(2));
  EXPECT_FALSE(engine.cancel(2));
  EXPECT_TRUE(engine.cancel(4));
  const auto rest = run(engine);
  EXPECT_EQ(rest.size(), 2u);
  EXPECT_TRUE(rest.contains(1) && rest.contains(3));
  EXPECT_EQ(engine.stats().kv_tokens_held, 0);
  EXPECT_EQ(engine.stats().running_sequences, 0);
  engine.submit(request_of(5, 8, 1, 2));
  while (engine.step()) {
  }
  EXPECT_TRUE(engine.cancel(5));  // finished, not taken
  EXPECT_FALSE(engine.take_finished());
}

TEST(Engine, RequestsQueueForRoomAndAllFinish) {
  const DecoderConfig config = odd_config();
  EngineOptions tight = small_options();
  tight.max_tokens = 128;  // 8 pages; a request needs 3 for its prompt and 2 more for an answer
  tight.max_batch = 3;
  const StateDict weights = random_weights(config, 5);
  Engine engine(config, weights, {}, tight), roomy(config, weights, {}, small_options());
  for (uint64_t id = 0; id < 6; ++id) {
    engine.submit(request_of(id, 37, 5, 20));
    roomy.submit(request_of(id, 37, 5, 20));
  }
  int64_t most = 0;
  while (engine.step()) {
    most = std::max(most, engine.stats().kv_tokens_held);
    ASSERT_LE(engine.stats().running_sequences, 3);
  }
  EXPECT_LE(most, 128);
  EXPECT_EQ(engine.stats().kv_tokens_held, 0);
  const auto want = run(roomy), got = run(engine);
  ASSERT_EQ(got.size(), 6u);
  for (const auto& [id, answers] : want) expect_same(got.at(id), answers, "request " + std::to_string(id));
}

TEST(Engine, SamplesOfAGroupShareThePromptsPages) {
  const DecoderConfig config = odd_config();
  Engine engine(config, random_weights(config, 5), {}, small_options());
  engine.submit(request_of(1, 160, 8, 16));
  engine.step();
  EXPECT_EQ(engine.stats().prompt_tokens, 160u);
  EXPECT_EQ(engine.stats().kv_tokens_held, 160 + 8 * 16);
  EXPECT_EQ(engine.stats().running_sequences, 8);
}

TEST(Engine, RefusesRequestsThatCannotRun) {
  const DecoderConfig config = odd_config();
  EngineOptions o = small_options();
  o.max_tokens = 256;
  o.max_requests = 2;
  Engine engine(config, random_weights(config, 5), {}, o);
  const auto message = [&](auto change) -> std::string {
    GenerateRequest r = request_of(1, 20, 1, 20);
    change(r);
    try {
      engine.submit(r);
    } catch (const std::invalid_argument& e) {
      return e.what();
    }
    return "accepted";
  };
  EXPECT_EQ(message([](auto& r) { r.prompt.clear(); }), "request 1: the prompt is empty");
  EXPECT_EQ(message([](auto& r) { r.prompt[3] = 1109; }), "request 1: prompt: token 3 is 1109, expected 0 to 1108");
  EXPECT_EQ(message([](auto& r) { r.prompt[0] = -1; }), "request 1: prompt: token 0 is -1, expected 0 to 1108");
  EXPECT_EQ(message([](auto& r) { r.num_samples = 0; }), "request 1: num_samples is 0, expected 1 to 65536");
  EXPECT_EQ(message([](auto& r) { r.sampling.max_new_tokens = 493; }),
            "request 1: a prompt of 20 and max_new_tokens 493 exceed the model's 512 positions");
  EXPECT_EQ(message([](auto& r) { r.sampling.max_new_tokens = 300; }),
            "request 1: one answer needs room for 320 tokens, the KV cache has 256");
  EXPECT_EQ(message([](auto& r) { r.sampling.stop = {"x"}; }),
            "request 1: stop strings need a text decoder, the engine has none");
  EXPECT_EQ(message([](auto& r) { r.sampling.top_p = 2; }), "sampling: top_p is 2.000000, expected above 0, at most 1");
  EXPECT_EQ(message([](auto&) {}), "accepted");
  EXPECT_EQ(message([](auto&) {}), "request 1: a request of this id is in the engine");
  engine.submit(request_of(2, 20, 1, 5));
  EXPECT_THROW(engine.submit(request_of(3, 20, 1, 5)), std::runtime_error);
}

TEST(Engine, RefusesScoresOfBadShapes) {
  const DecoderConfig config = odd_config();
  EngineOptions o = small_options();
  o.max_tokens = 64;
  Engine engine(config, random_weights(config, 5), {}, o);
  const std::vector<int32_t> tokens = random_tokens(100, config.vocab_size, 1);
  const auto score = [&](std::vector<int32_t> prompts, std::vector<int32_t> responses, double temperature = 1) {
    return engine.logprobs(tokens, prompts, responses, temperature);
  };
  EXPECT_THROW(score({50}, {49}), std::invalid_argument);
  EXPECT_THROW(score({0, 50}, {10, 40}), std::invalid_argument);
  EXPECT_THROW(score({50, 10}, {40}), std::invalid_argument);
  EXPECT_THROW(score({110}, {-10}), std::invalid_argument);
  EXPECT_THROW(score({50}, {50}, 0), std::invalid_argument);
  EXPECT_THROW(score({10}, {90}), std::runtime_error);     // more than the cache holds
  EXPECT_EQ(score({20, 25, 5}, {30, 0, 20}).size(), 50u);  // one after another they fit
  EXPECT_EQ(engine.stats().kv_tokens_held, 0);
}

TEST(Engine, ADivergedModelIsAnErrorAndNewWeightsHeal) {
  const DecoderConfig config = odd_config();
  const StateDict good = random_weights(config, 5);
  StateDict bad = good;
  bad["model.norm.weight"] = at::full({72}, NAN);
  Engine engine(config, good, {}, small_options());
  engine.submit(request_of(1, 20, 2, 10));
  for (int i = 0; i < 3; ++i) engine.step();
  engine.swap_weights(bad, 1);
  EXPECT_THROW(engine.step(), std::runtime_error);
  engine.submit(request_of(2, 20, 2, 10));
  EXPECT_THROW(engine.step(), std::runtime_error);
  engine.swap_weights(good, 0);
  Engine untouched(config, good, {}, small_options());
  untouched.submit(request_of(1, 20, 2, 10));
  untouched.submit(request_of(2, 20, 2, 10));
  const auto want = run(untouched), got = run(engine);
  for (uint64_t id : {1, 2}) expect_same(got.at(id), want.at(id), "request " + std::to_string(id));
}

TEST(Engine, RefusesOptionsOutOfRange) {
  const DecoderConfig config = odd_config();
  const StateDict weights = random_weights(config, 5);
  const auto refuses = [&](auto change) {
    EngineOptions o = small_options();
    change(o);
    EXPECT_THROW(Engine(config, weights, {}, o), std::invalid_argument);
  };
  refuses([](EngineOptions& o) { o.dtype = at::kHalf; });
  refuses([](EngineOptions& o) { o.max_batch = 0; });
  refuses([](EngineOptions& o) { o.max_tokens = 1; });
  refuses([](EngineOptions& o) { o.threads = -1; });
  refuses([](EngineOptions& o) { o.kernels = "fast"; });
  refuses([](EngineOptions& o) { o.device = at::kCUDA; });
}

}  // namespace
}  // namespace troupe
