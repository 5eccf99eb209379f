// Shortage: rides on a status, and is not taken for what it is not.
#include "base/shortage.h"

#include <string>

#include <absl/strings/cord.h>
#include <gtest/gtest.h>

#include "base/error.h"

namespace kvasir {
namespace {

constexpr std::chrono::milliseconds kRetry{250};

TEST(ShortageTest, RidesOnTheStatus) {
  const Shortage shortage{"tenant.limit_bytes", UINT64_MAX, "own sequences", kRetry};
  const absl::Status status =
      WithShortage(ResourceExhausted("no room: wanted_bytes={}", 5), shortage);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ShortageOf(status), shortage);
  EXPECT_EQ(MessageOf(status),
            "no room: wanted_bytes=5 missing=18446744073709551615 held_by=\"own sequences\" "
            "retry_after_ms=250");
  absl::Status bare = ResourceExhausted("as it came over the wire");
  AttachShortage({"", 0, "", kRetry}, &bare);
  EXPECT_EQ(MessageOf(bare), "as it came over the wire");
  EXPECT_EQ(ShortageOf(bare)->retry_after, kRetry);
}

TEST(ShortageTest, WhatIsNoneIsNone) {
  EXPECT_FALSE(ShortageOf(absl::OkStatus()).has_value());
  EXPECT_FALSE(ShortageOf(ResourceExhausted("nothing known")).has_value());
  for (const char* const text : {"", "a\n1\nb", "a\nx\nb\n1", "a\n1\nb\n", "a\n1\nb\n1\nc"}) {
    absl::Status status = ResourceExhausted("odd");
    status.SetPayload("kvasir/shortage", absl::Cord(text));
    EXPECT_FALSE(ShortageOf(status).has_value()) << text;
  }
}

}  // namespace
}  // namespace kvasir
