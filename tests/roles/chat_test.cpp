// Talks: what the terminal shows, and the real command over pipes.
#include <gtest/gtest.h>

#include "core/config.hpp"
#include "roles/answering.hpp"
#include "roles/think_display.hpp"
#include "tests/support/command.hpp"

namespace troupe {
namespace {

const std::string kModel = std::string(TROUPE_SOURCE_DIR) + "/tests/oracles/data/evaluate/model";

std::string shown(const std::vector<std::string>& pieces, bool dim, bool thinking) {
  ThinkDisplay display(dim, thinking);
  std::string out;
  for (const std::string& piece : pieces) out += display.push(piece);
  return out + display.end();
}

TEST(ThinkDisplay, ThoughtsAreDimmedHoweverTheTextIsCut) {
  const std::string text = "a <thin <think>why</think>b </think> <";
  const std::string expected = "a <thin \033[2m<think>why</think>\033[22mb </think> <";
  EXPECT_EQ(shown({text}, true, false), expected);
  std::vector<std::string> letters;
  for (const char c : text) letters.emplace_back(1, c);
  EXPECT_EQ(shown(letters, true, false), expected);
  EXPECT_EQ(shown(letters, false, false), text);
}

TEST(ThinkDisplay, AnAnswerMayBeginOrEndWithinAThought) {
  EXPECT_EQ(shown({"why</thi", "nk>so"}, true, true), "\033[2mwhy</think>\033[22mso");
  EXPECT_EQ(shown({"<think>why"}, true, false), "\033[2m<think>why\033[22m");
  EXPECT_EQ(shown({}, true, true), "");
}

struct TinyAnswerer : Answerer {
  explicit TinyAnswerer(AnswerStyle style = {})
      : Answerer({.load_from = kModel}, {.threads = 1, .dtype = "f32", .device = "cpu"}, style) {}
};

Sampling greedy(int64_t tokens) {
  Sampling sampling;
  sampling.temperature = 0;
  sampling.max_new_tokens = tokens;
  sampling.ignore_eos = true;
  return sampling;
}

TEST(Answerer, AStopRequestEndsTheAnswerAndTheNextOneIsWhole) {
  TinyAnswerer answerer;
  std::string whole, part;
  const auto add_to = [](std::string& text) { return [&](std::string_view piece) { text += piece; }; };
  const Answered full = answerer.answer({{"user", "Hello"}}, greedy(40), 1, 0, add_to(whole));
  EXPECT_EQ(full.text, whole);
  EXPECT_EQ(full.tokens, 40);
  EXPECT_FALSE(full.interrupted);
  std::atomic<int> stop{0};
  const Answered cut = answerer.answer(
      {{"user", "Hello"}}, greedy(40), 1, 0,
      [&](std::string_view piece) {
        part += piece;
        stop = 1;
      },
      &stop);
  EXPECT_TRUE(cut.interrupted);
  EXPECT_LT(cut.tokens, 40);
  EXPECT_TRUE(whole.starts_with(part.substr(0, 1)));
  EXPECT_EQ(answerer.answer({{"user", "Hello"}}, greedy(40), 1, 0, [](std::string_view) {}).text, whole);
}

TEST(Answerer, ForgetsTheOldestWhenTheContextIsFullButNeverTheSystemsOrTheLast) {
  TinyAnswerer answerer;
  const std::string long_text(150, 'z');
  const std::vector<ChatMessage> talk{{"system", "Be brief."}, {"user", long_text},      {"assistant", long_text},
                                      {"user", long_text},     {"assistant", long_text}, {"user", "Now?"}};
  const Answered full = answerer.answer(talk, greedy(400), 1, 0, [](std::string_view) {});
  EXPECT_GT(full.forgotten, 0);
  EXPECT_EQ(full.forgotten % 2, 0);
  std::vector<ChatMessage> left{talk[0]};
  left.insert(left.end(), talk.begin() + 1 + full.forgotten, talk.end());
  const Answered same = answerer.answer(left, greedy(400), 1, 0, [](std::string_view) {});
  EXPECT_EQ(same.forgotten, 0);
  EXPECT_EQ(same.text, full.text);
  try {
    answerer.answer({{"user", std::string(2000, 'z')}}, greedy(4), 1, 0, [](std::string_view) {});
    FAIL();
  } catch (const std::runtime_error& error) {
    EXPECT_NE(std::string(error.what()).find("the model's context is 512"), std::string::npos) << error.what();
  }
}

TEST(Answerer, AnAnswerMayFillAContextOfAnySize) {
  ScratchFolder folder;
  std::filesystem::copy(kModel, folder / "model");
  std::string config = text_of(folder / "model/config.json");
  const std::string positions = "\"max_position_embeddings\": ";
  config.replace(config.find(positions + "512"), positions.size() + 3, positions + "8192");
  write_text(folder / "model/config.json", config);
  Answerer answerer({.load_from = folder / "model"}, {.threads = 1, .dtype = "f32", .device = "cpu"}, {});
  const std::atomic<int> stop{1};  // that there is room is what counts
  for (int64_t length = 1; length <= 32; ++length)
    EXPECT_TRUE(answerer
                    .answer(
                        {{"user", std::string(static_cast<size_t>(length), 'z')}}, greedy(1'000'000), 1, 0,
                        [](std::string_view) {}, &stop)
                    .interrupted);
}

// Every turn sees the whole talk, but computes what is new of it.
TEST(Answerer, ALaterTurnIsTheSameAnswerWithLessComputed) {
  TinyAnswerer answerer;
  std::vector<ChatMessage> talk{{"system", "Be brief."}};
  int64_t length = 0;
  for (const char* question : {"Hello", "And then?", "你好", "Why is that so, and what follows from it?"}) {
    talk.push_back({"user", question});
    const Answered got = answerer.answer(talk, greedy(20), 1, 0, [](std::string_view) {});
    TinyAnswerer fresh;
    const Answered want = fresh.answer(talk, greedy(20), 1, 0, [](std::string_view) {});
    EXPECT_EQ(got.text, want.text);
    EXPECT_EQ(got.tokens, want.tokens);
    if (length == 0)
      EXPECT_EQ(got.computed, want.computed);
    else
      EXPECT_LE(got.computed, want.computed - length);
    length = want.computed;
    talk.push_back({"assistant", got.text});
  }
}

TEST(Answerer, StyleFollowsTheWeightsName) {
  ChatOptions options;
  EXPECT_FALSE(style_of(options).plain);
  EXPECT_FALSE(style_of(options).thinking.has_value());
  options.model.weight = "reason";
  EXPECT_EQ(style_of(options).thinking, true);
  options.thinking = false;
  EXPECT_EQ(style_of(options).thinking, false);
  options.model.weight = "pretrain";
  EXPECT_TRUE(style_of(options).plain);
  TinyAnswerer thinks({.thinking = true}), plain({.plain = true});
  EXPECT_TRUE(thinks.opens_thinking({{"user", "x"}}));
  EXPECT_FALSE(TinyAnswerer().opens_thinking({{"user", "x"}}));
  EXPECT_NE(plain.answer({{"user", "x"}}, greedy(20), 1, 0, [](std::string_view) {}).text,
            TinyAnswerer().answer({{"user", "x"}}, greedy(20), 1, 0, [](std::string_view) {}).text);
}

// ---- generate -------------------------------------------------------------------------------------------------------

// Positions beyond the cache's usual size, all of them asked for; an end-of-sequence token ends the answers.
TEST(Generate, AnAnswerMayFillTheModelsPositions) {
  ScratchFolder folder;
  std::filesystem::copy(kModel, folder / "model");
  std::string config = text_of(folder / "model/config.json");
  const std::string positions = "\"max_position_embeddings\": ";
  config.replace(config.find(positions + "512"), positions.size() + 3, positions + "40000");
  write_text(folder / "model/config.json", config);
  const auto generate = [&](int64_t letters, int64_t new_tokens) {
    return call({"generate", "--model", folder / "model", "--prompt", std::string(static_cast<size_t>(letters), 'z'),
                 "--max-new-tokens", std::to_string(new_tokens), "--temperature", "3", "--dtype", "f32", "--threads",
                 "2", "--count", letters % 2 == 0 ? "3" : "1"});
  };
  const Ended refused = generate(1, 40000);
  EXPECT_EQ(refused.code, 1);
  const std::string reason = " exceed the model's 40000 positions";
  ASSERT_NE(refused.err.find(reason), std::string::npos) << refused.err;
  const std::string prompt_of = "a prompt of ";
  const auto at = refused.err.find(prompt_of);
  const int64_t before = std::stoll(refused.err.substr(at + prompt_of.size())) - 1;  // every letter is a token
  for (const int64_t letters : {1, 14, 15}) {
    const Ended ended = generate(letters, 40000 - before - letters);
    EXPECT_EQ(ended.code, 0) << ended.err;
    EXPECT_NE(generate(letters, 40001 - before - letters).err.find(reason), std::string::npos);
  }
}

// ---- the command ----------------------------------------------------------------------------------------------------

std::vector<std::string> chat(const std::vector<std::string>& more = {}) {
  std::vector<std::string> words{"chat", "--load_from", kModel, "--temperature", "0", "--max_new_tokens",
                                 "24",   "--dtype",     "f32",  "--threads",     "1", "--show_speed",
                                 "0"};
  words.insert(words.end(), more.begin(), more.end());
  return words;
}

std::string generated(const std::string& prompt, const std::vector<std::string>& more = {}) {
  std::vector<std::string> words{
      "generate", "--model",          kModel, "--chat",  "--prompt", prompt,      "--temperature",
      "0",        "--max-new-tokens", "24",   "--dtype", "f32",      "--threads", "1"};
  words.insert(words.end(), more.begin(), more.end());
  return call(words).out;
}

TEST(Chat, EveryLineIsATurnAndAnswersGoToStdout) {
  const Ended ended = call(chat({"--historys", "0"}), "Hello\n\nHello\r\n");
  EXPECT_EQ(ended.code, 0) << ended.err;
  EXPECT_EQ(ended.err, "");
  const std::string answer = generated("Hello");
  EXPECT_NE(answer, "\n");
  EXPECT_EQ(ended.out, answer + answer);
}

TEST(Chat, RemembersTheTalkUntilItIsToldOtherwise) {
  ScratchFolder folder;
  const std::string first = generated("Hello");
  const Ended ended =
      call(chat(), "Hello\nHello\n/clear\nHello\n/regen\n/save " + (folder / "talk.jsonl").string() + "\n");
  EXPECT_EQ(ended.code, 0) << ended.err;
  ASSERT_TRUE(ended.out.starts_with(first)) << ended.out;
  ASSERT_TRUE(ended.out.ends_with(first + first)) << ended.out;
  const std::string second = ended.out.substr(first.size(), ended.out.size() - 3 * first.size());
  EXPECT_NE(second, first);  // it saw the first turn
  const Json talk = parse_json(text_of(folder / "talk.jsonl"), "talk");
  ASSERT_EQ(talk["conversations"].size(), 2u);
  EXPECT_EQ(talk["conversations"][0], Json({{"role", "user"}, {"content", "Hello"}}));
  EXPECT_EQ(talk["conversations"][1]["role"], "assistant");
  EXPECT_EQ(talk["conversations"][1]["content"].get<std::string>() + "\n", first);
}

TEST(Chat, SystemPromptAndSettingsChangeTheAnswer) {
  const Ended ended = call(chat({"--system", "Be kind."}),
                           "Hello\n/system Be rude.\nHello\n/system\nHello\n"
                           "/set max-new-tokens 5\n/clear\nHello\n//help\n");
  EXPECT_EQ(ended.code, 0) << ended.err;
  const std::string kind = generated("Hello", {"--system", "Be kind."}),
                    rude = generated("Hello", {"--system", "Be rude."});
  const std::string none = generated("Hello");
  EXPECT_NE(kind, rude);
  EXPECT_TRUE(ended.out.starts_with(kind + rude + none)) << ended.out;
  std::string fewer = ended.out.substr((kind + rude + none).size());
  fewer = fewer.substr(0, fewer.find('\n'));
  EXPECT_LT(fewer.size(), none.size());
  EXPECT_TRUE(none.starts_with(fewer.substr(0, 1)));
  EXPECT_EQ(ended.err.find("Ctrl-C"), std::string::npos) << "//help is a message, no command";
}

TEST(Chat, MistakesAreAnsweredAndTheTalkGoesOn) {
  const Ended ended =
      call(chat(), "/hlep\n/set temprature 1\n/set temperature hot\n/set top_p 7\n/regen\n/save\n/save x\n" +
                       std::string(3000, 'z') + "\nHello\n/exit\nHello\n");
  EXPECT_EQ(ended.code, 0);
  EXPECT_EQ(ended.out, generated("Hello"));
  for (const char* part : {"/hlep: no such command; did you mean '/help'?", "did you mean 'temperature'?",
                           "expected a number, found string \"hot\"", "top_p is 7", "/regen: nothing has been said yet",
                           "/save: expected a file", "/save: nothing has been said yet", "the model's context is 512"})
    EXPECT_NE(ended.err.find(part), std::string::npos) << part << " in:\n" << ended.err;
  EXPECT_EQ(std::ranges::count(ended.err, '\n'), 8) << ended.err;
}

TEST(Chat, CtrlCTwiceLeavesAndALineBetweenThemStartsAnew) {
  Command command(chat());
  for (int i = 1; i <= 2; ++i) {
    command.write("/clear\n");
    command.wait_for_err("forgotten", i);
    command.signal(SIGINT);
    command.wait_for_err("(Ctrl-C again leaves)", i);
  }
  command.signal(SIGINT);
  EXPECT_EQ(command.wait_for_end(), 130);
}

TEST(Chat, AWrongModelIsOneClearLine) {
  ScratchFolder folder;
  std::filesystem::create_directories(folder / "out");
  std::filesystem::create_directories(folder / "model");
  std::filesystem::create_directories(folder / "hf");
  const auto refused = [&](const std::vector<std::string>& more, const std::string& about) {
    std::vector<std::string> words{"chat"};
    words.insert(words.end(), more.begin(), more.end());
    const Ended ended = call(words, "", folder.path());
    EXPECT_EQ(ended.code, 1);
    EXPECT_EQ(std::ranges::count(ended.err, '\n'), 1) << ended.err;
    EXPECT_NE(ended.err.find(about), std::string::npos) << ended.err;
  };
  refused({"--load_from", "nowhere"}, "nowhere: no such model folder or .gguf file");
  refused({"--load_from", "hf"}, "hf: holds neither config.json");
  write_text(folder / "hf/config.json", "{}");
  refused({"--load_from", "hf"}, "hf: neither model.safetensors nor");
  std::filesystem::copy(kModel + "/tokenizer.json", folder / "model/tokenizer.json");
  refused({},
          "out/full_sft_512.pth: no such weights (chosen by --save_dir, --weight, --hidden_size and --use_moe); out "
          "holds no .pth file");
  write_text(folder / "out/dpo_640_moe.pth", "");
  refused({"--weight", "dpo", "--hidden_size", "640"}, "out/dpo_640.pth: no such weights");
  refused({"--weight", "dpo", "--hidden_size", "640"}, "out holds dpo_640_moe.pth");
  refused({"--load_from", kModel, "--lora_weight", "medical"},
          "out/lora/medical_32.pth: no such weights (chosen by --lora_weight)");
  for (const std::string device : {"moon", "meta"})
    refused({"--load_from", kModel, "--device", device}, "--device: device '" + device + "', expected \"cpu\"");
  if (!at::hasCUDA()) refused({"--load_from", kModel, "--device", "cuda"}, "--device: device 'cuda', but");
}

// ---- eval's talks ---------------------------------------------------------------------------------------------------

TEST(Eval, AsksForItsModeAndAnswersEachPromptAlone) {
  const std::vector<std::string> words{"eval", "--load_from", kModel, "--max_new_tokens", "8", "--threads",
                                       "1",    "--dtype",     "f32",  "--show_speed",     "0"};
  const Ended automatic = call(words, "0\n");
  EXPECT_EQ(automatic.code, 0) << automatic.err;
  const auto prompts = [](const std::string& out) {
    std::vector<size_t> found;
    for (size_t at = out.find("\n> "); at != out.npos; at = out.find("\n> ", at + 1)) found.push_back(at);
    return found;
  };
  EXPECT_EQ(prompts(automatic.out).size(), 8u) << automatic.out;
  EXPECT_EQ(call(words, "0\n").out, automatic.out);  // seeded
  const Ended manual = call(words, "1\nHello\nHello\n\nnot read\n");
  EXPECT_EQ(manual.code, 0) << manual.err;
  const std::vector<size_t> found = prompts(manual.out);
  ASSERT_EQ(found.size(), 2u) << manual.out;
  EXPECT_EQ(manual.out.substr(found[0], found[1] - found[0]) + "\n", manual.out.substr(found[1]));
}

}  // namespace
}  // namespace troupe
