#include "daemon/handover/take_over.h"

#include <algorithm>
#include <charconv>
#include <string_view>
#include <utility>

#include "base/error.h"
#include "base/log.h"
#include "daemon/handover/run_handover_job.h"
#include "proto/shm/layout_hash.h"

#include <fmt/format.h>

namespace kvasir {
namespace {

constexpr std::string_view kIndexPrefix = "kvasir-index-";
constexpr std::string_view kExtentPrefix = "kvasir-extent-";
// Of what a record says, beside the layout of groups.
constexpr uint64_t kHandoverFormat = 1;

// The number behind `prefix`, written as we write it; nothing: another name.
std::optional<uint64_t> NumberIn(std::string_view name, std::string_view prefix) {
  if (!name.starts_with(prefix)) return std::nullopt;
  name.remove_prefix(prefix.size());
  uint64_t number = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), number);
  if (error != std::errc() || end != name.data() + name.size()) return std::nullopt;
  return number;
}

void Forget(FdStore& store, const std::string& name) {
  const absl::Status forgotten = store.Forget(name);
  if (forgotten.ok()) return;
  spdlog::warn("the service manager was not told to close a descriptor: name={} {}", name,
               MessageOf(forgotten));
}

// The index of the highest epoch that can be read.
std::unique_ptr<HandoverIndex> NewestIndex(std::vector<NamedFd>& fds,
                                           const std::optional<ChainHasher::Secret>& secret) {
  std::unique_ptr<HandoverIndex> newest;
  for (NamedFd& one : fds) {
    if (!NumberIn(one.name, kIndexPrefix)) continue;
    absl::StatusOr<std::unique_ptr<HandoverIndex>> index =
        HandoverIndex::Open(std::move(one.fd), HandoverLayout());
    if (index.ok() && secret && (*index)->secret() != *secret) {
      index = FailedPrecondition("its keys were made with another secret");
    }
    if (!index.ok()) {
      spdlog::warn("the index of the process before is dropped: name={} reason={}", one.name,
                   MessageOf(index.status()));
    } else if (newest == nullptr || (*index)->epoch() > newest->epoch()) {
      newest = *std::move(index);
    }
  }
  return newest;
}

// Decodes the records of the index. Returns the sizes of the extents that they name, by id.
std::map<uint64_t, uint64_t> ReadRecords(TakenOver& taken) {
  std::map<uint64_t, uint64_t> wanted;
  for (HandoverIndex::Record& record : taken.index->Read()) {
    absl::StatusOr<core::Adoption::Prefix> prefix =
        DecodeHandoverRecord(record.payload, taken.index->secret());
    if (!prefix.ok()) {
      spdlog::warn("a record of the process before is dropped: {}", MessageOf(prefix.status()));
      taken.index->Strike(record.at);
      continue;
    }
    prefix->record = taken.records.size() + 1;
    taken.records[prefix->record] = record.at;
    for (const auto& lane : prefix->prefix.lanes) {
      for (const core::StoredPrefix::Run& run : lane) wanted[run.extent] = run.extent_bytes;
    }
    taken.adoption.prefixes.push_back(*std::move(prefix));
  }
  return wanted;
}

}  // namespace

std::string IndexName(uint64_t epoch) { return fmt::format("{}{}", kIndexPrefix, epoch); }
std::string ExtentName(uint64_t id) { return fmt::format("{}{}", kExtentPrefix, id); }
uint64_t HandoverLayout() { return shm::LayoutHash() + kHandoverFormat; }

TakenOver TakeOver(std::vector<NamedFd> fds, const std::optional<ChainHasher::Secret>& secret,
                   FdStore& store) {
  TakenOver taken;
  taken.index = NewestIndex(fds, secret);
  std::map<uint64_t, uint64_t> wanted;
  if (taken.index != nullptr) wanted = ReadRecords(taken);
  for (NamedFd& one : fds) {
    const std::optional<uint64_t> epoch = NumberIn(one.name, kIndexPrefix);
    if (epoch && taken.index != nullptr && *epoch == taken.index->epoch()) continue;
    const std::optional<uint64_t> id = NumberIn(one.name, kExtentPrefix);
    if (!id || !wanted.contains(*id)) {
      Forget(store, one.name);
      continue;
    }
    if (taken.extents.contains(*id)) continue;  // kept twice; one of them will do
    absl::StatusOr<std::unique_ptr<Extent>> extent =
        Extent::Adopt(std::move(one.fd), wanted.at(*id), *id);
    if (!extent.ok()) {
      spdlog::warn("an extent of the process before is dropped: {}", MessageOf(extent.status()));
      Forget(store, one.name);
      continue;
    }
    taken.extents.insert(*id);
    taken.next_extent_id = std::max(taken.next_extent_id, *id + 1);
    taken.extent_bytes += (*extent)->bytes();
    taken.adoption.extents[*id] = *std::move(extent);
  }
  return taken;
}

}  // namespace kvasir
