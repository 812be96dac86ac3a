// Mutated messages: each is either refused with a DecodeError or is a message that can be encoded again. Anything else
// (another exception, a crash, a sanitizer's finding) fails.
#include <gtest/gtest.h>

#include "tests/protocol/samples.hpp"
#include "tests/support/fuzz.hpp"

namespace troupe {
namespace {

void mutate_once(std::string& bytes, Random& random) {
  // Heads of every MessagePack kind, with claims of every size.
  static const std::vector<std::string> kHeads{"\xc0",
                                               "\xc1",
                                               "\xc2",
                                               "\xc3",
                                               std::string("\x00", 1),
                                               "\xff",
                                               "\xcf\xff\xff\xff\xff\xff\xff\xff\xff",
                                               "\xd3\x80",
                                               "\xdd\xff\xff\xff\xff",
                                               "\xdf\xff\xff\xff\xff",
                                               "\xdb\xff\xff\xff\xff",
                                               "\xdc\x10",
                                               "\xde\x01",
                                               "\xcb\x7f\xf8",
                                               "\x80",
                                               "\x90",
                                               "\xa0",
                                               "\xc6\xff\xff\xff\xff"};
  const std::size_t at = bytes.empty() ? 0 : random() % bytes.size();
  switch (random() % 7) {
    case 0:
      if (!bytes.empty()) bytes[at] = static_cast<char>(bytes[at] ^ (1 << (random() % 8)));
      break;
    case 1:
      if (!bytes.empty()) bytes[at] = static_cast<char>(random());
      break;
    case 2:
      bytes.resize(at);
      break;
    case 3:
      bytes.erase(at, random() % 9);
      break;
    case 4:
      bytes.insert(at, bytes.substr(at, random() % 17));
      break;
    case 5:
      bytes.insert(at, kHeads[random() % kHeads.size()]);
      break;
    default: {
      const std::string& head = kHeads[random() % kHeads.size()];
      bytes.replace(at, head.size(), head);
    }
  }
}

void mutate_frames(std::vector<Frame>& frames, Random& random) {
  switch (random() % 16) {
    case 0:
      frames.push_back(Frame::of("1234"));
      break;
    case 1:
      if (!frames.empty()) frames.pop_back();
      break;
    case 2:
      if (!frames.empty()) frames[0].bytes = frames[0].bytes.first(frames[0].bytes.size() / 2);
      break;
    default:
      break;
  }
}

struct Seed {
  std::string body;
  std::vector<Frame> attachments;
};

template <class M>
uint64_t refusals(uint64_t count, Random& random) {
  std::vector<Seed> seeds;
  for (int i = 0; i < 8; ++i) {
    const Encoded encoded = encode(sample<M>(random));
    seeds.push_back({std::string(encoded.body.text()), encoded.attachments});
  }
  uint64_t refused = 0;
  for (uint64_t i = 0; i < count; ++i) {
    Seed input = seeds[random() % seeds.size()];
    for (auto n = random() % 3 + 1; n > 0; --n) mutate_once(input.body, random);
    mutate_frames(input.attachments, random);
    try {
      const M message = decode<M>(Frame::of(std::move(input.body)), input.attachments);
      const Encoded again = encode(message);
      if (!same(decode<M>(again.body, again.attachments), message)) ADD_FAILURE() << "changed by a second round";
    } catch (const DecodeError&) {
      ++refused;
    }
  }
  return refused;
}

TEST(WireFuzz, MutatedMessagesAreRefusedOrWhole) {
  const uint64_t total = fuzz::inputs(200'000);
  Random random(fuzz::seed(7));
  uint64_t kinds = 0, refused = 0, done = 0;
  for_each_message(AllMessages{}, [&](auto) { ++kinds; });
  for_each_message(AllMessages{}, [&](auto kind) {
    refused += refusals<decltype(kind)>(total / kinds + 1, random);
    done += total / kinds + 1;
  });
  RecordProperty("inputs", static_cast<int>(done));
  EXPECT_GT(refused, done / 2);  // the mutations do bite
  EXPECT_LT(refused, done);      // and some leave a valid message
}

TEST(WireFuzz, MutatedEnvelopesNeverSurprisePeek) {
  Random random(fuzz::seed(8));
  const std::string valid(encode(sample<Envelope>(random)).body.text());
  for (uint64_t i = fuzz::inputs(20'000); i > 0; --i) {
    std::string bytes = valid;
    for (auto n = random() % 3 + 1; n > 0; --n) mutate_once(bytes, random);
    try {
      peek_envelope(Frame::of(std::move(bytes)));
    } catch (const DecodeError&) {
    }
  }
}

}  // namespace
}  // namespace troupe
