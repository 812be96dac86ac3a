#include "core/text/pre_tokenizer.hpp"

#include <algorithm>

#include "core/text/byte_level.hpp"
#include "core/text/unicode.hpp"

namespace troupe {
namespace {

struct Segment {
  Span span;
  bool is_match;
};

void push(std::vector<Segment>& segments, size_t begin, size_t end, bool is_match) {
  segments.push_back({{begin, end}, is_match});
}

// Covers the whole text with matches and what lies between them. An empty match cuts without taking anything.
std::vector<Segment> segments_of(const Regex& pattern, std::string_view text) {
  std::vector<Segment> segments;
  size_t covered = 0;
  size_t from = 0;
  Span match{};
  while (from <= text.size() && pattern.find(text, from, match)) {
    if (covered < match.begin) push(segments, covered, match.begin, false);
    push(segments, match.begin, match.end, true);
    covered = match.end;
    if (match.end > match.begin) {
      from = match.end;
    } else if (match.end < text.size()) {
      from = match.end + utf8_size(text.substr(match.end));
    } else {
      break;
    }
  }
  if (covered < text.size()) push(segments, covered, text.size(), false);
  return segments;
}

std::vector<Segment> number_segments_of(std::string_view text, bool individual) {
  std::vector<Segment> segments;
  for (size_t at = 0; at < text.size();) {
    const Utf8Step step = utf8_step(text.substr(at));
    const bool numeric = is_number(step.code_point);
    const bool joins = !segments.empty() && segments.back().is_match == numeric && !(numeric && individual);
    if (joins) {
      segments.back().span.end = at + step.size;
    } else {
      push(segments, at, at + step.size, numeric);
    }
    at += step.size;
  }
  return segments;
}

// Merges each match into the segment before it, unless that is a match as well.
std::vector<Segment> merged_with_previous(const std::vector<Segment>& segments) {
  std::vector<Segment> merged;
  bool previous_is_match = false;
  for (const Segment& segment : segments) {
    if (segment.is_match && !previous_is_match && !merged.empty()) {
      merged.back().span.end = segment.span.end;
    } else {
      push(merged, segment.span.begin, segment.span.end, false);
    }
    previous_is_match = segment.is_match;
  }
  return merged;
}

std::vector<Segment> merged_with_next(const std::vector<Segment>& segments) {
  std::vector<Segment> merged;
  bool next_is_match = false;
  for (auto segment = segments.rbegin(); segment != segments.rend(); ++segment) {
    if (segment->is_match && !next_is_match && !merged.empty()) {
      merged.back().span.begin = segment->span.begin;
    } else {
      push(merged, segment->span.begin, segment->span.end, false);
    }
    next_is_match = segment->is_match;
  }
  std::reverse(merged.begin(), merged.end());
  return merged;
}

std::vector<Segment> contiguous(const std::vector<Segment>& segments) {
  std::vector<Segment> merged;
  for (const Segment& segment : segments) {
    if (!merged.empty() && merged.back().is_match == segment.is_match) {
      merged.back().span.end = segment.span.end;
    } else {
      merged.push_back(segment);
    }
  }
  return merged;
}

std::vector<Segment> with_behavior(std::vector<Segment> segments, SplitBehavior behavior) {
  switch (behavior) {
    case SplitBehavior::kRemoved:
      std::erase_if(segments, [](const Segment& s) { return s.is_match; });
      return segments;
    case SplitBehavior::kIsolated:
      return segments;
    case SplitBehavior::kMergedWithPrevious:
      return merged_with_previous(segments);
    case SplitBehavior::kMergedWithNext:
      return merged_with_next(segments);
    case SplitBehavior::kContiguous:
      return contiguous(segments);
  }
  return segments;
}

// Replaces each piece by the parts that `cut` makes of it.
template <typename Cut>
void refine(Pieces& pieces, Cut cut) {
  std::vector<Span> refined;
  refined.reserve(pieces.spans.size());
  for (const Span& piece : pieces.spans) {
    const auto text = std::string_view(pieces.text).substr(piece.begin, piece.end - piece.begin);
    for (const Segment& part : cut(text)) {
      if (part.span.begin < part.span.end)
        refined.push_back({piece.begin + part.span.begin, piece.begin + part.span.end});
    }
  }
  pieces.spans = std::move(refined);
}

// Replaces the text of each piece by what `rewrite` appends for it.
template <typename Rewrite>
void rewrite_pieces(Pieces& pieces, size_t size_guess, Rewrite rewrite) {
  std::string text;
  text.reserve(size_guess);
  for (Span& piece : pieces.spans) {
    const size_t begin = text.size();
    rewrite(text, std::string_view(pieces.text).substr(piece.begin, piece.end - piece.begin));
    piece = {begin, text.size()};
  }
  pieces.text = std::move(text);
}

struct Apply {
  Pieces& pieces;

  void operator()(const SplitStep& step) const {
    refine(pieces, [&](std::string_view text) {
      std::vector<Segment> segments = segments_of(step.pattern, text);
      if (step.invert) {
        for (Segment& segment : segments) segment.is_match = !segment.is_match;
      }
      return with_behavior(std::move(segments), step.behavior);
    });
  }

  void operator()(const DigitsStep& step) const {
    refine(pieces, [&](std::string_view text) { return number_segments_of(text, step.individual); });
  }

  void operator()(const ByteLevelStep& step) const {
    if (step.add_prefix_space) {
      rewrite_pieces(pieces, pieces.text.size() + pieces.spans.size(), [](std::string& text, std::string_view piece) {
        if (piece.front() != ' ') text += ' ';
        text += piece;
      });
    }
    if (step.use_pattern) {
      static const Regex kPattern(kGpt2Pattern);
      refine(pieces, [&](std::string_view text) { return segments_of(kPattern, text); });
    }
    rewrite_pieces(pieces, pieces.text.size() * 5 / 4, append_byte_level);
  }
};

}  // namespace

Pieces PreTokenizer::split(std::string_view text) const {
  Pieces pieces{std::string(text), {}};
  if (!text.empty()) pieces.spans.push_back({0, text.size()});
  for (const PreTokenizerStep& step : steps_) std::visit(Apply{pieces}, step);
  return pieces;
}

}  // namespace troupe
