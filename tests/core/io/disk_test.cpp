#include "core/io/disk.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <numeric>
#include <random>

#include "core/io/crc32c.hpp"
#include "core/io/sha256.hpp"
#include "tests/core/io/memory_disk.hpp"
#include "tests/core/io/scratch_folder.hpp"

namespace troupe {
namespace {

std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

TEST(Crc32c, GivesThePublishedValues) {  // RFC 3720, B.4
  EXPECT_EQ(crc32c(bytes_of("123456789")), 0xe3069283u);
  EXPECT_EQ(crc32c(bytes_of(std::string(32, '\0'))), 0x8a9136aau);
  EXPECT_EQ(crc32c(bytes_of(std::string(32, '\xff'))), 0x62a8ab43u);
  std::string up(32, '\0');
  std::iota(up.begin(), up.end(), 0);
  EXPECT_EQ(crc32c(bytes_of(up)), 0x46dd794eu);
  EXPECT_EQ(crc32c({}), 0u);
}

TEST(Crc32c, InstructionAndTableAgreeAtEveryLengthAndStart) {
  std::mt19937_64 random(1);
  std::string data(20000, '\0');
  for (char& c : data) c = static_cast<char>(random());
  for (int i = 0; i < 400; ++i) {
    const std::size_t begin = random() % 100, length = random() % (data.size() - begin);
    const auto part = bytes_of(data).subspan(begin, length);
    EXPECT_EQ(crc32c(part), crc32c_portable(part)) << begin << " " << length;
    const std::size_t cut = length == 0 ? 0 : random() % length;
    EXPECT_EQ(crc32c(part.subspan(cut), crc32c(part.first(cut))), crc32c(part));
    std::vector<std::byte> copy(length + 16);
    const std::size_t at = random() % 16;  // aligned or not
    EXPECT_EQ(crc32c_copy(part, copy.data() + at), crc32c(part));
    EXPECT_TRUE(std::equal(part.begin(), part.end(), copy.begin() + static_cast<long>(at)));
  }
}

TEST(Sha256, GivesThePublishedValues) {  // FIPS 180-4 examples
  const auto hex = [](std::string_view text) {
    Sha256 hash;
    hash.update(text);
    return hash.finish_hex();
  };
  EXPECT_EQ(hex(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(hex("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  Sha256 million;
  for (int i = 0; i < 1000; ++i) million.update(std::string(1000, 'a'));
  EXPECT_EQ(million.finish_hex(), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(RealDisk, WritesReadsTruncatesAndLists) {
  const ScratchFolder scratch;
  Disk& disk = real_disk();
  disk.create_dirs(scratch / "a/b");
  const auto path = scratch / "a/b/file";
  {
    const auto file = disk.open(path, OpenMode::kCreate);
    file->reserve(100);
    EXPECT_EQ(file->size(), 0u);
    file->append(bytes_of("hello world"));
    file->sync();
    file->truncate(5);
    file->append(bytes_of("!"));
  }
  EXPECT_EQ(read_file(disk, path), "hello!");
  disk.open(path, OpenMode::kAppend)->append(bytes_of("?"));
  EXPECT_EQ(read_file(disk, path), "hello!?");
  EXPECT_THROW(read_file(disk, path, 6), std::invalid_argument);
  EXPECT_EQ(disk.list(scratch / "a"), std::vector<std::string>{"b"});
  disk.remove_all(scratch / "a");
  EXPECT_FALSE(disk.exists(path));
  disk.remove_all(scratch / "a");
}

TEST(RealDisk, ErrorsNameTheFileAndTheReason) {
  const ScratchFolder scratch;
  try {
    real_disk().open(scratch / "none", OpenMode::kRead);
    FAIL();
  } catch (const DiskError& e) {
    EXPECT_EQ(e.what(), "cannot open " + (scratch / "none").string() + ": No such file or directory");
    EXPECT_EQ(e.error_number(), ENOENT);
  }
  EXPECT_THROW(real_disk().open(scratch.path(), OpenMode::kRead), DiskError);
}

TEST(RealDisk, AFullDiskIsAnError) {
  if (::access("/dev/full", W_OK) != 0) GTEST_SKIP() << "no /dev/full here";
  try {
    real_disk().open("/dev/full", OpenMode::kAppend)->append(bytes_of("x"));
    FAIL();
  } catch (const DiskError& e) {
    EXPECT_EQ(e.error_number(), ENOSPC);
  }
}

TEST(WriteFileAtomically, LeavesOldOrNewAtEveryFailureAndCrash) {
  std::mt19937_64 random(2);
  for (int crash = 0; crash < 2; ++crash)
    for (int call = 1;; ++call) {
      MemoryDisk disk;
      disk.create_dirs("d");
      write_file_atomically(disk, "d/f", "old");
      disk.fail_at(call, EIO);
      bool failed = false;
      try {
        write_file_atomically(disk, "d/f", "new and longer");
      } catch (const DiskError&) {
        failed = true;
      }
      if (crash) disk.crash(random);
      const std::string now = read_file(disk, "d/f");
      if (!failed) {
        EXPECT_EQ(now, "new and longer");
        break;
      }
      EXPECT_TRUE(now == "old" || now == "new and longer") << now;
      EXPECT_TRUE(crash || !disk.exists("d/f.tmp")) << call;
    }
}

TEST(WriteFileAtomically, SaysThatAFolderIsInItsPlace) {
  const ScratchFolder scratch;
  real_disk().create_dirs(scratch / "f");
  try {
    write_file_atomically(real_disk(), scratch / "f", "new");
    FAIL();
  } catch (const DiskError& e) {
    EXPECT_EQ(e.what(), "cannot replace " + (scratch / "f").string() + ": Is a directory");
  }
  EXPECT_EQ(real_disk().list(scratch.path()), std::vector<std::string>{"f"});
}

TEST(ReplaceFolder, TakesThePlaceOfAFullFolder) {
  const ScratchFolder scratch;
  for (const char* text : {"one", "two", "three"}) {
    real_disk().create_dirs(scratch / "made");
    write_file_atomically(real_disk(), scratch / "made/f", text);
    replace_folder(real_disk(), scratch / "made", scratch / "target");
    EXPECT_EQ(read_file(real_disk(), scratch / "target/f"), text);
    EXPECT_EQ(real_disk().list(scratch.path()), std::vector<std::string>{"target"});
  }
}

}  // namespace
}  // namespace troupe
