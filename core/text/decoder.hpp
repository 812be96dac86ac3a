// From tokens back to text: what tokenizer.json's "decoder" says.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace troupe {

struct DecoderRules {
  // Texts replaced in each token, in order ("▁" -> " ").
  std::vector<std::pair<std::string, std::string>> replacements;
  bool byte_level = false;     // tokens are spelled in the byte-level alphabet
  bool byte_fallback = false;  // tokens <0x00>..<0xFF> are bytes
  std::string strip_text;      // up to strip_count of these are taken from the front of the whole text
  size_t strip_count = 0;
};

// Decodes one sequence of tokens piece by piece. What push() and the final flush() return, joined, is the text.
// One thread at a time. The rules outlive the stream.
class DecoderStream {
 public:
  explicit DecoderStream(const DecoderRules& rules);

  // The text that became certain with this token; well-formed UTF-8.
  std::string push(std::string_view token);
  // What is still held back, incomplete characters as U+FFFD. The stream then starts anew.
  std::string flush();

 private:
  std::string take_ready(bool is_end);
  void end_byte_run();
  std::string stripped(std::string text);

  const DecoderRules& rules_;
  std::string held_;      // bytes that may be the start of a character
  std::string byte_run_;  // neighbouring byte tokens: text only if all together are UTF-8
  size_t strips_left_;
};

}  // namespace troupe
