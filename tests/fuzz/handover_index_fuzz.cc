// The handover index of a process before: whatever was written over it, it is refused, or its
// records are read, struck out and appended to within its bytes.
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>

#include "daemon/handover/handover_index.h"

#include <xxhash.h>

namespace {

constexpr uint64_t kIndexBytes = 32 << 10, kLayout = 5;
constexpr uint64_t kRecords = 3;
constexpr size_t kPokeBytes = 10;  // where: u16 of 32-bit words; what: u64
constexpr size_t kSumAt = 56;

void Expect(bool holds) {
  if (!holds) std::abort();
}

}  // namespace

// The first byte says whether the header's sum is made right at the end, and how many pokes there
// are; behind these the text of the records.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const size_t pokes = std::min<size_t>(data[0] >> 1U, (size - 1) / kPokeBytes);
  const uint8_t* const poke = data + 1;
  const std::string_view text(reinterpret_cast<const char*>(poke + pokes * kPokeBytes),
                              std::min<size_t>(size - 1 - pokes * kPokeBytes, kIndexBytes));
  kvasir::ChainHasher::Secret secret{};
  const auto made = kvasir::HandoverIndex::Create(kIndexBytes, kLayout, secret, 9);
  Expect(made.ok());
  for (uint64_t i = 0; i < kRecords; ++i) {
    const size_t from = text.size() * i / kRecords, to = text.size() * (i + 1) / kRecords;
    (void)(*made)->Append(text.substr(from, to - from));
  }
  const int fd = (*made)->fd().get();
  for (size_t i = 0; i < pokes; ++i) {
    uint16_t word = 0;
    std::memcpy(&word, poke + i * kPokeBytes, sizeof(word));
    const off_t at = off_t{word} * 4 % static_cast<off_t>(kIndexBytes - sizeof(uint64_t));
    Expect(::pwrite(fd, poke + i * kPokeBytes + sizeof(word), sizeof(uint64_t), at) == 8);
  }
  if ((data[0] & 1U) != 0) {
    uint8_t header[kSumAt];
    Expect(::pread(fd, header, sizeof header, 0) == kSumAt);
    const uint64_t sum = XXH3_64bits(header, sizeof header);
    Expect(::pwrite(fd, &sum, sizeof sum, kSumAt) == sizeof sum);
  }
  const auto index = kvasir::HandoverIndex::Open(kvasir::UniqueFd(::dup(fd)), kLayout);
  if (!index.ok()) return 0;
  for (const kvasir::HandoverIndex::Record& record : (*index)->Read()) {
    Expect(record.at + record.payload.size() <= kIndexBytes);
    if (record.payload.size() % 2 == 0) (*index)->Strike(record.at);
  }
  Expect((*index)->live_bytes() <= (*index)->used_bytes());
  (void)(*index)->Append("another");
  Expect((*index)->used_bytes() <= kIndexBytes);
  return 0;
}
