#include "daemon/handover/run_handover_job.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "base/error.h"
#include "base/status_macros.h"
#include "daemon/core/copy_job.h"
#include "daemon/core/snapshot_state.h"
#include "daemon/core/tenant.h"
#include "daemon/core/whole_snapshot.h"
#include "daemon/store/prefix_manifest.h"
#include "daemon/store/run_tier_job.h"
#include "kvasir/v1/prefix_manifest.pb.h"

namespace kvasir {

void VerifyGroup(const core::HandoverJob::Item& item, core::HandoverJob& job) {
  const bool has_trailer = item.at.kept == nullptr || core::HasTrailer(*item.at.kept);
  if (DigestOf(item.at.planes()) == item.digest && has_trailer) return;
  job.status = DataLoss("a group of the process before has other bytes: extent={} offset={}",
                        item.at.group().extent->id(), item.at.group().offset);
}

void DigestGroups(core::HandoverJob& job) {
  for (core::HandoverJob::Item& item : job.items) {
    if (!item.digested) item.digest = DigestOf(item.at.planes());
  }
}

void CopyGroups(core::HandoverJob& job) {
  for (core::HandoverJob::Item& item : job.items) {
    const core::KeptGroup& from = *item.at.kept;
    const core::KeptGroup& to = *item.copy;
    std::memcpy(to.group().data(), from.group().data(), from.geometry().bytes);
    item.digest = DigestOf({to.group().data(), core::PlaneBytes(to.geometry())});
    if (from.digest && *from.digest != item.digest) {
      job.status = DataLoss("a group has other bytes than it had: extent={} offset={}",
                            from.group().extent->id(), from.group().offset);
    }
  }
}

absl::StatusOr<std::string> EncodeHandoverRecord(const core::HandoverJob& job,
                                                 const ChainHasher::Secret& secret) {
  std::string state;
  if (!core::IsWhole(*job.snapshot)) {
    KVASIR_ASSIGN_OR_RETURN(state, core::SaveSnapshot(*job.snapshot));
  }
  ManifestParts parts{job.tokens, state, {}, /*in_memory=*/true};
  for (const core::HandoverJob::Item& item : job.items) {
    parts.runs.push_back({&item.at, item.digest});
  }
  v1::HandoverRecord record;
  const std::array<uint8_t, kChainKeyBytes> tenant = job.tenant->key.ToBytes();
  record.set_tenant(tenant.data(), tenant.size());
  record.set_manifest(EncodeManifest(*job.snapshot, parts, secret));
  return record.SerializeAsString();
}

absl::StatusOr<core::Adoption::Prefix> DecodeHandoverRecord(std::string_view payload,
                                                            const ChainHasher::Secret& secret) {
  v1::HandoverRecord record;
  if (!record.ParseFromArray(payload.data(), static_cast<int>(payload.size()))) {
    return DataLoss("record is no message of its type: bytes={}", payload.size());
  }
  std::array<uint8_t, kChainKeyBytes> tenant{};
  if (record.tenant().size() != tenant.size()) {
    return InvalidArgument("record.tenant has another length: bytes={} expected={}",
                           record.tenant().size(), tenant.size());
  }
  std::copy(record.tenant().begin(), record.tenant().end(), tenant.begin());
  core::Adoption::Prefix prefix;
  prefix.tenant = ChainKey::FromBytes(tenant);
  KVASIR_ASSIGN_OR_RETURN(prefix.prefix, DecodeManifest(record.manifest(), secret));
  if (prefix.prefix.saved) return InvalidArgument("record is of a saved sequence");
  for (const auto& lane : prefix.prefix.lanes) {
    for (const core::StoredPrefix::Run& run : lane) {
      if (run.extent == 0) return InvalidArgument("manifest.lanes.runs.extent is 0");
    }
  }
  return prefix;
}

}  // namespace kvasir
