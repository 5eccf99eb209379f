#include "daemon/handover/handover_index.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>

#include "base/bytes.h"
#include "base/error.h"
#include "base/status_macros.h"

#include <fmt/format.h>
#include <xxhash.h>

namespace kvasir {
namespace {

constexpr uint64_t kMagic = 0x31444e4148534b56;  // "VKSHAND1"
constexpr uint32_t kVersion = 1;
constexpr uint32_t kRecordMagic = 0x43455256;
constexpr uint64_t kHeaderBytes = kPageBytes;
constexpr uint64_t kAlign = 64;
constexpr uint32_t kLive = 1, kStruck = 2;

struct Header {
  uint64_t magic;
  uint32_t version;
  uint32_t record_header_bytes;
  uint64_t bytes;
  uint64_t layout;
  uint64_t epoch;
  uint8_t secret[16];
  uint64_t sum;
  std::atomic<uint64_t> tail;
};
static_assert(offsetof(Header, sum) == 56 && offsetof(Header, tail) == 64);

struct RecordHeader {
  uint32_t magic;
  std::atomic<uint32_t> state;
  uint64_t bytes;
  uint64_t sum;
  uint8_t reserved[kAlign - 24];
};
static_assert(sizeof(RecordHeader) == kAlign);

Header* HeaderOf(const MappedRegion& map) { return reinterpret_cast<Header*>(map.data()); }
RecordHeader* RecordAt(const MappedRegion& map, uint64_t at) {
  return reinterpret_cast<RecordHeader*>(map.data() + at);
}

uint64_t SumOf(const Header& header) { return XXH3_64bits(&header, offsetof(Header, sum)); }

uint64_t RoomFor(uint64_t payload) { return sizeof(RecordHeader) + RoundUp(payload, kAlign); }

}  // namespace

absl::StatusOr<std::unique_ptr<HandoverIndex>> HandoverIndex::Create(
    uint64_t bytes, uint64_t layout, const ChainHasher::Secret& secret, uint64_t epoch) {
  UniqueFd fd(::memfd_create("kvasir-index", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd) return ErrnoStatus(errno, "memfd_create");
  if (::fchmod(fd.get(), 0600) != 0) return ErrnoStatus(errno, "fchmod");
  if (::ftruncate(fd.get(), static_cast<off_t>(bytes)) != 0) {
    return ErrnoStatus(errno, fmt::format("ftruncate to {} bytes", bytes));
  }
  if (::fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
    return ErrnoStatus(errno, "fcntl F_ADD_SEALS");
  }
  KVASIR_ASSIGN_OR_RETURN(MappedRegion map, MappedRegion::Map(fd, bytes, Access::kReadWrite));
  std::unique_ptr<HandoverIndex> index(new HandoverIndex(std::move(fd), std::move(map)));
  Header& header = *HeaderOf(index->map_);
  header.magic = kMagic;
  header.version = kVersion;
  header.record_header_bytes = sizeof(RecordHeader);
  header.bytes = bytes;
  header.layout = layout;
  header.epoch = index->epoch_ = epoch;
  std::copy(secret.begin(), secret.end(), header.secret);
  index->secret_ = secret;
  header.sum = kvasir::SumOf(header);
  index->tail_ = kHeaderBytes;
  header.tail.store(index->tail_, std::memory_order_release);
  return index;
}

absl::StatusOr<std::unique_ptr<HandoverIndex>> HandoverIndex::Open(UniqueFd fd, uint64_t layout) {
  struct stat found {};
  if (::fstat(fd.get(), &found) != 0) return ErrnoStatus(errno, "fstat");
  const auto bytes = static_cast<uint64_t>(found.st_size);
  const int seals = ::fcntl(fd.get(), F_GET_SEALS);
  if (seals < 0 || (seals & F_SEAL_SHRINK) == 0 || bytes < kHeaderBytes ||
      bytes % kPageBytes != 0) {
    return DataLoss("index is no memfd of ours: bytes={} seals={:#x}", bytes, seals);
  }
  KVASIR_ASSIGN_OR_RETURN(MappedRegion map, MappedRegion::Map(fd, bytes, Access::kReadWrite));
  const Header& header = *HeaderOf(map);
  if (header.magic != kMagic) return DataLoss("index.magic is another: value={:#x}", header.magic);
  if (header.sum != kvasir::SumOf(header)) return DataLoss("index.sum is another");
  if (header.version != kVersion || header.record_header_bytes != sizeof(RecordHeader)) {
    return FailedPrecondition("index.version is another: value={} expected={}", header.version,
                              kVersion);
  }
  if (header.layout != layout) {
    return FailedPrecondition("index.layout is another: value={:#x} expected={:#x}", header.layout,
                              layout);
  }
  if (header.bytes != bytes) {
    return DataLoss("index.bytes is another: value={} expected={}", header.bytes, bytes);
  }
  const uint64_t tail = header.tail.load(std::memory_order_acquire);
  if (tail < kHeaderBytes || tail > bytes || tail % kAlign != 0) {
    return DataLoss("index.tail is out of bounds: value={} min={} max={}", tail, kHeaderBytes,
                    bytes);
  }
  std::unique_ptr<HandoverIndex> index(new HandoverIndex(std::move(fd), std::move(map)));
  index->epoch_ = header.epoch;
  std::copy(std::begin(header.secret), std::end(header.secret), index->secret_.begin());
  index->tail_ = tail;
  return index;
}

uint64_t HandoverIndex::SumOf(uint64_t at, std::string_view payload) const {
  return XXH3_64bits_withSeed(payload.data(), payload.size(), at * 0x9E3779B97F4A7C15 + epoch_);
}

std::vector<HandoverIndex::Record> HandoverIndex::Read() {
  std::vector<Record> records;
  live_bytes_ = 0;
  for (uint64_t at = kHeaderBytes; at < tail_;) {
    RecordHeader& header = *RecordAt(map_, at);
    const uint64_t room = tail_ - at - sizeof(RecordHeader);
    if (header.magic != kRecordMagic || header.bytes > room) {
      tail_ = at;  // nothing behind it can be found
      break;
    }
    const uint64_t next = at + RoomFor(header.bytes);
    if (header.state.load(std::memory_order_acquire) == kLive) {
      Record record{at, std::string(reinterpret_cast<const char*>(&header + 1), header.bytes)};
      if (SumOf(at, record.payload) == header.sum) {
        live_bytes_ += next - at;
        records.push_back(std::move(record));
      } else {
        header.state.store(kStruck, std::memory_order_release);
      }
    }
    at = next;
  }
  return records;
}

absl::StatusOr<uint64_t> HandoverIndex::Append(std::string_view payload) {
  const uint64_t room = RoomFor(payload.size());
  if (room > map_.bytes() - tail_) {
    return ResourceExhausted("index is full: wanted_bytes={} used_bytes={} bytes={}", room, tail_,
                             map_.bytes());
  }
  const uint64_t at = tail_;
  RecordHeader& header = *RecordAt(map_, at);
  std::memcpy(map_.data() + at + sizeof(RecordHeader), payload.data(), payload.size());
  header.magic = kRecordMagic;
  header.bytes = payload.size();
  header.sum = SumOf(at, payload);
  header.state.store(kLive, std::memory_order_relaxed);
  tail_ += room;
  HeaderOf(map_)->tail.store(tail_, std::memory_order_release);
  live_bytes_ += room;
  return at;
}

void HandoverIndex::Strike(uint64_t at) {
  RecordHeader& header = *RecordAt(map_, at);
  live_bytes_ -= RoomFor(header.bytes);
  header.state.store(kStruck, std::memory_order_release);
}

uint64_t HandoverIndex::used_bytes() const { return tail_ - kHeaderBytes; }

}  // namespace kvasir
