#include "base/small_file.h"

#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"

namespace kvasir {
namespace {

using ::testing::HasSubstr;

class SmallFileTest : public ::testing::Test {
 protected:
  void SetUp() override { std::filesystem::create_directories(folder_); }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  const std::string folder_ =
      ::testing::TempDir() + "kvasir_small_file_" + std::to_string(::getpid());
  const std::string path_ = folder_ + "/file";
};

TEST_F(SmallFileTest, IsReadAsItWasWrittenUpToItsBound) {
  const std::string bytes = std::string(40'000, 'x') + std::string("\0\n", 2);
  ASSERT_TRUE(ReplaceFile(path_, bytes, 0600).ok());
  EXPECT_EQ(ReadSmallFile(path_, bytes.size()).value(), bytes);
  const auto long_one = ReadSmallFile(path_, bytes.size() - 1);
  EXPECT_EQ(long_one.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(MessageOf(long_one.status()), HasSubstr("max_bytes=40001"));
}

TEST_F(SmallFileTest, ReplacesTheOlderOneAndItsMode) {
  ASSERT_TRUE(ReplaceFile(path_, "a longer text", 0644).ok());
  // What a run that was cut off has left.
  ASSERT_TRUE(ReplaceFile(path_ + ".unfinished", "half", 0644).ok());
  ASSERT_TRUE(ReplaceFile(path_, "new", 0600).ok());
  EXPECT_EQ(ReadSmallFile(path_, 100).value(), "new");
  struct stat info {};
  ASSERT_EQ(::stat(path_.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777U, 0600U);
  EXPECT_FALSE(std::filesystem::exists(path_ + ".unfinished"));
}

TEST_F(SmallFileTest, NothingButRegularFilesIsRead) {
  EXPECT_EQ(ReadSmallFile(path_, 100).status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(MessageOf(ReadSmallFile(folder_, 100).status()), HasSubstr("not a regular file"));
  ASSERT_EQ(::mkfifo(path_.c_str(), 0600), 0);  // nobody writes: must not hang
  EXPECT_THAT(MessageOf(ReadSmallFile(path_, 100).status()), HasSubstr("not a regular file"));
}

TEST_F(SmallFileTest, WhatCannotBeReplacedStays) {
  const std::string folder = path_;
  std::filesystem::create_directories(folder + "/inner");
  EXPECT_FALSE(ReplaceFile(folder, "text", 0600).ok());
  EXPECT_TRUE(std::filesystem::exists(folder + "/inner"));
  EXPECT_FALSE(std::filesystem::exists(folder + ".unfinished"));
  EXPECT_EQ(ReplaceFile(folder_ + "/none/file", "text", 0600).code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace kvasir
