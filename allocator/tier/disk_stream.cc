#include "allocator/tier/disk_stream.h"

#include <cstring>

namespace kvasir {
namespace {

// Requests have at most 1,024 parts (IOV_MAX), header and end among them.
constexpr size_t kPartsMax = 1000;

bool BeginsAtPage(const std::byte* data) {
  return reinterpret_cast<uintptr_t>(data) % kPageBytes == 0;
}

bool SuitsDirect(ByteParts parts) {
  if (parts.size() > kPartsMax) return false;
  for (size_t i = 0; i < parts.size(); ++i) {
    if (parts[i].empty() || !BeginsAtPage(parts[i].data())) return false;
    if (i + 1 < parts.size() && parts[i].size() % kPageBytes != 0) return false;
  }
  return true;
}

std::byte* TailOf(const BlockTransfer::Slot& slot) { return slot.head.data() + kPageBytes; }

}  // namespace

void LayOutWrite(const BlockHeader& header, ByteParts parts, BlockTransfer::Slot& slot) {
  std::byte* const head = slot.head.Ensure(2 * kPageBytes);
  std::memcpy(head, header.data(), header.size());
  std::memset(head + header.size(), 0, kPageBytes - header.size());
  slot.stream.push_back({head, kPageBytes});
  if (!SuitsDirect(parts)) {
    const uint64_t payload = BytesOf(parts);
    const uint64_t padded = RoundUp(payload, kPageBytes);
    std::byte* const bounce = slot.bounce.Ensure(padded);
    uint64_t at = 0;
    for (const auto& part : parts) {
      if (!part.empty()) std::memcpy(bounce + at, part.data(), part.size());
      at += part.size();
    }
    std::memset(bounce + payload, 0, padded - payload);
    slot.stream.push_back({bounce, padded});
    return;
  }
  for (const auto& part : parts) {
    const size_t whole = RoundDown(part.size(), kPageBytes);
    // The kernel only reads it: iovec has no form for that.
    if (whole > 0) slot.stream.push_back({const_cast<std::byte*>(part.data()), whole});
    const size_t rest = part.size() - whole;
    if (rest == 0) continue;
    std::memcpy(TailOf(slot), part.data() + whole, rest);
    std::memset(TailOf(slot) + rest, 0, kPageBytes - rest);
    slot.stream.push_back({TailOf(slot), kPageBytes});
  }
}

void LayOutRead(std::span<std::byte> into, BlockTransfer::Slot& slot) {
  slot.stream.push_back({slot.head.Ensure(2 * kPageBytes), kPageBytes});
  if (!BeginsAtPage(into.data())) {
    const uint64_t padded = RoundUp(into.size(), kPageBytes);
    slot.stream.push_back({slot.bounce.Ensure(padded), padded});
    return;
  }
  const size_t whole = RoundDown(into.size(), kPageBytes);
  if (whole > 0) slot.stream.push_back({into.data(), whole});
  if (whole < into.size()) slot.stream.push_back({TailOf(slot), kPageBytes});
}

BlockHeader HeaderOf(const BlockTransfer::Slot& slot) {
  BlockHeader header;
  std::memcpy(header.data(), slot.head.data(), header.size());
  return header;
}

void TakePayload(const BlockTransfer::Slot& slot, std::span<std::byte> into,
                 BlockChecksum& checksum) {
  if (!BeginsAtPage(into.data())) {
    checksum.CopyAndAdd({slot.bounce.data(), into.size()}, into.data());
    return;
  }
  const size_t whole = RoundDown(into.size(), kPageBytes);
  checksum.Add(into.first(whole));
  if (whole < into.size()) {
    checksum.CopyAndAdd({TailOf(slot), into.size() - whole}, into.data() + whole);
  }
}

}  // namespace kvasir
