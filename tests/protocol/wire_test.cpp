#include "protocol/wire.hpp"

#include <gtest/gtest.h>

#include <limits>
#include <msgpack.hpp>

#include "tests/protocol/samples.hpp"

namespace troupe {
namespace {

template <class T>
std::string refusal(const Frame& body, std::span<const Frame> attachments = {}) {
  try {
    decode<T>(body, attachments);
  } catch (const DecodeError& error) {
    return error.what();
  }
  return "accepted";
}

// A body written by hand: what no encode() would produce.
template <class F>
Frame body_of(F&& write) {
  wire::Writer out("test");
  write(out);
  return out.finish().body;
}

struct Numbers {
  uint32_t small = 0;
  int64_t wide = 0;
  double real = 0;
  std::vector<std::vector<int64_t>> nested;
  std::map<std::string, double> named;
  std::vector<bool> flags;
  static constexpr std::tuple kFields{Field{"small", &Numbers::small}, Field{"wide", &Numbers::wide},
                                      Field{"real", &Numbers::real},   Field{"nested", &Numbers::nested},
                                      Field{"named", &Numbers::named}, Field{"flags", &Numbers::flags}};
};
TROUPE_FIELDS_COMPLETE(Numbers);

Frame numbers_with(std::string_view key, const std::function<void(wire::Writer&)>& value) {
  return body_of([&](wire::Writer& out) {
    out.map(6);
    for_each_field(Numbers{}, [&](std::string_view name, const auto& field) {
      out.string(name);
      if (name == key) {
        value(out);
      } else {
        wire::write(out, field);
      }
    });
  });
}

TEST(Wire, EveryMessageComesBackAsItWas) {
  Random random(1);
  for_each_message(AllMessages{}, [&](auto kind) {
    using M = decltype(kind);
    for (int i = 0; i < 50; ++i) {
      const M message = sample<M>(random);
      const Encoded encoded = encode(message);
      EXPECT_TRUE(same(decode<M>(encoded.body, encoded.attachments), message)) << wire::root_name<M>();
    }
  });
}

TEST(Wire, EveryTruncationIsRefused) {
  Random random(2);
  for_each_message(AllMessages{}, [&](auto kind) {
    using M = decltype(kind);
    const Encoded encoded = encode(sample<M>(random));
    for (std::size_t n = 0; n < encoded.body.bytes.size(); ++n) {
      const Frame shorter{encoded.body.owner, encoded.body.bytes.first(n)};
      EXPECT_NE(refusal<M>(shorter, encoded.attachments), "accepted") << wire::root_name<M>() << " at " << n;
    }
  });
}

TEST(Wire, IntegersOfEveryWidthComeBack) {
  for (int bit = 0; bit < 63; ++bit)
    for (int64_t delta : {-1, 0, 1})
      for (int64_t sign : {-1, 1}) {
        Numbers n;
        n.wide = sign * ((int64_t{1} << bit) + delta);
        EXPECT_EQ(decode<Numbers>(encode(n).body).wide, n.wide);
      }
  Numbers n;
  n.wide = std::numeric_limits<int64_t>::min();
  EXPECT_EQ(decode<Numbers>(encode(n).body).wide, n.wide);
}

TEST(Wire, NamesTheMissingKey) {
  const Frame body = body_of([](wire::Writer& out) {
    out.map(1);
    out.string("version");
    out.unsigned_integer(1);
  });
  EXPECT_EQ(refusal<FetchChunk>(body), "fetch_chunk: index: missing key");
}

TEST(Wire, NamesTheUnknownKey) {
  const Frame body = body_of([](wire::Writer& out) {
    out.map(2);
    out.string("reason");
    out.string("x");
    out.string("raeson");
    out.string("y");
  });
  EXPECT_EQ(refusal<Stop>(body), "stop: raeson: unknown key");
}

TEST(Wire, NamesTheDuplicateKey) {
  const Frame body = body_of([](wire::Writer& out) {
    out.map(2);
    out.string("reason");
    out.string("x");
    out.string("reason");
    out.string("y");
  });
  EXPECT_EQ(refusal<Stop>(body), "stop: reason: duplicate key");
  EXPECT_EQ(refusal<Numbers>(numbers_with("named",
                                          [](wire::Writer& out) {
                                            out.map(2);
                                            for (int i = 0; i < 2; ++i) {
                                              out.string("a");
                                              out.real(1);
                                            }
                                          })),
            "body: named.a: duplicate key");
}

TEST(Wire, NamesTheKeyOfAWrongType) {
  EXPECT_EQ(refusal<Numbers>(numbers_with("small", [](auto& out) { out.string("7"); })),
            "body: small: expected an integer, found a string");
  EXPECT_EQ(refusal<Numbers>(numbers_with("real", [](auto& out) { out.boolean(true); })),
            "body: real: expected a number, found a boolean");
  EXPECT_EQ(refusal<Numbers>(numbers_with("nested", [](auto& out) { out.map(0); })),
            "body: nested: expected an array, found a map");
  EXPECT_EQ(refusal<Numbers>(numbers_with("flags",
                                          [](auto& out) {
                                            out.array(2);
                                            out.boolean(true);
                                            out.unsigned_integer(0);
                                          })),
            "body: flags[1]: expected a boolean, found an integer");
}

TEST(Wire, RefusesNumbersOutOfRange) {
  EXPECT_EQ(refusal<Numbers>(numbers_with("small", [](auto& out) { out.unsigned_integer(1ULL << 32); })),
            "body: small: number out of range, expected 0 to 4294967295");
  EXPECT_NE(refusal<Numbers>(numbers_with("small", [](auto& out) { out.signed_integer(-1); })), "accepted");
  EXPECT_NE(refusal<Numbers>(numbers_with("wide", [](auto& out) { out.unsigned_integer(1ULL << 63); })), "accepted");
  EXPECT_NE(refusal<Numbers>(numbers_with("real", [](auto& out) { out.unsigned_integer((1ULL << 53) + 1); })),
            "accepted");
  EXPECT_EQ(decode<Numbers>(numbers_with("real", [](auto& out) { out.signed_integer(-3); })).real, -3.0);
}

TEST(Wire, RefusesNanAndInfinityOnBothSides) {
  Scores scores{{0.5, std::numeric_limits<double>::quiet_NaN()}, {}};
  try {
    encode(scores);
    FAIL();
  } catch (const std::invalid_argument& error) {
    EXPECT_STREQ(error.what(), "scores: scores[1]: not a finite number");
  }
  scores.scores[1] = 1.0;
  std::string bytes(encode(scores).body.text());
  const auto at = bytes.find(std::string("\x3f\xf0\0\0\0\0\0\0", 8));
  ASSERT_NE(at, std::string::npos);
  bytes.replace(at, 2, "\x7f\xf0");
  EXPECT_EQ(refusal<Scores>(Frame::of(bytes)), "scores: scores[1]: not a finite number");
}

TEST(Wire, RefusesBytesBehindTheMessage) {
  EXPECT_EQ(refusal<Stop>(Frame::of(std::string(encode(Stop{"x"}).body.text()) + "z")),
            "stop: 1 bytes behind the message");
}

TEST(Wire, RefusesClaimsThatCannotBeTrueWithoutAllocating) {
  for (const std::string head : {"\xdd\xff\xff\xff\xff", "\xdc\xff\xff", "\xdf\xff\xff\xff\xff", "\xdb\xff\xff\xff\xff",
                                 "\xc1", "\xc6\xff\xff\xff\xff"}) {
    const std::string body = "\x81\xa6reason" + head;
    EXPECT_NE(refusal<Stop>(Frame::of(body)), "accepted");
    const std::string deep = "\x86\xa6nested" + head;
    EXPECT_NE(refusal<Numbers>(Frame::of(deep)), "accepted");
  }
  EXPECT_NE(refusal<Numbers>(Frame::of("\x86\xa6nested" + std::string(1'000'000, '\x91'))), "accepted");
}

TEST(Wire, AttachmentsShareTheirBytesBothWays) {
  const WeightChunk chunk{Attachment::of(std::vector<uint8_t>(1000, 7))};
  const Encoded encoded = encode(chunk);
  ASSERT_EQ(encoded.attachments.size(), 1U);
  EXPECT_EQ(encoded.attachments[0].bytes.data(), chunk.bytes.bytes.data());
  EXPECT_EQ(decode<WeightChunk>(encoded.body, encoded.attachments).bytes.bytes.data(), chunk.bytes.bytes.data());
}

TEST(Wire, AnUnalignedFrameIsCopiedToWhereItsElementsMayBeRead) {
  const WeightChunk message{Attachment::of(std::vector<float>{1, 2, 3})};
  Encoded encoded = encode(message);
  auto shifted = std::make_shared<std::vector<float>>(4);
  auto* bytes = reinterpret_cast<std::byte*>(shifted->data()) + 1;
  std::memcpy(bytes, encoded.attachments[0].bytes.data(), 12);
  encoded.attachments[0] = {shifted, {bytes, 12}};
  const auto decoded = decode<WeightChunk>(encoded.body, encoded.attachments);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(decoded.bytes.bytes.data()) % 4, 0U);
  EXPECT_EQ(decoded.bytes.as<float>()[2], 3.0F);
}

TEST(Wire, RefusesAttachmentFramesUnusedOrUsedTwice) {
  const Encoded encoded = encode(WeightChunk{Attachment::of(std::vector<uint8_t>{1})});
  const std::vector<Frame> two{encoded.attachments[0], encoded.attachments[0]};
  EXPECT_EQ(refusal<WeightChunk>(encoded.body, two), "weight_chunk: attachment frame 1 is not used");
  EXPECT_EQ(refusal<WeightChunk>(encoded.body), "weight_chunk: bytes: frame 0 of 0 does not exist");
  Random random(3);
  const Encoded rollouts = encode(Rollouts{});
  std::string twice(rollouts.body.text());  // the fields' frames are numbered 0 to 4: number the second 0 as well
  const auto at = twice.rfind("frame\x01");
  ASSERT_NE(at, std::string::npos);
  twice[at + 5] = '\0';
  EXPECT_EQ(refusal<Rollouts>(Frame::of(twice), rollouts.attachments), "rollouts: lengths: frame 0 is used twice");
}

TEST(Wire, RefusesShapesThatAreNegativeOverflowOrDoNotFitTheBytes) {
  const auto with = [](const std::string& dtype, std::vector<int64_t> shape) {
    return body_of([&](wire::Writer& out) {
      out.map(1);
      out.string("bytes");
      wire::write(out, wire::AttachmentPlace{dtype, shape, 0});
    });
  };
  const std::vector<Frame> frames{Frame::of("12345678")};
  const std::string overflow = "weight_chunk: bytes: shape is negative or overflows";
  EXPECT_EQ(refusal<WeightChunk>(with("u8", {8}), frames), "accepted");
  EXPECT_EQ(refusal<WeightChunk>(with("u8", {-8}), frames), overflow);
  EXPECT_EQ(refusal<WeightChunk>(with("u8", {-2, -4}), frames), overflow);
  EXPECT_EQ(refusal<WeightChunk>(with("i64", {int64_t{1} << 61}), frames), overflow);
  EXPECT_EQ(refusal<WeightChunk>(with("u8", {int64_t{1} << 32, int64_t{1} << 32, 8}), frames), overflow);
  EXPECT_EQ(refusal<WeightChunk>(with("i32", {8}), frames),
            "weight_chunk: bytes: shape and dtype ask for 32 bytes, the frame has 8");
  EXPECT_NE(refusal<WeightChunk>(with("f16", {4}), frames), "accepted");
  EXPECT_NE(refusal<WeightChunk>(with("u8", {1, 1, 1, 1, 1, 1, 1, 1, 8}), frames), "accepted");
}

TEST(Wire, EncodeRefusesAnAttachmentThatContradictsItself) {
  Attachment a = Attachment::of(std::vector<int32_t>{1, 2});
  a.shape = {3};
  EXPECT_THROW(encode(WeightChunk{a}), std::invalid_argument);
}

TEST(Wire, SpeaksWithTheStockLibrary) {
  Random random(5);
  for (int i = 0; i < 100; ++i) {
    const auto scores = sample<Scores>(random);
    const Encoded encoded = encode(scores);
    const auto handle = msgpack::unpack(encoded.body.text().data(), encoded.body.text().size());
    std::map<std::string, msgpack::object> theirs;
    handle.get().convert(theirs);
    EXPECT_EQ(theirs.at("scores").as<std::vector<double>>(), scores.scores);
    EXPECT_EQ((theirs.at("parts").as<std::map<std::string, std::vector<double>>>()), scores.parts);

    msgpack::sbuffer buffer;
    msgpack::pack(buffer, handle.get());
    EXPECT_TRUE(same(decode<Scores>(Frame::of(std::string(buffer.data(), buffer.size()))), scores));
  }
}

TEST(Envelope, OfAnotherVersionStillTellsWhoAsked) {
  const Frame frame = body_of([](wire::Writer& out) {
    out.map(5);
    out.string("flavour");
    out.string("new");
    out.string("v");
    out.unsigned_integer(9);
    out.string("id");
    out.unsigned_integer(77);
    out.string("weight");
    out.real(0.5);
    out.string("kind");
    out.string("request");
  });
  EXPECT_THROW(decode<Envelope>(frame), DecodeError);
  const EnvelopeHead head = peek_envelope(frame);
  EXPECT_EQ(head.v, 9U);
  EXPECT_EQ(head.id, 77U);
  EXPECT_EQ(head.kind, "request");
  EXPECT_THROW(peek_envelope(Frame::of("\x81\xa1v\x91\x01")), DecodeError);
  EXPECT_THROW(peek_envelope(Frame::of("\x80")), DecodeError);
}

}  // namespace
}  // namespace troupe
