// What people ask of the core: statistics and inspection.
#include <map>
#include <memory>
#include <set>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/status_macros.h"
#include "daemon/core/kv_core.h"

namespace kvasir::core {
namespace {

// Groups that the entries share are counted once.
template <typename Entries>
uint64_t BytesOfAll(const Entries& entries) {
  uint64_t bytes = 0;
  GroupSet shared;
  for (const auto& [id, entry] : entries) {
    bytes += entry.snapshot->own_bytes();
    entry.snapshot->AddSharedGroups(&shared);
  }
  for (const KeptGroup* group : shared) bytes += group->geometry().bytes;
  return bytes;
}

// Of a device: extents and charge, and what is held is what is named.
absl::Status CheckDevice(const Tenant& tenant,
                         const std::map<uint32_t, std::unique_ptr<Session>>& sessions, size_t place,
                         uint64_t named) {
  const TenantDevice& device = *tenant.devices[place];
  uint64_t owned = device.kept.rows_bytes() + device.outside.rows_bytes() +
                   device.account.quarantined_rows_bytes();
  uint64_t held = device.held_bytes();
  for (const auto& [id, session] : sessions) {
    const auto recent = session->device_recent.find(place);
    if (&session->tenant != &tenant || recent == session->device_recent.end()) continue;
    owned += recent->second.rows_bytes();
    held += recent->second.held_bytes();
  }
  const DeviceAccount& account = device.account;
  if (owned != account.charged_bytes() - account.waste_bytes() || held > owned || held != named) {
    return Internal(
        "tenant's extents of a device and its charge differ: tenant={} pool={} extents={} "
        "charged={} waste={} held={} named={}",
        account.tenant(), account.memory().name(), owned, account.charged_bytes(),
        account.waste_bytes(), held, named);
  }
  return account.memory().pool().CheckConservation();
}

DeviceReport DeviceReportOf(const TenantDevice& device) {
  const DeviceAccount& account = device.account;
  return {account.memory().name(), device.held_bytes(), account.charged_bytes(),
          account.waste_bytes(),   account.own_bytes(), account.budget(),
          device.offloads};
}

}  // namespace

SequenceReport KvCore::ReportOf(const Session& session, const Sequence& sequence) const {
  SequenceReport report;
  report.identity = sequence.identity();
  report.summary = sequence.Summary();
  report.tenant = session.tenant.config.name;
  report.model = sequence.model().description().name;
  report.session_id = session.id;
  report.pid = session.peer.pid;
  report.layers = sequence.model().layers();
  const SequencePlace& place = sequence_places_.at(sequence.identity().id);
  report.hints = place.hints;
  report.request_age_ms = AgeMsOf(place);
  report.suspend_wanted = place.suspend_wanted;
  return report;
}

std::vector<SequenceReport> KvCore::SequenceReports() const {
  std::vector<SequenceReport> reports;
  for (const auto& [id, place] : sequence_places_) {
    reports.push_back(ReportOf(*place.session, *place.session->sequences[place.slot]));
  }
  return reports;
}

std::vector<TenantReport> KvCore::TenantReports() const {
  std::vector<TenantReport> reports;
  const std::vector<uint64_t> own = lending_.Guarantees();  // in the tenants' order
  for (const auto& tenant : tenants_) {
    TenantReport report;
    report.name = tenant->config.name;
    report.held_bytes = tenant->kept.held_bytes() + tenant->outside.held_bytes();
    report.charged_bytes = tenant->account.charged_bytes();
    report.limit_bytes = tenant->account.limit_bytes();
    report.reserved_bytes = tenant->account.budget().reserved_bytes;
    report.weight = tenant->account.budget().weight;
    report.own_bytes = own[reports.size()];
    report.wanted_back_bytes = tenant->wanted_back;
    report.taken_back_bytes = tenant->account.taken_back_bytes();
    report.sessions = tenant->sessions;
    report.models = tenant->models;
    report.budget = tenant->account.budget();
    report.foretold = tenant->responses.foretold();
    report.foretold_tau = tenant->responses.Tau();
    report.typical_response_rows = tenant->responses.typical_rows();
    report.counters = tenant->counters;
    report.snapshots = tenant->snapshots.size();
    report.snapshot_bytes = BytesOfAll(tenant->snapshots.entries());
    report.prefixes = tenant->prefixes.entries().size();
    report.prefix_bytes = BytesOfAll(tenant->prefixes.entries());
    report.prefix_chunks = tenant->prefixes.blocks();
    report.prefix_metadata_bytes = tenant->prefixes.MetadataBytes();
    for (const auto& device : tenant->devices) {
      report.prefixes += device->prefixes.entries().size();
      report.prefix_bytes += BytesOfAll(device->prefixes.entries());
      report.prefix_chunks += device->prefixes.blocks();
      report.prefix_metadata_bytes += device->prefixes.MetadataBytes();
    }
    report.frozen_bytes = tenant->kept.frozen_bytes() + tenant->outside.frozen_bytes();
    report.handover_prefixes = tenant->notes.records();
    report.prefix_leases = leases_.CountOf(*tenant);
    for (const auto& device : tenant->devices) {
      report.devices.push_back(DeviceReportOf(*device));
    }
    for (const auto& [id, session] : sessions_) {
      if (&session->tenant != tenant.get()) continue;
      report.held_bytes += session->recent.held_bytes();
      for (const auto& [device, recent] : session->device_recent) {
        report.devices[device].held_bytes += recent.held_bytes();
      }
      for (const auto& sequence : session->sequences) {
        if (sequence == nullptr) continue;
        const SequenceSummary summary = sequence->Summary();
        ++report.sequences;
        report.rows_seen += summary.rows_seen;
        report.rows_kept += summary.rows_kept;
      }
    }
    reports.push_back(std::move(report));
  }
  return reports;
}

std::vector<DemandReport> KvCore::DemandReports() const {
  std::vector<DemandReport> reports;
  for (const auto& tenant : tenants_) {
    reports.push_back({tenant->config.name, tenant->demand.Report()});
  }
  return reports;
}

absl::StatusOr<Inspection> KvCore::Inspect(const std::string* tenant, uint64_t sequence_id,
                                           uint32_t layer, uint64_t first_row,
                                           uint32_t max_rows) const {
  const auto place = sequence_places_.find(sequence_id);
  // Another tenant's is as unknown as one that does not exist, before anything else is judged.
  if (place == sequence_places_.end() ||
      (tenant != nullptr && place->second.session->tenant.config.name != *tenant)) {
    return NotFound("unknown or closed sequence: sequence_id={}", sequence_id);
  }
  const Session& session = *place->second.session;
  const Sequence& sequence = *session.sequences[place->second.slot];
  if (layer >= sequence.model().layers()) {
    return InvalidArgument("layer is out of bounds: value={} max={}", layer,
                           sequence.model().layers() - 1);
  }
  const std::map<TokenId, std::string>* texts = nullptr;
  for (const auto& [id, registered] : session.models) {
    if (&registered->model == &sequence.model()) texts = &registered->texts;
  }
  const auto with_texts = [texts](const std::vector<RowReport>& reports) {
    std::vector<InspectedRow> rows;
    for (const RowReport& row : reports) {
      InspectedRow inspected{row, ""};
      const auto text = texts->find(row.token);
      if (row.token_known && text != texts->end()) inspected.text = text->second;
      rows.push_back(std::move(inspected));
    }
    return rows;
  };
  Inspection inspection;
  inspection.sequence = ReportOf(session, sequence);
  inspection.kv_heads = sequence.model().description().layers[layer].kv_heads;
  inspection.rows = with_texts(sequence.Inspect(layer, first_row, max_rows));
  inspection.prompt_rows = sequence.prompt_rows();
  inspection.prompt = with_texts(sequence.InspectPrompt(first_row, max_rows));
  return inspection;
}

uint64_t KvCore::NamedBytes(const Tenant& tenant, const TenantDevice* device) const {
  const auto owns = [&](const GroupAllocator* of) {
    return device != nullptr ? device->Owns(of) : tenant.kept.Owns(of) || tenant.outside.Owns(of);
  };
  const DeviceMemory* const memory = device == nullptr ? nullptr : &device->account.memory();
  const auto bytes_of = [&](const shm::GroupGeometry& geometry) {
    return device == nullptr ? geometry.bytes : PlaneBytes(geometry);
  };
  const auto own_bytes_of = [&](const Sequence& sequence) {
    if (device == nullptr) return sequence.own_host_bytes();
    return sequence.device() == memory ? sequence.own_device_bytes() : 0;
  };
  GroupSet groups;  // sequences and snapshots share them
  std::set<const Snapshot*> snapshots;
  uint64_t bytes = 0;
  // What a public tenant has given may be named by anybody.
  for (const auto& other : tenants_) {
    for (const auto& [id, entry] : other->snapshots.entries()) {
      snapshots.insert(entry.snapshot.get());
    }
    for (const auto& [id, entry] : other->prefixes.entries()) {
      snapshots.insert(entry.snapshot.get());
    }
    for (const auto& place : other->devices) {
      for (const auto& [id, entry] : place->prefixes.entries()) {
        snapshots.insert(entry.snapshot.get());
      }
    }
    if (other->adopted == nullptr) continue;
    for (const auto& [id, entry] : other->adopted->cache().entries()) {
      snapshots.insert(entry.snapshot.get());
    }
  }
  for (const auto& [id, snapshot] : moving_) snapshots.insert(snapshot.get());
  offloads_.ForEachSnapshot([&](const Snapshot& snapshot) { snapshots.insert(&snapshot); });
  for (const auto& job : verifications_) snapshots.insert(job->snapshot.get());
  for (const auto& group : handing_over_) groups.insert(group.get());
  for (const auto& [id, lease] : leases_.all()) {
    for (const LeasedPrefix& member : lease.members) snapshots.insert(member.snapshot.get());
  }
  for (const auto& [id, condensing] : condensings_) {
    condensing->AddHoldings(&groups, &snapshots);
    if (&condensing->tenant() == &tenant) bytes += own_bytes_of(*condensing->sequence());
  }
  for (const auto& [id, place] : sequence_places_) {
    const Sequence& sequence = *place.session->sequences[place.slot];
    if (&place.session->tenant == &tenant) bytes += own_bytes_of(sequence);
    sequence.AddHoldings(&groups, &snapshots);
  }
  std::set<const BlockList*> blocks;  // one whose groups were moved shares them with the one before
  for (const Snapshot* snapshot : snapshots) {
    for (const Snapshot::Lane& lane : snapshot->lanes) {
      if (lane.recent == nullptr || !owns(&lane.recent->allocator())) continue;
      if (blocks.insert(lane.recent.get()).second) bytes += lane.recent->bytes();
    }
    snapshot->AddSharedGroups(&groups);
  }
  for (const KeptGroup* group : groups) {
    if (owns(&group->allocator())) bytes += bytes_of(group->geometry());
  }
  for (const auto& [id, session] : sessions_) {
    if (&session->tenant != &tenant) continue;
    for (const auto& [model_id, model] : session->models) {
      if (!model->probe || model->model.device() != memory) continue;
      bytes += bytes_of(model->probe_geometry);
    }
  }
  return bytes;
}

absl::Status KvCore::CheckConservation() const {
  uint64_t charged = 0;
  for (const auto& tenant : tenants_) {
    uint64_t owned = tenant->kept.charged_bytes() + tenant->outside.charged_bytes() +
                     tenant->account.quarantined_bytes() + tenant->account.taken_back_bytes();
    for (size_t place = 0; place < tenant->devices.size(); ++place) {
      const TenantDevice& device = *tenant->devices[place];
      owned += device.account.trailer_bytes();
      KVASIR_RETURN_IF_ERROR(CheckDevice(*tenant, sessions_, place, NamedBytes(*tenant, &device)));
    }
    uint64_t held = tenant->kept.held_bytes() + tenant->outside.held_bytes();
    for (const auto& [id, session] : sessions_) {
      if (&session->tenant != tenant.get()) continue;
      owned += session->recent.charged_bytes();
      held += session->recent.held_bytes();
    }
    if (owned != tenant->account.charged_bytes()) {
      return Internal("tenant's extents and its charge differ: tenant={} extents={} charged={}",
                      tenant->config.name, owned, tenant->account.charged_bytes());
    }
    if (held > owned) {
      return Internal("tenant holds more than it owns: tenant={} held={} charged={}",
                      tenant->config.name, held, owned);
    }
    const uint64_t named = NamedBytes(*tenant, nullptr);
    if (named != held) {
      return Internal("what is named and what is held differ: tenant={} named={} held={}",
                      tenant->config.name, named, held);
    }
    charged += tenant->account.pool_bytes();
  }
  const HostPoolCounts counts = pool_.counts();
  if (counts.charged_bytes < charged) {  // more: the stock is being filled at this moment
    return Internal("tenants are charged more than the pool has given: tenants={} pool={}", charged,
                    counts.charged_bytes);
  }
  return pool_.CheckConservation();
}

}  // namespace kvasir::core
