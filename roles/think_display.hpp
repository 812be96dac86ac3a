// Shows what a model thinks (between <think> and </think>) dimmed, in text that comes in pieces.
#pragma once

#include <string>
#include <string_view>

namespace troupe {

class ThinkDisplay {
 public:
  // dim false: the text passes as it is. `thinking`: it begins inside of a thought.
  ThinkDisplay(bool dim, bool thinking);

  // What to write now; the beginning of what may become a tag is held back.
  std::string push(std::string_view piece);
  // The rest, and normal brightness.
  std::string end();

 private:
  const bool dim_;
  bool thinking_;
  bool begun_ = false;
  std::string held_;
};

}  // namespace troupe
