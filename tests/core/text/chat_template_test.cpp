// Chat templates rendered as transformers renders them (tests/oracles/text), and what bounds them.
#include "core/text/chat_template.hpp"

#include <gtest/gtest.h>

#include "core/io/sha256.hpp"
#include "tests/core/text/fixtures.hpp"

namespace troupe {
namespace {

std::vector<ChatMessage> messages_of(const nlohmann::json& list) {
  std::vector<ChatMessage> messages;
  for (const auto& message : list) messages.push_back({message["role"], message["content"]});
  return messages;
}

TemplateVariables variables_of(const nlohmann::json& object) {
  TemplateVariables variables;
  for (const auto& [name, value] : object.items()) {
    if (value.is_boolean()) variables[name] = value.get<bool>();
    if (value.is_number_integer()) variables[name] = value.get<int64_t>();
    if (value.is_number_float()) variables[name] = value.get<double>();
    if (value.is_string()) variables[name] = value.get<std::string>();
  }
  return variables;
}

// 9 March 2024, 07:05:03, a Saturday: the clock of the oracle.
ChatTemplateOptions with_fixed_clock() {
  ChatTemplateOptions options;
  options.now = [] {
    std::tm time{};
    time.tm_year = 124;
    time.tm_mon = 2;
    time.tm_mday = 9;
    time.tm_wday = 6;
    time.tm_hour = 7;
    time.tm_min = 5;
    time.tm_sec = 3;
    return time;
  };
  return options;
}

std::string render(const std::string& source, const std::vector<ChatMessage>& messages = {},
                   const TemplateVariables& variables = {}) {
  return ChatTemplate(source, "<s>", "</s>", with_fixed_clock()).render(messages, true, variables);
}

std::string error_of(const std::string& source) {
  try {
    render(source, {{"user", "hi"}});
  } catch (const std::exception& error) {
    return error.what();
  }
  return "no error";
}

TEST(ChatTemplate, RendersTheFamiliesAsTransformersDoes) {
  for (const auto& oracle : read_oracle("chat_templates.json")) {
    const ChatTemplate chat_template(oracle["source"], oracle["bos"], oracle["eos"], with_fixed_clock());
    for (const auto& expected : oracle["cases"]) {
      const auto messages = messages_of(expected["messages"]);
      const bool prompt = expected["add_generation_prompt"];
      const auto variables = variables_of(expected["variables"]);
      if (expected.contains("text")) {
        EXPECT_EQ(chat_template.render(messages, prompt, variables), expected["text"]) << oracle["name"];
        continue;
      }
      try {
        chat_template.render(messages, prompt, variables);
        ADD_FAILURE() << oracle["name"] << " did not raise " << expected["error"];
      } catch (const std::runtime_error& error) {
        EXPECT_NE(std::string(error.what()).find(expected["error"].get<std::string>()), std::string::npos)
            << error.what();
      }
    }
  }
}

TEST(ChatTemplate, RendersEachConstructAsJinjaDoes) {
  const nlohmann::json oracle = read_oracle("snippets.json");
  const auto messages = messages_of(oracle["messages"]);
  const auto variables = variables_of(oracle["variables"]);
  for (const auto& expected : oracle["cases"]) {
    const std::string source = expected["source"];
    if (expected.contains("error")) {
      EXPECT_ANY_THROW(render(source, messages, variables)) << source << "\n" << expected["error"];
      continue;
    }
    try {
      EXPECT_EQ(render(source, messages, variables), expected["text"]) << source;
    } catch (const std::exception& error) {
      ADD_FAILURE() << source << "\n" << error.what();
    }
  }
}

// The digest is that of what transformers renders with MiniMind's own files.
TEST(ChatTemplate, TakesToolsAndFurtherFieldsAsJson) {
  const Tokenizer minimind =
      Tokenizer::from_folder(std::filesystem::path(TROUPE_SOURCE_DIR) / "tests/oracles/data/text/minimind");
  const TemplateVariables tools = {
      {"tools", JsonText{R"([{"type":"function","function":{"name":"f","description":"d","parameters":)"
                         R"({"type":"object","properties":{"x":{"type":"string"}}}}}])"}}};
  const std::vector<ChatMessage> question = {{"user", "hi", ""}};
  const std::string text = minimind.chat_template().render(question, true, tools);
  EXPECT_EQ(text.size(), 596u);
  Sha256 digest;
  digest.update(text);
  EXPECT_EQ(digest.finish_hex(), "93e20f01daf6bf39f6d1b932f63036f1d6736314d130db6a2d2a23458bc939cc");

  const ChatTemplate fields("{% for m in messages %}{{ m.a | tojson }}{{ m.role }}{{ m.b is defined }}{% endfor %}", "",
                            "");
  const std::vector<ChatMessage> chat = {{"user", "x", R"({"a": {"z": [1, 2.5, null], "b": "<s>é"}, "role": "fake"})"}};
  const RenderedChat rendered = fields.render_marked(chat, false);
  EXPECT_EQ(rendered.text, R"({"z": [1, 2.5, null], "b": "<s>é"}userFalse)");
  EXPECT_EQ(rendered.trusted.find('\1'), rendered.text.find("False"));
  for (const char* wrong : {"{", "[]", "5", "{\"a\": \"\xFF\"}"}) {
    const std::vector<ChatMessage> broken = {{"user", "x", wrong}};
    EXPECT_THROW(fields.render(broken, false), std::invalid_argument) << wrong;
  }
  const TemplateVariables deep = {{"tools", JsonText{std::string(100'000, '[') + std::string(100'000, ']')}}};
  EXPECT_THROW(fields.render(question, false, deep), std::invalid_argument);
}

TEST(ChatTemplate, NamesTheUnsupportedConstructAndItsLine) {
  EXPECT_EQ(error_of("a\n{% include 'x' %}"), "chat template line 2: the statement 'include' is not supported here");
  EXPECT_EQ(error_of("\n\n{{ x | pprint }}"), "chat template line 3: the filter 'pprint' is not supported");
  EXPECT_EQ(error_of("{{ x is\n callable }}"), "chat template line 1: the test 'callable' is not supported");
  EXPECT_EQ(error_of("{% if x %}\n{{ 'a'.format(1) }}\n{% endif %}{{ 'x'.zfill(3) }}"),
            "chat template line 3: the method 'zfill' is not supported");
  EXPECT_EQ(error_of("{{ lipsum() }}"), "chat template line 1: the function 'lipsum' is not supported");
  EXPECT_EQ(error_of("\n{{ raise_exception('Roles must alternate') }}"), "chat template line 2: Roles must alternate");
}

TEST(ChatTemplate, ReachesNothingButItsValues) {
  for (const char* source : {"{{ ''.__class__ }}", "{{ messages.__init__ }}", "{{ messages[0].__class__.__mro__ }}",
                             "{{ namespace.__globals__ }}", "{{ self }}", "{{ config }}", "{{ request }}"}) {
    const std::string result = error_of(source);
    EXPECT_TRUE(result == "no error" || result.starts_with("chat template line 1: ")) << source << " " << result;
  }
  EXPECT_EQ(render("{{ ''.__class__ }}{{ self }}{{ namespace.__globals__ }}"), "");
}

TEST(ChatTemplate, MarksWhatTheCallerWrote) {
  const ChatTemplate chat_template(
      "<{{ messages[0].role }}>{{ messages[0].content | trim | replace('x', 'TT') }}{{ v }}{{ n }}", "", "");
  const RenderedChat chat = chat_template.render_marked(std::vector<ChatMessage>{{"user", " axb "}}, false,
                                                        {{"v", std::string("yy")}, {"n", int64_t{12}}});
  EXPECT_EQ(chat.text, "<user>aTTbyy12");
  std::string marks;
  for (const char mark : chat.trusted) marks += mark ? '1' : '0';
  EXPECT_EQ(marks,
            "1"
            "0000"
            "1"
            "0"
            "11"
            "0"
            "00"
            "11");
}

TEST(ChatTemplate, KeepsTheMarkThroughEveryOperation) {
  for (const char* expression : {"c",
                                 "c|upper",
                                 "c|lower",
                                 "c|capitalize",
                                 "c|title",
                                 "c|tojson",
                                 "[c]|join",
                                 "c[0]",
                                 "c[1:]",
                                 "c[::-1]",
                                 "c|list|join",
                                 "c|reverse",
                                 "c|first",
                                 "c|last",
                                 "c.split('b')[0]",
                                 "c.strip()",
                                 "c.rstrip('d')",
                                 "[c]",
                                 "{'k': c}",
                                 "{c: 1}",
                                 "c ~ ''",
                                 "c * 2",
                                 "c|string",
                                 "c|trim",
                                 "c.rsplit('b', 1)[1]",
                                 "c.splitlines()[0]",
                                 "c|default('x')",
                                 "[c]|map('upper')|first",
                                 "c|indent(0)",
                                 "c.removeprefix('a')",
                                 "c.upper()",
                                 "(c,)|tojson",
                                 "messages|tojson",
                                 "messages|map(attribute='content')|join"}) {
    const std::string source = std::string("{% set c = messages[0].content %}{{ ") + expression + " }}";
    const RenderedChat chat =
        ChatTemplate(source, "", "").render_marked(std::vector<ChatMessage>{{"user", "abcd"}}, false);
    ASSERT_FALSE(chat.text.empty()) << expression;
    for (size_t i = 0; i < chat.text.size(); ++i) {
      const bool is_letter = std::isalpha(static_cast<unsigned char>(chat.text[i]));
      const bool is_callers = is_letter && std::string("abcdABCD").find(chat.text[i]) != std::string::npos;
      EXPECT_TRUE(!is_callers || chat.trusted[i] == 0) << expression << " byte " << i;
    }
  }
}

TEST(ChatTemplate, TakesBrokenUtf8AsReplacementCharacters) {
  EXPECT_EQ(render("{{ messages[0].content }}|{{ messages[0].content|length }}", {{"user", "a\xFF\xC3"}}),
            "a\xEF\xBF\xBD\xEF\xBF\xBD|3");
}

TEST(ChatTemplate, LeavesAnAbsentBosUndefined) {
  EXPECT_EQ(ChatTemplate("{{ bos_token is defined }}{{ bos_token }}", "", "").render({}, false), "False");
}

TEST(ChatTemplate, StopsWhatRunsTooLong) {
  const char* expected = "chat template line 1: the template takes too many steps";
  EXPECT_EQ(error_of("{% for a in range(9999) %}{% for b in range(9999) %}{% for c in range(9999) %}{% endfor %}{% "
                     "endfor %}{% endfor %}"),
            expected);
  EXPECT_EQ(
      error_of("{% set ns = namespace(x='ab') %}{% for a in range(9999) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}"),
      expected);
  EXPECT_EQ(error_of("{{ 'x' * 10**12 }}"), "chat template line 1: a text grows past 67108864 bytes");
  EXPECT_EQ(error_of("{{ ('x' * 10**7).replace('x', 'y' * 10**7) }}"),
            "chat template line 1: a text grows past 67108864 bytes");
  EXPECT_EQ(error_of("{{ range(10**9) }}"), "chat template line 1: range() of more than 100000 numbers");
  EXPECT_EQ(error_of("{% set ns = namespace(x=[]) %}{% for a in range(999) %}{% set ns.x = [ns.x] %}{% endfor %}"),
            "chat template line 1: lists or dictionaries nest too deeply");
  EXPECT_EQ(error_of("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"),
            "chat template line 1: the template nests too deeply");
  EXPECT_EQ(error_of("{% set ns = namespace(x=[1]) %}{% for a in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}"),
            expected);
  EXPECT_EQ(error_of("{% set x = ['y' * 10**6] * 2 %}"),
            "chat template line 1: '*' of a list and a int is not supported");
}

TEST(ChatTemplate, RefusesWhatNestsTooDeeply) {
  const auto repeated = [](const std::string& part, int count) {
    std::string text;
    for (int i = 0; i < count; ++i) text += part;
    return text;
  };
  for (const int count : {300, 20000}) {
    EXPECT_NE(error_of("{{ " + repeated("(", count) + "1" + repeated(")", count) + " }}"), "no error");
    EXPECT_NE(error_of("{{ " + repeated("-", count) + "1 }}"), "no error");
    EXPECT_NE(error_of("{{ " + repeated("not ", count) + "1 }}"), "no error");
    EXPECT_NE(error_of("{{ 1" + repeated(" + 1", count) + " }}"), "no error");
    EXPECT_NE(error_of("{{ a" + repeated("[0]", count) + " }}"), "no error");
    EXPECT_NE(error_of("{{ 1" + repeated(" if 1 else 1", count) + " }}"), "no error");
    EXPECT_NE(error_of(repeated("{% if 1 %}", count) + repeated("{% endif %}", count)), "no error");
    EXPECT_NE(error_of("{{ " + repeated("[", count) + repeated("]", count) + " }}"), "no error");
  }
  EXPECT_EQ(error_of("{{ 1" + repeated(" + 1", 100) + " }}"), "no error");
}

TEST(ChatTemplate, RendersALongChat) {
  const nlohmann::json oracle = read_oracle("chat_templates.json");
  std::vector<ChatMessage> messages;
  for (int i = 0; i < 2000; ++i)
    messages.push_back({i % 2 == 0 ? "user" : "assistant", std::string(500, 'x') + std::to_string(i)});
  for (const auto& family : oracle) {
    const ChatTemplate chat_template(family["source"], family["bos"], family["eos"]);
    EXPECT_GT(chat_template.render(messages, false).size(), size_t{1'000'000}) << family["name"];
  }
}

}  // namespace
}  // namespace troupe
