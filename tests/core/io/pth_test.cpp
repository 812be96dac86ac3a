// Torch's files: those torch wrote (tests/oracles/io/make_pth.py), our own, and broken ones.
#include "core/io/pth.hpp"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <random>

#include "core/io/crc32.hpp"
#include "core/io/pickle.hpp"
#include "core/io/safetensors.hpp"
#include "core/io/zip_archive.hpp"
#include "tests/core/io/scratch_folder.hpp"
#include "tests/support/fuzz.hpp"

namespace troupe {
namespace {

const std::filesystem::path kFiles = TROUPE_SOURCE_DIR "/tests/oracles/data/io/pth";

std::string bytes_of(const std::filesystem::path& path) {
  return read_file(real_disk(), path);
}

void expect_same(const at::Tensor& found, const at::Tensor& expected, const std::string& name) {
  EXPECT_EQ(found.scalar_type(), expected.scalar_type()) << name;
  EXPECT_EQ(found.sizes(), expected.sizes()) << name;
  EXPECT_TRUE(found.is_contiguous()) << name;
  EXPECT_TRUE(at::equal(found, expected)) << name;
}

// "" when it is read.
std::string refusal(const std::filesystem::path& path) {
  try {
    read_pth(path);
  } catch (const std::runtime_error& error) {
    EXPECT_NE(std::string(error.what()).find(path.filename().string()), std::string::npos) << error.what();
    return error.what();
  }
  return "";
}

TEST(Pth, ReadsWhatTorchWrote) {
  for (const char* name : {"dtypes", "protocol_4", "protocol_5", "views", "checkpoint"}) {
    const StateDict found = read_pth(kFiles / (std::string(name) + ".pth"));
    const SafetensorsFile expected(kFiles / (std::string(name) + ".safetensors"));
    EXPECT_EQ(found.size(), expected.header().tensors.size()) << name;
    for (const auto& [key, entry] : expected.header().tensors) {
      ASSERT_TRUE(found.contains(key)) << name << " " << key;
      expect_same(found.at(key), expected.read(key), key);
    }
  }
  const StateDict small = read_pth(kFiles / "small_integers.pth");
  expect_same(small.at("short"), at::arange(-3, 4, at::kShort), "short");
  expect_same(small.at("char"), at::arange(-3, 4, at::kChar), "char");
}

TEST(Pth, ConvertsFloatingPointTensorsAlone) {
  const StateDict plain = read_pth(kFiles / "dtypes.pth");
  for (const auto& [name, tensor] : read_pth(kFiles / "dtypes.pth", at::kFloat))
    expect_same(tensor, plain.at(name).is_floating_point() ? plain.at(name).to(at::kFloat) : plain.at(name), name);
}

TEST(Pth, RefusesOtherFilesByName) {
  const ScratchFolder scratch;
  EXPECT_NE(refusal(kFiles / "old_format.pth").find("before version 1.6"), std::string::npos);
  EXPECT_NE(refusal(kFiles / "scripted.pth").find("TorchScript"), std::string::npos);
  EXPECT_NE(refusal(kFiles / "tensor_alone.pth").find("expected a dictionary"), std::string::npos);
  EXPECT_NE(refusal(kFiles / "complex.pth").find("torch.ComplexFloatStorage"), std::string::npos);
  const std::string foreign = refusal(kFiles / "foreign_object.pth");
  EXPECT_NE(foreign.find("\"arguments\""), std::string::npos) << foreign;
  EXPECT_NE(foreign.find("argparse.Namespace"), std::string::npos) << foreign;
  EXPECT_THROW(read_pth(scratch / "missing.pth"), DiskError);
  write_file(real_disk(), scratch / "empty.pth", "");
  EXPECT_NE(refusal(scratch / "empty.pth").find("no zip archive"), std::string::npos);
}

StateDict sample_state() {
  at::manual_seed(1);
  const at::Tensor tied = at::randn({5, 3});
  return {{"model.embed_tokens.weight", tied},
          {"lm_head.weight", tied},
          {"half", at::randn({7}).to(at::kHalf)},
          {"bytes", at::randint(255, {5}, at::kByte)},
          {"long", at::arange(4) - (int64_t{1} << 40)},
          {"double", at::randn({2, 2}, at::kDouble)},
          {"bf", at::randn({4, 4}).to(at::kBFloat16)},
          {"scalar", at::randn({})},
          {"none", at::empty({0, 3})},
          {"strided", at::randn({4, 6}).t()},
          {"flag", at::randn({5}) > 0},
          {"名前/with slash", at::randn({1, 1, 2})}};
}

TEST(Pth, GivesBackWhatItWrote) {
  const ScratchFolder scratch;
  const StateDict state = sample_state();
  save_pth(real_disk(), scratch / "x.pth", state);
  const StateDict found = read_pth(scratch / "x.pth");
  ASSERT_EQ(found.size(), state.size());
  for (const auto& [name, tensor] : state) expect_same(found.at(name), tensor.contiguous(), name);
  save_pth(real_disk(), scratch / "again.pth", state);
  EXPECT_EQ(bytes_of(scratch / "x.pth"), bytes_of(scratch / "again.pth"));
  EXPECT_EQ(real_disk().list(scratch.path()).size(), 2u) << "nothing is left aside";
}

TEST(Pth, WritesTiedTensorsOnceAndConverts) {
  const ScratchFolder scratch;
  const at::Tensor tied = at::randn({1000, 1100});
  save_pth(real_disk(), scratch / "x.pth", {{"a", tied}, {"b", tied}, {"ids", at::arange(3)}}, at::kHalf);
  EXPECT_LT(std::filesystem::file_size(scratch / "x.pth"), 1000 * 1100 * 2 + 4000u);
  const StateDict found = read_pth(scratch / "x.pth");
  expect_same(found.at("a"), tied.to(at::kHalf), "a");
  expect_same(found.at("b"), tied.to(at::kHalf), "b");
  expect_same(found.at("ids"), at::arange(3), "ids");
}

// Opened by torch itself (tests/core/io/open_in_torch.py), as CMakeLists.txt arranges.
TEST(Pth, FilesAreWrittenForTorch) {
  const char* folder = std::getenv("TROUPE_OPEN_IN_TORCH_FOLDER");
  if (folder == nullptr) GTEST_SKIP() << "TROUPE_OPEN_IN_TORCH_FOLDER is not set";
  real_disk().create_dirs(folder);
  StateDict state = sample_state();
  save_pth(real_disk(), std::filesystem::path(folder) / "plain.pth", state);
  save_safetensors(real_disk(), std::filesystem::path(folder) / "plain.safetensors", state);
  save_pth(real_disk(), std::filesystem::path(folder) / "half.pth", state, at::kHalf);
  save_safetensors(real_disk(), std::filesystem::path(folder) / "half.safetensors", state, {.dtype = at::kHalf});
}

// ---- broken files ---------------------------------------------------------------------------------------------------

// An archive of the given entries with right checksums.
void write_archive(const std::filesystem::path& path, const std::map<std::string, std::string>& entries) {
  const auto file = real_disk().open(path, OpenMode::kCreate);
  ZipWriter zip(*file);
  for (const auto& [name, content] : entries) zip.add(name, content);
  zip.finish();
}

std::string text(const std::string& value) {
  return "X" + std::string{static_cast<char>(value.size()), 0, 0, 0} + value;
}

// The pickle of {"w": a float tensor}, with these numbers.
std::string one_tensor(const std::string& offset, const std::string& sizes, const std::string& strides,
                       const std::string& numel = "K\x08", const std::string& storage = "FloatStorage") {
  return "\x80\x02}" + text("w") + "ctorch._utils\n_rebuild_tensor_v2\n((" + text("storage") + "ctorch\n" + storage +
         "\n" + text("0") + text("cpu") + numel + "tQ" + offset + "(" + sizes + "t(" + strides + "t\x89}tRs.";
}

TEST(Pth, RefusesPlacesOutsideTheStorage) {
  const ScratchFolder scratch;
  const auto with = [&](const std::string& pickle, std::size_t storage_bytes = 32) {
    write_archive(scratch / "x.pth", {{"a/data.pkl", pickle}, {"a/data/0", std::string(storage_bytes, '\0')}});
    return refusal(scratch / "x.pth");
  };
  const std::string big = "\x8a\x08" + std::string("\0\0\0\0\0\0\0\x40", 8);  // 2^62
  const std::string zero("K\0", 2);
  EXPECT_EQ(with(one_tensor(zero, "K\x02K\x04", "K\x04K\x01")), "");
  EXPECT_EQ(with(one_tensor("K\x07", "K\x01", "K\x01")), "");
  EXPECT_EQ(with(one_tensor(zero, "", "")), "");
  EXPECT_EQ(with(one_tensor(zero, zero, "K\x01")), "");
  for (const auto& [offset, sizes, strides] :
       std::vector<std::array<std::string, 3>>{{"K\x01", "K\x02K\x04", "K\x04K\x01"},
                                               {zero, "K\x03K\x04", "K\x04K\x01"},
                                               {"K\x08", "K\x01", "K\x01"},
                                               {big, "K\x01", "K\x01"},
                                               {zero, big, "K\x01"},
                                               {zero, "K\x02", big},
                                               {zero, big + big, zero + zero},
                                               {zero, big + big + zero, zero + zero + zero},
                                               {zero, "K\x09", zero},
                                               {zero, "J\xff\xff\xff\xff", "K\x01"},
                                               {zero, "K\x02", "J\xff\xff\xff\xff"},
                                               {"J\xff\xff\xff\xff", "K\x01", "K\x01"},
                                               {zero, "K\x02", ""},
                                               {zero, "N", "K\x01"}})
    EXPECT_NE(with(one_tensor(offset, sizes, strides)).find("tensor \"w\""), std::string::npos)
        << with(one_tensor(offset, sizes, strides));
  EXPECT_NE(with(one_tensor(zero, "K\x02K\x04", "K\x04K\x01"), 31).find("has 7 elements"), std::string::npos);
  EXPECT_NE(with(one_tensor(zero, big, "K\x01", big)).find("fewer than the tensor needs"), std::string::npos);
  EXPECT_NE(with(one_tensor(zero, "K\x01", "K\x01", "K\x08", "QInt8Storage")).find("torch.QInt8Storage"),
            std::string::npos);
}

TEST(Pth, RefusesDamagedArchives) {
  const ScratchFolder scratch;
  const std::string zero("K\0", 2);
  const std::string pickle = one_tensor(zero, "K\x02K\x04", "K\x04K\x01");
  const std::string data(32, 'x');
  const auto with = [&](const std::map<std::string, std::string>& entries) {
    write_archive(scratch / "x.pth", entries);
    return refusal(scratch / "x.pth");
  };
  EXPECT_EQ(with({{"a/data.pkl", pickle}, {"a/data/0", data}, {"a/byteorder", "little"}}), "");
  EXPECT_NE(with({{"a/data.pkl", pickle}, {"a/data/0", data}, {"a/byteorder", "big"}}).find("big-endian"),
            std::string::npos);
  EXPECT_NE(with({{"a/data.pkl", pickle}}).find("\"a/data/0\" is missing"), std::string::npos);
  EXPECT_NE(with({{"a/data/0", data}}).find("data.pkl is missing"), std::string::npos);
  EXPECT_NE(with({{"a/data.pkl", pickle}, {"b/data.pkl", pickle}}).find("two files data.pkl"), std::string::npos);
  with({{"a/data.pkl", pickle}, {"a/data/0", data}});
  std::string whole = bytes_of(scratch / "x.pth");
  whole[whole.find(data) + 3] = 'y';
  write_file(real_disk(), scratch / "x.pth", whole);
  EXPECT_NE(refusal(scratch / "x.pth").find("checksum of \"a/data/0\""), std::string::npos);
}

TEST(Pth, RefusesCompressedEntries) {
  const ScratchFolder scratch;
  write_archive(scratch / "x.pth", {{"a/data.pkl", "}."}});
  std::string bytes = bytes_of(scratch / "x.pth");
  bytes[bytes.find("PK\x01\x02") + 10] = 8;
  write_file(real_disk(), scratch / "x.pth", bytes);
  EXPECT_NE(refusal(scratch / "x.pth").find("\"a/data.pkl\" is compressed"), std::string::npos);
}

std::string pickle_refusal(const std::string& bytes) {
  try {
    parse_pickle(bytes);
  } catch (const std::runtime_error& error) {
    return error.what();
  }
  return "";
}

TEST(Pickle, NeverCallsAndNeverOverflows) {
  const ScratchFolder scratch;
  const auto with = [&](const std::string& pickle) {
    write_archive(scratch / "x.pth", {{"a/data.pkl", pickle}});
    return refusal(scratch / "x.pth");
  };
  EXPECT_NE(
      with("\x80\x02}" + text("a") + "cos\nsystem\n" + text("ls") + "\x85Rs.").find("an object made by os.system"),
      std::string::npos);
  EXPECT_NE(with("\x80\x02}" + text("a") + "cbuiltins\neval\ns.").find("builtins.eval"), std::string::npos);
  // Containers in themselves, a million deep, and many times over.
  EXPECT_NE(with("\x80\x02}q\x01" + text("a") + "h\x01s.").find("nested too deeply"), std::string::npos);
  std::string deep = "\x80\x02}" + text("a") + std::string(1'000'000, ']');
  deep += std::string(999'999, 'a') + "s.";
  EXPECT_NE(with(deep).find("nested too deeply"), std::string::npos);
  std::string laughs = "]q" + std::string(1, '\0');
  for (char level = 1; level < 40; ++level) {
    laughs += "](";
    for (int i = 0; i < 10; ++i) laughs += std::string("h") + static_cast<char>(level - 1);
    laughs += std::string("eq") + level;
  }
  laughs = "\x80\x02" + laughs + "}" + text("a") + "h" + static_cast<char>(39) + "s.";
  EXPECT_NE(with(laughs).find("nested too deeply or too often"), std::string::npos);
  for (const char* bad : {"",
                          "}",
                          "\x80\x01.",
                          "\x80\x06.",
                          "t.",
                          "0.",
                          "(0.",
                          "e.",
                          "]e.",
                          "}(K\x01u.",
                          "h\x01.",
                          "R.",
                          ")R.",
                          "Q.",

                          "c\n.",
                          "X\xff\xff\xff\xff.",
                          "\x8d\xff\xff\xff\xff\xff\xff\xff\xff.",
                          "\x8a\xff.",
                          "\x8a\x09"
                          "123456789.",
                          "]K\x01s.",
                          "}K\x01"
                          "a.",
                          "\x93.",
                          "a.",
                          "s.",
                          "b.",
                          "\xff."})
    EXPECT_NE(pickle_refusal(bad), "") << bad;
}

TEST(Pickle, MutatedBytesNeverCrash) {
  std::mt19937_64 random(fuzz::seed(5));
  const std::string zero("K\0", 2);
  const std::string valid = one_tensor(zero, "K\x02K\x04", "K\x04K\x01");
  const std::string opcodes = "(.012}])]tlaesuqrhjKMJGXcRbQN\x80\x85\x86\x87\x88\x89\x8a\x8c\x93\x94\x95\x81";
  int parsed = 0;
  for (uint64_t i = fuzz::inputs(60'000); i > 0; --i) {
    std::string bytes = valid;
    for (uint64_t edits = 1 + random() % 4; edits > 0; --edits) {
      const std::size_t at = random() % bytes.size();
      const char byte = random() % 2 ? opcodes[random() % opcodes.size()] : static_cast<char>(random());
      if (random() % 3 == 0)
        bytes.erase(at, 1 + random() % 3);
      else if (random() % 2)
        bytes.insert(at, 1, byte);
      else
        bytes[at] = byte;
      if (bytes.empty()) bytes = ".";
    }
    parsed += pickle_refusal(bytes).empty();
  }
  EXPECT_GT(parsed, 100);
}

TEST(Pth, MutatedArchivesNeverCrash) {
  const ScratchFolder scratch;
  std::mt19937_64 random(fuzz::seed(6));
  for (const char* name : {"views.pth", "checkpoint.pth"}) {
    const std::string valid = bytes_of(kFiles / name);
    for (uint64_t i = fuzz::inputs(1500); i > 0; --i) {
      std::string bytes = valid;
      // The directory and the headers are where the places stand.
      for (uint64_t edits = 1 + random() % 3; edits > 0; --edits) {
        const std::size_t tail = std::min<std::size_t>(bytes.size(), 1500);
        const std::size_t at = random() % 2 ? bytes.size() - 1 - random() % tail : random() % bytes.size();
        bytes[at] = static_cast<char>(random() % 3 ? random() : 0xFF);
      }
      if (random() % 10 == 0) bytes.resize(random() % bytes.size());
      write_file(real_disk(), scratch / "x.pth", bytes);
      try {
        for (const auto& [key, tensor] : read_pth(scratch / "x.pth")) ASSERT_LE(tensor.nbytes(), bytes.size());
      } catch (const std::runtime_error&) {
      }
    }
  }
}

TEST(Pth, MutatedPicklesWithRightChecksumsNeverCrash) {
  const ScratchFolder scratch;
  std::mt19937_64 random(fuzz::seed(7));
  const std::string valid = one_tensor(std::string("K\0", 2), "K\x02K\x04", "K\x04K\x01");
  int read = 0;
  for (uint64_t i = fuzz::inputs(6000); i > 0; --i) {
    std::string pickle = valid;
    // Mostly the numbers at the end: offset, shape, strides.
    for (uint64_t edits = 1 + random() % 2; edits > 0; --edits) {
      const std::size_t tail = random() % 3 ? 30 : pickle.size();
      pickle[pickle.size() - 1 - random() % tail] = static_cast<char>(random() % 2 ? random() % 16 : random());
    }
    write_archive(scratch / "x.pth", {{"a/data.pkl", pickle}, {"a/data/0", std::string(32, '\0')}});
    try {
      for (const auto& [key, tensor] : read_pth(scratch / "x.pth")) read += tensor.nbytes() <= 32;
    } catch (const std::runtime_error&) {
    }
  }
  EXPECT_GT(read, 100);
}

TEST(Zip, LargeArchivesUseZip64) {
  const ScratchFolder scratch;
  constexpr uint64_t kBytes = (uint64_t{1} << 32) + 100;
  {
    const auto file = real_disk().open(scratch / "large.zip", OpenMode::kCreate);
    ZipWriter zip(*file);
    zip.add("first", "1");
    zip.begin("huge", kBytes, 7);
    file->truncate(file->size() + kBytes);  // a hole: nothing is written
    zip.add("last", "2");
    zip.finish();
  }
  const auto large = real_disk().open(scratch / "large.zip", OpenMode::kRead);
  const ZipDirectory found = read_zip_directory(*large, "large.zip");
  ASSERT_EQ(found.size(), 3u);
  EXPECT_EQ(found.at("huge").bytes, kBytes);
  EXPECT_EQ(found.at("huge").offset % 64, 0u);
  char last = 0;
  large->read_at(found.at("last").offset, std::as_writable_bytes(std::span(&last, 1)));
  EXPECT_EQ(last, '2');

  std::map<std::string, std::string> many;
  for (int i = 0; i < 70'000; ++i) many[std::to_string(i)] = std::to_string(i);
  write_archive(scratch / "many.zip", many);
  const auto file = real_disk().open(scratch / "many.zip", OpenMode::kRead);
  EXPECT_EQ(read_zip_directory(*file, "many.zip").size(), many.size());
}

TEST(Crc32, IsThatOfZip) {
  const auto crc = [](std::string_view text) { return crc32(std::as_bytes(std::span(text.data(), text.size()))); };
  EXPECT_EQ(crc("123456789"), 0xCBF43926u);
  EXPECT_EQ(crc(""), 0u);
  EXPECT_EQ(crc(std::string(32, '\0')), 0x190A55ADu);
  const std::string text(1003, 'q');
  const auto bytes = std::as_bytes(std::span(text.data(), text.size()));
  EXPECT_EQ(crc32(bytes.subspan(100), crc32(bytes.first(100))), crc32(bytes));
}

}  // namespace
}  // namespace troupe
