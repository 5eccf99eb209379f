#include "daemon/control/budget_convert.h"

#include <algorithm>

#include "base/error.h"

namespace kvasir {

void Fill(const core::Budget& budget, v1::Budget* out) {
  out->set_reserved_bytes(budget.reserved_bytes);
  out->set_limit_bytes(budget.limit_bytes);
  out->set_weight(budget.weight);
  out->set_disk_reserved_bytes(budget.disk_reserved_bytes);
  out->set_disk_bytes(budget.disk_bytes);
  out->set_remote_bytes(budget.remote_bytes);
  out->set_sessions_max(budget.counts.sessions);
  out->set_sequences_max(budget.counts.sequences);
  out->set_models_max(budget.counts.models);
  out->set_snapshots_max(budget.counts.snapshots);
  out->set_prefixes_max(budget.counts.prefixes);
  for (const core::DeviceBudget& device : budget.devices) {
    v1::DeviceBudget* const added = out->add_devices();
    added->set_pool(device.pool);
    added->set_reserved_bytes(device.reserved_bytes);
    added->set_limit_bytes(device.limit_bytes);
    added->set_weight(device.weight);
  }
}

absl::Status Apply(const v1::Budget& change, core::Budget* budget) {
  for (const v1::DeviceBudget& device : change.devices()) {
    const auto found = std::find_if(budget->devices.begin(), budget->devices.end(),
                                    [&](const auto& one) { return one.pool == device.pool(); });
    if (found == budget->devices.end()) {
      return NotFound("unknown pool of a device: budget.devices.pool={}", device.pool());
    }
    if (device.has_reserved_bytes()) found->reserved_bytes = device.reserved_bytes();
    if (device.has_limit_bytes()) found->limit_bytes = device.limit_bytes();
    if (device.has_weight()) found->weight = device.weight();
  }
  if (change.has_reserved_bytes()) budget->reserved_bytes = change.reserved_bytes();
  if (change.has_limit_bytes()) budget->limit_bytes = change.limit_bytes();
  if (change.has_weight()) budget->weight = change.weight();
  if (change.has_disk_reserved_bytes()) budget->disk_reserved_bytes = change.disk_reserved_bytes();
  if (change.has_disk_bytes()) budget->disk_bytes = change.disk_bytes();
  if (change.has_remote_bytes()) budget->remote_bytes = change.remote_bytes();
  if (change.has_sessions_max()) budget->counts.sessions = change.sessions_max();
  if (change.has_sequences_max()) budget->counts.sequences = change.sequences_max();
  if (change.has_models_max()) budget->counts.models = change.models_max();
  if (change.has_snapshots_max()) budget->counts.snapshots = change.snapshots_max();
  if (change.has_prefixes_max()) budget->counts.prefixes = change.prefixes_max();
  return absl::OkStatus();
}

std::vector<std::pair<std::string_view, std::string>> FieldsOf(const v1::Budget& change) {
  std::vector<std::pair<std::string_view, std::string>> fields;
  const auto add = [&](bool has, std::string_view name, uint64_t value) {
    if (has) fields.emplace_back(name, std::to_string(value));
  };
  add(change.has_reserved_bytes(), "reserved_bytes", change.reserved_bytes());
  add(change.has_limit_bytes(), "limit_bytes", change.limit_bytes());
  add(change.has_weight(), "weight", change.weight());
  add(change.has_disk_reserved_bytes(), "disk_reserved_bytes", change.disk_reserved_bytes());
  add(change.has_disk_bytes(), "disk_bytes", change.disk_bytes());
  add(change.has_remote_bytes(), "remote_bytes", change.remote_bytes());
  add(change.has_sessions_max(), "sessions_max", change.sessions_max());
  add(change.has_sequences_max(), "sequences_max", change.sequences_max());
  add(change.has_models_max(), "models_max", change.models_max());
  add(change.has_snapshots_max(), "snapshots_max", change.snapshots_max());
  add(change.has_prefixes_max(), "prefixes_max", change.prefixes_max());
  for (const v1::DeviceBudget& device : change.devices()) {
    fields.emplace_back("pool", device.pool());
    add(device.has_reserved_bytes(), "pool_reserved_bytes", device.reserved_bytes());
    add(device.has_limit_bytes(), "pool_limit_bytes", device.limit_bytes());
    add(device.has_weight(), "pool_weight", device.weight());
  }
  return fields;
}

}  // namespace kvasir
