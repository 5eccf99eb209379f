// Messages of the data socket and the daemon's header: what is refused, with the right error.
#include "proto/shm/data_messages.h"

#include <cstring>
#include <vector>

#include <gtest/gtest.h>

#include "base/error.h"
#include "proto/shm/layout_hash.h"

namespace kvasir::shm {
namespace {

constexpr uint64_t kSegmentBytes = 1 << 20;

Welcome GoodWelcome() {
  Welcome welcome{};
  welcome.kind = static_cast<uint32_t>(MessageKind::kWelcome);
  welcome.abi = kAbiVersion;
  welcome.d_bytes = welcome.e_bytes = kSegmentBytes;
  welcome.session_id = 9;
  return welcome;
}

// Written field by field: its atomic makes it no value to be copied.
void MakeGood(DaemonHeader& header) {
  header.magic = kDaemonMagic;
  header.abi = kAbiVersion;
  header.header_bytes = kHeaderBytes;
  header.segment_bytes = header.e_segment_bytes = kSegmentBytes;
  header.layout_hash = LayoutHash();
  header.session_id = 9;
  header.seq_max = 64;
  header.seq_off = kHeaderBytes;
  header.arena_off = kHeaderBytes + 64 * sizeof(SeqBoard);
  header.arena_bytes = kSegmentBytes - header.arena_off;
  header.e_desk_off = kHeaderBytes;
}

template <typename Change>
absl::StatusCode CodeOf(const Change& change) {
  DaemonHeader header{};
  MakeGood(header);
  change(header);
  return CheckDaemonHeader(header, GoodWelcome()).code();
}

TEST(DataMessagesTest, AHeaderLiesInsideItsSegments) {
  using H = DaemonHeader;
  constexpr auto kBad = absl::StatusCode::kDataLoss;
  EXPECT_EQ(CodeOf([](H&) {}), absl::StatusCode::kOk);
  EXPECT_EQ(CodeOf([](H& h) { h.arena_bytes += 64; }), kBad);
  EXPECT_EQ(CodeOf([](H& h) { h.seq_max += 1; }), kBad);
  EXPECT_EQ(CodeOf([](H& h) { h.e_desk_off = kSegmentBytes - 63 * sizeof(SeqDesk); }), kBad);
  EXPECT_EQ(CodeOf([](H& h) { h.layout_hash ^= 1; }), absl::StatusCode::kFailedPrecondition);
}

TEST(DataMessagesTest, NumbersThatWrapAreRefused) {
  using H = DaemonHeader;
  constexpr auto kBad = absl::StatusCode::kDataLoss;
  EXPECT_EQ(CodeOf([](H& h) { h.seq_off = 0 - h.seq_max * sizeof(SeqBoard); }), kBad);
  EXPECT_EQ(CodeOf([](H& h) { h.arena_bytes = 0 - h.arena_off; }), kBad);
  EXPECT_EQ(CodeOf([](H& h) { h.e_desk_off = 0 - h.seq_max * sizeof(SeqDesk); }), kBad);
  EXPECT_EQ(CodeOf([](H& h) { h.seq_off += 1; }), kBad) << "askew";
  EXPECT_EQ(CodeOf([](H& h) { h.seq_off = 0; }), kBad) << "over the header itself";
}

template <typename Message>
DataMessage MessageOfBytes(const Message& message, size_t fds) {
  return {std::as_bytes(std::span(&message, 1)), false, fds};
}

TEST(DataMessagesTest, ARefusalIsAnErrorWhateverItsCode) {
  Refusal refusal{};
  refusal.kind = static_cast<uint32_t>(MessageKind::kRefusal);
  std::memset(refusal.text, 'x', sizeof(refusal.text));
  for (const int32_t code : {0, -1, 17, 1 << 30}) {
    refusal.code = code;
    const absl::Status status = ParseAnswer(MessageOfBytes(refusal, 0)).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kUnknown) << code;
    EXPECT_EQ(status.message().size(), sizeof(refusal.text)) << "no zero at its end";
  }
  refusal.code = static_cast<int32_t>(absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ParseAnswer(MessageOfBytes(refusal, 0)).status().code(),
            absl::StatusCode::kResourceExhausted);
}

TEST(DataMessagesTest, NoticesAreOfAKnownKindAndOfSomething) {
  ExtentNotice notice{};
  notice.kind = static_cast<uint32_t>(MessageKind::kExtent);
  notice.extent_kind = static_cast<uint32_t>(ExtentKind::kKept);
  notice.bytes = 4096;
  EXPECT_TRUE(ParseExtentNotice(MessageOfBytes(notice, 1)).ok());
  EXPECT_FALSE(ParseExtentNotice(MessageOfBytes(notice, 0)).ok());
  EXPECT_FALSE(ParseExtentNotice(MessageOfBytes(notice, 2)).ok());
  notice.extent_kind = 3;
  EXPECT_FALSE(ParseExtentNotice(MessageOfBytes(notice, 1)).ok());
  notice.extent_kind = static_cast<uint32_t>(ExtentKind::kRecent);
  notice.bytes = 0;
  EXPECT_FALSE(ParseExtentNotice(MessageOfBytes(notice, 1)).ok());
  EXPECT_EQ(ParseExtentNotice({}).status().code(), absl::StatusCode::kUnavailable);
}

TEST(DataMessagesTest, PairsHaveEquallyManyWholeGroupsInBothHalves) {
  DeviceExtentNotice good{};
  good.kind = static_cast<uint32_t>(MessageKind::kDeviceExtent);
  good.extent_kind = static_cast<uint32_t>(ExtentKind::kRecent);
  good.bytes = 3 * 4096;
  good.rows_bytes = 3 * 65536;
  good.granularity_bytes = 2 << 20;
  good.group_bytes = 65536;
  good.trailer_bytes = 4096;
  good.device_kind = static_cast<uint32_t>(DeviceKind::kCuda);
  std::memcpy(good.device_uuid, "GPU-1", 5);
  EXPECT_TRUE(IsDeviceExtentNotice(MessageOfBytes(good, 2)));
  EXPECT_TRUE(ParseDeviceExtentNotice(MessageOfBytes(good, 2)).ok());
  EXPECT_FALSE(ParseExtentNotice(MessageOfBytes(good, 1)).ok());
  for (const size_t fds : {0U, 1U, 3U}) {
    EXPECT_FALSE(ParseDeviceExtentNotice(MessageOfBytes(good, fds)).ok()) << fds;
  }
  const auto refused = [&](const auto& change) {
    DeviceExtentNotice notice = good;
    change(notice);
    return ParseDeviceExtentNotice(MessageOfBytes(notice, 2)).status().code() ==
           absl::StatusCode::kDataLoss;
  };
  using N = DeviceExtentNotice;
  EXPECT_TRUE(refused([](N& n) { n.extent_kind = 3; }));
  EXPECT_TRUE(refused([](N& n) { n.device_kind = 0; }));
  EXPECT_TRUE(refused([](N& n) { n.device_kind = 3; }));
  EXPECT_TRUE(refused([](N& n) { n.reserved = 1; }));
  EXPECT_TRUE(refused([](N& n) { n.bytes = 0; }));
  EXPECT_TRUE(refused([](N& n) { n.bytes += 4096; }));
  EXPECT_TRUE(refused([](N& n) { n.rows_bytes += 65536; }));
  EXPECT_TRUE(refused([](N& n) { n.rows_bytes += 4096; }));
  EXPECT_TRUE(refused([](N& n) { n.group_bytes = 0; }));
  EXPECT_TRUE(refused([](N& n) { n.trailer_bytes = 0; }));
  EXPECT_TRUE(refused([](N& n) {
    n.group_bytes = 1000;
    n.rows_bytes = 3000;
  }));
  EXPECT_TRUE(refused([](N& n) { n.granularity_bytes = 0; }));
  EXPECT_TRUE(refused([](N& n) { n.device_uuid[0] = 0; }));
  EXPECT_TRUE(refused([](N& n) { std::memset(n.device_uuid, 'x', sizeof(n.device_uuid)); }));
}

}  // namespace
}  // namespace kvasir::shm
