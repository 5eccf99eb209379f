// PressureSources on files and FIFOs that stand for the kernel's, and on the kernel's own trigger.
#include "daemon/pressure_sources.h"

#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"

namespace kvasir {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class PressureSourcesTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = ::testing::TempDir() + "/pressure_XXXXXX";
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
    wake_ = UniqueFd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  void Write(const std::string& name, const std::string& text) {
    std::ofstream(folder_ + "/" + name) << text;
  }
  void MakeFifo() { ASSERT_EQ(::mkfifo((folder_ + "/memory.pressure").c_str(), 0600), 0); }
  // Whether pressure is told of by what has happened so far; nothing is waited for.
  bool IsTold(PressureSources& sources) { return sources.Wait(wake_.get(), SystemClock().Now()); }

  std::string folder_;
  UniqueFd wake_;
};

TEST_F(PressureSourcesTest, AFifoTellsOnce) {
  MakeFifo();
  absl::StatusOr<PressureSources> sources = PressureSources::Open(folder_);
  ASSERT_TRUE(sources.ok()) << MessageOf(sources.status());
  EXPECT_FALSE(IsTold(*sources));
  Write("memory.pressure", "x");
  EXPECT_TRUE(IsTold(*sources));
  EXPECT_FALSE(IsTold(*sources));
}

TEST_F(PressureSourcesTest, OnlyTheCountOfHighTells) {
  Write("memory.events", "low 0\nhigh 3\nmax 0\n");
  absl::StatusOr<PressureSources> sources = PressureSources::Open(folder_);
  ASSERT_TRUE(sources.ok()) << MessageOf(sources.status());
  EXPECT_THAT(sources->description(), AllOf(HasSubstr("trigger=none"), HasSubstr("No such file")));
  Write("memory.events", "low 9\nhigh 3\nmax 7\n");
  EXPECT_FALSE(IsTold(*sources));
  Write("memory.events", "low 9\nhigh 4\nmax 7\n");
  EXPECT_TRUE(IsTold(*sources));
  EXPECT_FALSE(IsTold(*sources));
}

TEST_F(PressureSourcesTest, AWakeUpIsNoPressureAndComesFirst) {
  MakeFifo();
  absl::StatusOr<PressureSources> sources = PressureSources::Open(folder_);
  ASSERT_TRUE(sources.ok());
  Write("memory.pressure", "x");
  ASSERT_EQ(::eventfd_write(wake_.get(), 1), 0);
  EXPECT_FALSE(sources->Wait(wake_.get(), std::nullopt));
}

TEST_F(PressureSourcesTest, FiguresOfTheCgroup) {
  MakeFifo();
  absl::StatusOr<PressureSources> sources = PressureSources::Open(folder_);
  ASSERT_TRUE(sources.ok());
  EXPECT_EQ(sources->high_bytes(), 0U);
  Write("memory.high", "max\n");
  Write("memory.current", "4096\n");
  EXPECT_EQ(sources->high_bytes(), 0U);
  EXPECT_EQ(sources->used_bytes(), 4096U);
  Write("memory.high", "8192\n");
  EXPECT_EQ(sources->high_bytes(), 8192U);
}

TEST_F(PressureSourcesTest, NoSourceAtAllIsSaidWithEveryReason) {
  const absl::Status status = PressureSources::Open(folder_).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(MessageOf(status), AllOf(HasSubstr(folder_ + "/memory.pressure"),
                                       HasSubstr(folder_ + "/memory.events")));
}

TEST_F(PressureSourcesTest, WhatTheServiceManagerNamesComesFirstAndDevNullIsNone) {
  MakeFifo();
  const std::string fifo = folder_ + "/memory.pressure";
  ASSERT_EQ(::setenv("MEMORY_PRESSURE_WATCH", fifo.c_str(), 1), 0);
  absl::StatusOr<PressureSources> sources = PressureSources::Open("");
  ASSERT_TRUE(sources.ok()) << MessageOf(sources.status());
  EXPECT_THAT(sources->description(), HasSubstr("trigger=" + fifo + " "));
  ASSERT_EQ(::setenv("MEMORY_PRESSURE_WATCH", "/dev/null", 1), 0);
  sources = PressureSources::Open("");
  ASSERT_EQ(::unsetenv("MEMORY_PRESSURE_WATCH"), 0);
  const std::string said = sources.ok() ? sources->description() : MessageOf(sources.status());
  EXPECT_THAT(said, HasSubstr("/dev/null is neither a file nor a FIFO"));
}

// The real one, where this kernel lets this user have it.
TEST_F(PressureSourcesTest, TheKernelTakesTheTrigger) {
  std::filesystem::create_symlink("/proc/pressure/memory", folder_ + "/memory.pressure");
  absl::StatusOr<PressureSources> sources = PressureSources::Open(folder_);
  if (!sources.ok()) GTEST_SKIP() << MessageOf(sources.status());
  ASSERT_EQ(::eventfd_write(wake_.get(), 1), 0);
  EXPECT_FALSE(sources->Wait(wake_.get(), std::nullopt));
  EXPECT_THAT(sources->description(), HasSubstr("trigger=" + folder_ + "/memory.pressure"));
}

}  // namespace
}  // namespace kvasir
