// A process that a test kills: writes, erases and flushes blocks of a disk tier until it dies, and
// says on standard output what it is about to do and what it has done.
//
//   tier_writer FOLDER FIRST    numbers of blocks begin at FIRST
//   lines: "open", "ready", "wrote N", "erase N" (before), "erased N" (after), "flushed"
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include "allocator/tier/disk_tier.h"
#include "base/bytes.h"
#include "base/check.h"
#include "base/error.h"
#include "base/log.h"
#include "tests/tier/tier_blocks.h"
#include "tests/tier/tier_crash.h"

namespace kvasir::testing {
namespace {

// One write(2) a line: what was said before the end was done before it.
void Say(const std::string& line) {
  const std::string text = line + "\n";
  KVASIR_CHECK(std::fwrite(text.data(), 1, text.size(), stdout) == text.size(), "stdout");
  (void)std::fflush(stdout);
}

void WriteSome(DiskTier& tier, uint64_t first, size_t count) {
  std::vector<std::vector<std::byte>> payloads;
  for (size_t i = 0; i < count; ++i) {
    payloads.push_back(BytesFor(first + i, CrashBlockBytes(first + i)));
  }
  const std::vector<std::span<const std::byte>> parts(payloads.begin(), payloads.end());
  std::vector<WriteItem> items;
  for (size_t i = 0; i < count; ++i) items.push_back({KeyOf(first + i), std::span(&parts[i], 1)});
  std::vector<absl::Status> statuses(count);
  tier.Write(items, statuses);
  for (size_t i = 0; i < count; ++i) {
    if (statuses[i].ok()) Say("wrote " + std::to_string(first + i));
  }
}

int Run(const std::string& folder, uint64_t first) {
  spdlog::set_level(spdlog::level::warn);
  Say("open");
  auto tier = DiskTier::Open(CrashDisk(folder), MakeSystemIo());
  KVASIR_CHECK(tier.ok(), "open: {}", MessageOf(tier.status()));
  Say("ready");
  std::mt19937 random(static_cast<uint32_t>(first));
  std::vector<uint64_t> there;
  for (uint64_t next = first;;) {
    const uint64_t dice = random() % 8;
    if (dice < 5 || there.empty()) {
      const size_t count = 1 + random() % 6;
      WriteSome(**tier, next, count);
      for (size_t i = 0; i < count; ++i) there.push_back(next + i);
      next += count;
    } else if (dice < 7) {
      const size_t i = random() % there.size();
      const TierKey key = KeyOf(there[i]);
      Say("erase " + std::to_string(there[i]));
      KVASIR_CHECK((*tier)->Erase(std::span(&key, 1)).ok(), "erase");
      Say("erased " + std::to_string(there[i]));
      there.erase(there.begin() + static_cast<std::ptrdiff_t>(i));
    } else {
      KVASIR_CHECK((*tier)->Flush().ok(), "flush");
      Say("flushed");
    }
  }
}

}  // namespace
}  // namespace kvasir::testing

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  return kvasir::testing::Run(argv[1], std::strtoull(argv[2], nullptr, 10));
}
