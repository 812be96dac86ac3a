// What a model can do: answers to fixed prompts, perplexity of a text, share of multiple-choice questions.
#include <unistd.h>

#include <array>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <iostream>

#include "core/config.hpp"
#include "core/generate/sampler.hpp"
#include "core/io/disk.hpp"
#include "roles/answering.hpp"
#include "roles/multiple_choice.hpp"
#include "roles/perplexity.hpp"
#include "roles/think_display.hpp"

namespace troupe {
namespace {

// What the model is good at; why the sky is blue; Fibonacci in Python; photosynthesis; rain tomorrow; cats and dogs;
// what machine learning is; Chinese dishes.
constexpr std::array kAutomaticPrompts = {
    "请介绍一下你自己，你最擅长做什么？",
    "天空为什么看起来是蓝色的？",
    "请用 Python 写一个函数，计算斐波那契数列的第 n 项",
    "请说明“光合作用”大致是怎样进行的",
    "要是明天下雨，我该怎么安排出门？",
    "作为宠物，猫和狗各有哪些长处和短处？",
    "请解释机器学习是什么",
    "请推荐几道有名的中国菜",
};

// Whether somebody sits there: then questions are shown, and what is typed is on the screen already.
bool person() {
  return isatty(STDIN_FILENO) != 0;
}

EvalMode asked_mode() {
  if (person()) std::cout << "0: the automatic test, 1: your own prompts > " << std::flush;
  std::string line;
  std::getline(std::cin, line);
  while (!line.empty() && (line.back() == '\r' || line.back() == ' ')) line.pop_back();
  if (line == "0") return EvalMode::kAutomatic;
  if (line == "1") return EvalMode::kManual;
  throw std::runtime_error("expected 0 (automatic test) or 1 (own prompts) on stdin, found \"" + line +
                           "\"; --mode auto and --mode manual say it without asking");
}

class Interview {
 public:
  explicit Interview(const ChatOptions& options)
      : options_(options), answerer_(options.model, options.compute, style_of(options)) {
    if (options.historys < 0 || options.historys % 2 != 0)
      throw std::invalid_argument("--historys: " + std::to_string(options.historys) +
                                  ", expected an even number of messages, 0 or more");
    std::cout << answerer_.description() << '\n';
  }

  void automatic() {
    for (const char* prompt : kAutomaticPrompts) {
      std::cout << "> " << prompt << '\n';
      answer(prompt);
    }
  }

  void manual() {
    std::string line;
    while (true) {
      if (person()) std::cout << "> " << std::flush;
      if (!std::getline(std::cin, line)) return;
      if (!line.empty() && line.back() == '\r') line.pop_back();
      if (line.empty()) return;
      if (!person()) std::cout << "> " << line << '\n';
      answer(line);
    }
  }

 private:
  void answer(const std::string& prompt) {
    if (talk_.size() > static_cast<size_t>(options_.historys))
      talk_.erase(talk_.begin(), talk_.end() - static_cast<std::ptrdiff_t>(options_.historys));
    talk_.push_back({"user", prompt});
    std::vector<ChatMessage> messages = talk_;
    if (options_.system) messages.insert(messages.begin(), {"system", *options_.system});
    ThinkDisplay display(options_.dim, options_.dim && answerer_.opens_thinking(messages));
    // Every prompt is drawn for with the same random numbers, as if it were the only one.
    const Answered answered =
        answerer_.answer(messages, options_.sampling, options_.seed, 0,
                         [&](std::string_view piece) { std::cout << display.push(piece) << std::flush; });
    std::cout << display.end() << '\n';
    if (options_.show_speed) std::cout << speed_line(answered) << '\n';
    std::cout << std::endl;
    talk_.push_back({"assistant", answered.text});
  }

  const ChatOptions options_;
  Answerer answerer_;
  std::vector<ChatMessage> talk_;
};

// ---- figures --------------------------------------------------------------------------------------------------------

void write_figures(const std::filesystem::path& file, const OrderedJson& figures) {
  if (!file.empty()) write_file_atomically(real_disk(), file, figures.dump(2) + "\n");
}

// Before a long measurement is lost to it.
void require_output(const std::filesystem::path& file) {
  if (file.empty()) return;
  const std::filesystem::path aside = file.string() + ".tmp";  // where write_figures() begins
  const bool written = !std::filesystem::is_directory(file) && std::ofstream(aside);
  std::error_code none;
  std::filesystem::remove(aside, none);
  if (!written) throw std::runtime_error("--output: " + file.string() + " cannot be written");
}

const std::filesystem::path& required_data(const EvalOptions& options) {
  if (options.data.empty()) throw std::invalid_argument("--data: needed with --mode perplexity and --mode choice");
  return options.data;
}

std::optional<int32_t> bos_of(const EvalOptions& options, const ChosenModel& model) {
  if (!options.bos) return std::nullopt;
  if (const auto bos = model.tokenizer.bos_id()) return bos;
  if (model.config.bos_token >= 0) return static_cast<int32_t>(model.config.bos_token);
  throw std::invalid_argument("--bos: " + model.origin.string() + " has no bos token");
}

void perplexity(const EvalOptions& options) {
  const auto& data = required_data(options);
  require_output(options.output);
  const ChosenModel model = choose_model(options.chat.model, compute_dtype(options.chat.compute));
  const int64_t context = context_length(model.config);
  WindowOptions windows;
  windows.max_length = options.max_length > 0 ? options.max_length : std::min<int64_t>(context, 2048);
  windows.stride = options.stride > 0 ? options.stride : windows.max_length / 2;
  windows.bos = bos_of(options, model);
  if (windows.max_length < 2 || windows.max_length > context)
    throw std::invalid_argument("--max-length: " + std::to_string(windows.max_length) +
                                ", expected 2 to the model's context of " + std::to_string(context));
  if (windows.stride >= windows.max_length)
    throw std::invalid_argument("--stride: " + std::to_string(windows.stride) + ", expected less than --max-length " +
                                std::to_string(windows.max_length));
  const auto engine = make_engine(model, options.chat.compute);
  const PerplexityResult found = measure_perplexity(*engine, model.tokenizer, data, windows);
  std::printf(
      "%s on %s\nperplexity %.4f (mean loss %.6f) over %lld of %lld tokens, %lld texts, %lld windows of %lld by %lld\n",
      model.origin.c_str(), data.c_str(), found.perplexity(), found.mean_loss(), static_cast<long long>(found.scored),
      static_cast<long long>(found.tokens), static_cast<long long>(found.texts), static_cast<long long>(found.windows),
      static_cast<long long>(windows.max_length), static_cast<long long>(windows.stride));
  write_figures(options.output, {{"model", model.origin.string()},
                                 {"data", data.string()},
                                 {"perplexity", found.perplexity()},
                                 {"mean_loss", found.mean_loss()},
                                 {"log_likelihood", found.log_likelihood},
                                 {"tokens_scored", found.scored},
                                 {"tokens", found.tokens},
                                 {"texts", found.texts},
                                 {"windows", found.windows},
                                 {"max_length", windows.max_length},
                                 {"stride", windows.stride},
                                 {"dtype", options.chat.compute.dtype}});
}

OrderedJson figures_of(const Accuracy& a) {
  return {
      {"questions", a.questions}, {"right", a.right}, {"accuracy", a.share()}, {"low", a.low()}, {"high", a.high()}};
}

void print_accuracy(const std::string& name, const Accuracy& a, const std::string& remark = "") {
  std::printf("%-40s %6lld of %6lld  %6.2f %%  (95 %%: %.2f to %.2f)%s\n", name.c_str(),
              static_cast<long long>(a.right), static_cast<long long>(a.questions), 100 * a.share(), 100 * a.low(),
              100 * a.high(), remark.c_str());
  std::fflush(stdout);
}

ChoiceOptions choice_options(const EvalOptions& options, const ChosenModel& model, ChoiceLayout layout) {
  const bool chinese = layout == ChoiceLayout::kCEval || layout == ChoiceLayout::kCmmlu;
  ChoiceOptions out;
  out.options = options.score == "options";
  out.space = options.letters == "auto" ? !chinese : options.letters == "space";
  out.normalise = options.normalise;
  out.cue = !options.cue.empty() ? options.cue : chinese ? "答案：" : "Answer:";
  out.bos = bos_of(options, model);
  out.context = context_length(model.config);
  return out;
}

void multiple_choice(const EvalOptions& options) {
  require_output(options.output);
  const ChoiceData data = read_choice_data(required_data(options), options.split, options.shots);
  const ChosenModel model = choose_model(options.chat.model, compute_dtype(options.chat.compute));
  const ChoiceOptions how = choice_options(options, model, data.layout);
  const auto engine = make_engine(model, options.chat.compute);
  std::printf("%s on %s: %s, %lld examples, by %s, %s space before it, cue \"%s\"\n", model.origin.c_str(),
              options.data.c_str(), choice_layout_name(data.layout), static_cast<long long>(options.shots),
              how.options ? "the options' texts" : "letter", how.space ? "a" : "no", how.cue.c_str());
  Accuracy total;
  double chance = 0, sum_of_shares = 0;
  OrderedJson subjects = OrderedJson::array();
  const auto results = answer_choices(*engine, model.tokenizer, data, how, [&](const SubjectAccuracy& subject) {
    print_accuracy(subject.name, subject.accuracy,
                   subject.examples_left_out == 0
                       ? ""
                       : "; examples left out for want of room: " + std::to_string(subject.examples_left_out));
  });
  for (const SubjectAccuracy& subject : results) {
    total.questions += subject.accuracy.questions;
    total.right += subject.accuracy.right;
    sum_of_shares += subject.accuracy.share();
    OrderedJson figures{{"name", subject.name}};
    figures.update(figures_of(subject.accuracy));
    figures["examples_left_out"] = subject.examples_left_out;
    subjects.push_back(std::move(figures));
  }
  for (const ChoiceSubject& subject : data.subjects)
    for (const ChoiceQuestion& question : subject.questions)
      chance += 1.0 / static_cast<double>(question.options.size());
  chance /= static_cast<double>(total.questions);
  const double mean_of_subjects = sum_of_shares / static_cast<double>(results.size());
  print_accuracy("total", total);
  std::printf("mean of the subjects %.2f %%, chance %.2f %%\n", 100 * mean_of_subjects, 100 * chance);
  write_figures(options.output, {{"model", model.origin.string()},
                                 {"data", options.data.string()},
                                 {"layout", choice_layout_name(data.layout)},
                                 {"score", options.score},
                                 {"space_before_candidate", how.space},
                                 {"normalised_by_length", how.normalise},
                                 {"cue", how.cue},
                                 {"shots", options.shots},
                                 {"dtype", options.chat.compute.dtype},
                                 {"total", figures_of(total)},
                                 {"mean_of_subjects", mean_of_subjects},
                                 {"chance", chance},
                                 {"subjects", subjects}});
}

}  // namespace

int eval_command(const EvalOptions& options) {
  switch (options.mode == EvalMode::kAsk ? asked_mode() : options.mode) {
    case EvalMode::kAsk:
    case EvalMode::kAutomatic:
      Interview(options.chat).automatic();
      break;
    case EvalMode::kManual:
      Interview(options.chat).manual();
      break;
    case EvalMode::kPerplexity:
      perplexity(options);
      break;
    case EvalMode::kChoice:
      multiple_choice(options);
      break;
  }
  return 0;
}

}  // namespace troupe
