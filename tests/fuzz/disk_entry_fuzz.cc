// What lies on disk of a block: index entries and headers. Any bytes are refused, or name units
// that are taken once, lie inside the place and are given back.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>

#include "allocator/tier/block_catalogue.h"
#include "allocator/tier/block_header.h"
#include "allocator/tier/index_entry.h"

#include <xxhash.h>

namespace {

constexpr uint64_t kUnits = 64, kUnitBytes = 4096, kAreaBytes = 16 * kUnitBytes;

void Expect(bool holds) {
  if (!holds) std::abort();
}

void Restore(kvasir::BlockCatalogue& catalogue, const kvasir::IndexEntry& entry) {
  uint64_t units = 0;
  for (const kvasir::UnitRun& run : entry.runs) units += run.count;
  if (units == 0 || !catalogue.Restore(entry.key, entry.payload_bytes, entry.runs)) return;
  Expect(units <= kUnits);
  uint64_t bytes = 0;
  for (const kvasir::Piece& piece :
       kvasir::PiecesOf(entry.runs, kUnitBytes, kAreaBytes, units * kUnitBytes)) {
    Expect(piece.area < kUnits * kUnitBytes / kAreaBytes);
    Expect(piece.offset <= kAreaBytes && piece.bytes <= kAreaBytes - piece.offset);
    bytes += piece.bytes;
  }
  Expect(bytes == units * kUnitBytes);
}

}  // namespace

// The first byte says whether the checksum is made right; then a header or a key, and a value.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 1 + kvasir::kTierKeyBytes) return 0;
  kvasir::BlockHeader header{};
  std::memcpy(header.data(), data + 1, std::min(size - 1, header.size()));
  kvasir::TierKey asked;
  std::memcpy(asked.bytes.data(), header.data() + 24, asked.bytes.size());
  (void)kvasir::CheckHeader(header, 7, asked, 4096);
  const std::string key(reinterpret_cast<const char*>(data) + 1, kvasir::kTierKeyBytes);
  std::string value(reinterpret_cast<const char*>(data) + 1 + key.size(), size - 1 - key.size());
  if ((data[0] & 1U) != 0) {
    const uint64_t sum = XXH3_64bits((key + value).data(), key.size() + value.size());
    value.append(reinterpret_cast<const char*>(&sum), sizeof(sum));
  }
  kvasir::IndexEntry entry;
  if (!kvasir::DecodeIndexEntry(key, value, &entry)) return 0;
  kvasir::IndexEntry again;
  const std::string written = kvasir::EncodeIndexEntry(entry);
  Expect(kvasir::DecodeIndexEntry(key, written, &again) && again.runs == entry.runs);
  kvasir::BlockCatalogue catalogue(kUnits, kUnitBytes);
  Restore(catalogue, entry);
  entry.key.bytes[0] ^= 1;
  Restore(catalogue, entry);  // the same units: they are taken
  return 0;
}
