#include "actors/shared_memory.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <future>
#include <stdexcept>
#include <thread>

#include "tests/actors/scratch.hpp"

namespace troupe {
namespace {

using namespace std::chrono_literals;

std::shared_ptr<SharedRegion> filled(std::size_t bytes, char value) {
  auto region = SharedRegion::create(bytes);
  std::memset(region->writable().data(), value, bytes);
  return region;
}

bool holds(const SharedRegion& region, std::size_t bytes, char value) {
  return region.bytes().size() == bytes &&
         std::all_of(region.bytes().begin(), region.bytes().end(), [&](std::byte b) { return b == std::byte(value); });
}

TEST(SharedRegion, IsImmutableOnceSealed) {
  auto region = filled(10'000, 'x');
  region->seal();
  EXPECT_TRUE(holds(*region, 10'000, 'x'));
  EXPECT_THROW(region->writable(), std::logic_error);
  EXPECT_EQ(mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, region->fd(), 0), MAP_FAILED);
  EXPECT_NE(ftruncate(region->fd(), 1), 0);
  EXPECT_NE(ftruncate(region->fd(), 100'000), 0);
}

TEST(SharedRegion, RefusesWhatIsNotASealedMemoryFile) {
  Scratch scratch;
  const std::string path = scratch.path() + "/file";
  const int fd = open(path.c_str(), O_RDWR | O_CREAT, 0600);
  EXPECT_THROW(SharedRegion::adopt(fd), std::runtime_error);
  auto open_region = SharedRegion::create(100);
  EXPECT_THROW(SharedRegion::adopt(dup(open_region->fd())), std::runtime_error);
  EXPECT_THROW(SharedRegion::create(0), std::runtime_error);
}

TEST(RegionServer, HandsARegionToAnotherProcess) {
  Scratch scratch;
  RegionServer server(scratch.path() + "/regions");
  server.publish("v7", filled(1 << 20, 'a'));
  struct stat info {};
  ASSERT_EQ(stat(server.path().c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600U);
  const pid_t child = fork();
  if (child == 0) {
    const auto region = fetch_region(server.path(), "v7", 5s);
    _exit(holds(*region, 1 << 20, 'a') ? 0 : 1);
  }
  int status = -1;
  waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
}

TEST(RegionServer, AReaderKeepsWhatWasReplacedOrWithdrawn) {
  Scratch scratch;
  RegionServer server(scratch.path() + "/regions");
  server.publish("v", filled(1000, 'a'));
  const auto first = open_region("memfd:" + server.path() + "#v", 5s);
  server.publish("v", filled(2000, 'b'));
  const auto second = open_region("memfd:" + server.path() + "#v", 5s);
  server.withdraw("v");
  EXPECT_TRUE(holds(*first, 1000, 'a'));
  EXPECT_TRUE(holds(*second, 2000, 'b'));
  EXPECT_THROW(fetch_region(server.path(), "v", 50ms), std::runtime_error);
}

TEST(RegionServer, AReaderWaitsForAServerThatIsRestarting) {
  Scratch scratch;
  const std::string path = scratch.path() + "/regions";
  std::promise<void> done;
  std::thread late([&] {
    std::this_thread::sleep_for(150ms);
    RegionServer server(path);
    server.publish("v", filled(10, 'c'));
    done.get_future().wait();
  });
  std::shared_ptr<SharedRegion> region;
  EXPECT_NO_THROW(region = fetch_region(path, "v", 5s));
  done.set_value();
  late.join();
  ASSERT_TRUE(region);
  EXPECT_TRUE(holds(*region, 10, 'c'));
}

TEST(RegionServer, NamesWhatIsMissing) {
  try {
    fetch_region("/no/such/socket", "v9", 30ms);
    FAIL();
  } catch (const std::runtime_error& error) {
    EXPECT_STREQ(error.what(), "no memory region 'v9' at /no/such/socket within 30 ms");
  }
  EXPECT_THROW(RegionServer(std::string(200, 'x')), std::runtime_error);
  EXPECT_THROW(open_region("file:/etc/passwd", 1ms), std::invalid_argument);
}

TEST(RegionServer, WhoeverWaitsForOneThatDoesNotAnswerCanBeatMeanwhile) {
  Scratch scratch;
  const std::string path = scratch.path() + "/regions";
  const int deaf = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
  sockaddr_un address{.sun_family = AF_UNIX, .sun_path = {}};
  path.copy(address.sun_path, sizeof address.sun_path - 1);
  ASSERT_EQ(bind(deaf, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  ASSERT_EQ(listen(deaf, 8), 0);
  int beats = 0;
  EXPECT_THROW(fetch_region(path, "v", 1500ms, [&] { ++beats; }), std::runtime_error);
  EXPECT_GE(beats, 3);
  close(deaf);
}

TEST(RegionServer, HandOversLeakNoDescriptor) {
  Scratch scratch;
  RegionServer server(scratch.path() + "/regions");
  const auto open_files = [] {
    return std::distance(std::filesystem::directory_iterator("/proc/self/fd"), std::filesystem::directory_iterator());
  };
  const auto before = open_files();
  for (int i = 0; i < 50; ++i) {
    server.publish("v", filled(100, 'd'));
    fetch_region(server.path(), "v", 5s);
  }
  server.withdraw("v");
  // The server may be closing its end of the last one.
  for (int i = 0; i < 500 && open_files() != before; ++i) std::this_thread::sleep_for(20ms);
  EXPECT_EQ(open_files(), before);
}

TEST(InprocRegions, AreHandedOverByPointer) {
  const auto region = filled(100, 'e');
  InprocRegions::publish("w", region);
  EXPECT_EQ(open_region("inproc:w", 1ms), region);
  InprocRegions::withdraw("w");
  EXPECT_THROW(open_region("inproc:w", 1ms), std::runtime_error);
}

}  // namespace
}  // namespace troupe
