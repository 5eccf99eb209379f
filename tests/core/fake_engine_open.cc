// FakeEngine: the ways to open a stream, what is asked under a share, and memory of devices.
#include <algorithm>
#include <cstring>
#include <utility>

#include <gtest/gtest.h>

#include "allocator/device_memory.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "daemon/core/tenant_verbs.h"
#include "tests/core/fake_engine.h"

namespace kvasir::core::testing {

absl::StatusOr<FakeEngine::Stream> FakeEngine::Open(uint32_t model_id, const std::string& retention,
                                                    uint64_t prompt_rows) {
  KVASIR_ASSIGN_OR_RETURN(
      const Sequence* sequence,
      core_.OpenSequence(*session_, {model_id, retention, prompt_rows, "fake", 0, true, {}}));
  return StreamOf(*sequence);
}

absl::StatusOr<FakeEngine::Stream> FakeEngine::Resume(uint32_t model_id,
                                                      const std::string& retention,
                                                      const SnapshotId& snapshot,
                                                      const std::vector<uint32_t>& ids) {
  OpenRequest request{model_id, retention, 0, "fake", 0, true, snapshot};
  PrefixLoading loading;
  loading.gave_up = !waits_for_tiers;
  if (run_tiers) request.loading = &loading;
  KVASIR_ASSIGN_OR_RETURN(const Sequence* sequence, core_.OpenSequence(*session_, request));
  for (int attempt = 0; sequence == nullptr; ++attempt) {
    if (attempt == 4) return Internal("a saved sequence does not come up");
    run_tiers();
    KVASIR_ASSIGN_OR_RETURN(sequence, core_.OpenSequence(*session_, request));
  }
  Stream stream = StreamOf(*sequence);
  stream.rows = sequence->rows();
  stream.ids.assign(ids.begin(), ids.begin() + static_cast<ptrdiff_t>(stream.rows));
  return stream;
}

absl::StatusOr<FakeEngine::Stream> FakeEngine::Attach(OpenRequest request, const std::string& salt,
                                                      PrefixRequest prefix) {
  KVASIR_ASSIGN_OR_RETURN(const PrefixScopes scopes,
                          core_.ScopesOf(*session_, request.model_id, salt));
  KVASIR_ASSIGN_OR_RETURN(const PrefixKeys keys, HashPrefix(scopes, std::move(prefix)));
  request.prefix = &keys;
  request.reads_records = true;
  PrefixLoading loading;
  loading.gave_up = !waits_for_tiers;
  if (run_tiers) request.loading = &loading;
  KVASIR_ASSIGN_OR_RETURN(const Sequence* sequence, core_.OpenSequence(*session_, request));
  for (int attempt = 0; sequence == nullptr; ++attempt) {
    if (attempt == 4) return Internal("a prefix does not come up");
    run_tiers();
    KVASIR_ASSIGN_OR_RETURN(sequence, core_.OpenSequence(*session_, request));
  }
  Stream stream = StreamOf(*sequence);
  stream.rows = sequence->rows();
  stream.ids.assign(keys.tokens.begin(), keys.tokens.begin() + static_cast<ptrdiff_t>(stream.rows));
  return stream;
}

const shm::RecentRef& FakeEngine::RefOf(const Stream& stream, uint32_t lane, uint64_t row) {
  const shm::SeqBoard& seq = board(stream.slot);
  const auto* dir = reinterpret_cast<const shm::RecentRef*>(d_.get() + seq.dir_off);
  return dir[lane * seq.dir_cap + row / 16 % seq.dir_cap];
}

std::byte* FakeEngine::GroupAt(uint32_t extent, uint64_t offset,
                               const shm::GroupGeometry& geometry) {
  const auto found = pairs_.find(extent);
  if (found == pairs_.end()) return extents_[extent] + offset;
  const DeviceRows& rows = *found->second;
  std::vector<std::byte>& copy = copies_[{extent, offset}];
  copy.resize(geometry.bytes);
  const std::span<std::byte> planes = std::span(copy).first(geometry.pos_off);
  EXPECT_TRUE(rows.device->Read(rows.memory->address() + offset, planes).ok());
  std::memcpy(copy.data() + geometry.pos_off,
              extents_[extent] + offset / rows.group_bytes * rows.trailer_bytes,
              rows.trailer_bytes);
  return copy.data();
}

void FakeEngine::PutGroup(uint32_t extent, uint64_t offset, const shm::GroupGeometry& geometry) {
  const auto found = pairs_.find(extent);
  if (found == pairs_.end()) return;
  const DeviceRows& rows = *found->second;
  const std::vector<std::byte>& copy = copies_.at({extent, offset});
  const std::span<const std::byte> planes = std::span(copy).first(geometry.pos_off);
  EXPECT_TRUE(rows.device->Write(planes, rows.memory->address() + offset).ok());
  std::memcpy(extents_[extent] + offset / rows.group_bytes * rows.trailer_bytes,
              copy.data() + geometry.pos_off, rows.trailer_bytes);
}

RetrieveAnswer FakeEngine::Retrieve(const Stream& stream, uint32_t layer, uint64_t mass_blocks,
                                    bool* asked, bool share) {
  if (share) {
    TenantVerbs verbs(core_, 0, 1);
    const auto answer =
        verbs.Retrieve(*session_, stream.slot, stream.uid, layer, mass_blocks, asked);
    if (answer) return *answer;
  }
  return core_.Retrieve(*session_, stream.slot, stream.uid, layer, mass_blocks, asked);
}

}  // namespace kvasir::core::testing
