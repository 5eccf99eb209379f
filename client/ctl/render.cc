#include "client/ctl/render.h"

#include <google/protobuf/util/json_util.h>

#include "base/bytes.h"
#include "base/check.h"
#include "client/ctl/table.h"
#include "client/ctl/terminal_text.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

namespace kvasir::ctl {
namespace {

constexpr Table::Align kRight = Table::Align::kRight;

std::string Share(uint64_t part, uint64_t whole) {
  if (whole == 0) return "-";
  return fmt::format("{:.1f}%", 100.0 * static_cast<double>(part) / static_cast<double>(whole));
}

std::string Duration(uint64_t ms) {
  const uint64_t seconds = ms / 1000;
  if (seconds < 60) return fmt::format("{} s", seconds);
  if (seconds < 3600) return fmt::format("{} min {} s", seconds / 60, seconds % 60);
  const uint64_t hours = seconds / 3600;
  if (hours < 24) return fmt::format("{} h {} min", hours, seconds / 60 % 60);
  return fmt::format("{} d {} h", hours / 24, hours % 24);
}

}  // namespace

namespace {

std::string JsonOf(const google::protobuf::Message& message, bool lines) {
  google::protobuf::util::JsonPrintOptions options;
  options.add_whitespace = lines;
  options.always_print_primitive_fields = true;
  options.preserve_proto_field_names = true;
  std::string out;
  const auto status = google::protobuf::util::MessageToJsonString(message, &out, options);
  KVASIR_CHECK(status.ok(), "a generated message has a JSON form: {}", status.ToString());
  return out;
}

}  // namespace

std::string RenderJson(const google::protobuf::Message& message) { return JsonOf(message, true); }

std::string RenderJsonLine(const google::protobuf::Message& message) {
  return JsonOf(message, false) + "\n";
}

std::string RenderTenantsJson(const v1::GetStatsResponse& stats) {
  auto all = nlohmann::ordered_json::parse(RenderJson(stats));
  nlohmann::ordered_json out;
  out["boot_epoch"] = std::move(all["boot_epoch"]);
  out["tenants"] = std::move(all["tenants"]);
  return out.dump(1) + "\n";
}

std::string RenderStats(const v1::GetStatsResponse& stats) {
  Table totals({{"kvasird", Table::Align::kLeft}, {EscapeForTerminal(stats.version())}});
  totals.AddRow({"up", Duration(stats.uptime_ms())});
  totals.AddRow({"boot epoch", fmt::format("{}", stats.boot_epoch())});
  totals.AddRow({"pool", fmt::format("{}, {}", HumanBytes(stats.pool_bytes()),
                                     stats.memory_locked() ? "locked" : "not locked")});
  if (stats.pool_wanted_bytes() > stats.pool_bytes()) {
    totals.AddRow({"  wanted", fmt::format("{}: smaller for memory pressure",
                                           HumanBytes(stats.pool_wanted_bytes()))});
  }
  if (stats.pool_configured_bytes() != stats.pool_wanted_bytes()) {
    totals.AddRow({"  configured", HumanBytes(stats.pool_configured_bytes())});
  }
  totals.AddRow({"  free", fmt::format("{}, of these ready {}", HumanBytes(stats.pool_free_bytes()),
                                       HumanBytes(stats.pool_ready_bytes()))});
  totals.AddRow({"  charged", HumanBytes(stats.charged_bytes())});
  totals.AddRow({"  held", HumanBytes(stats.held_bytes())});
  totals.AddRow({"late faults", fmt::format("{}", stats.late_faults())});
  const std::string text = totals.Render() + RenderDevicePools(stats);
  return stats.tenants().empty() ? text : text + "\n" + RenderTenants(stats);
}

std::string RenderTenants(const v1::GetStatsResponse& stats) {
  Table table({{"TENANT"},
               {"SESSIONS", kRight},
               {"SEQUENCES", kRight},
               {"SEEN", kRight},
               {"KEPT", kRight},
               {"HELD", kRight},
               {"CHARGED", kRight},
               {"OWN", kRight},
               {"LIMIT", kRight},
               {"USED", kRight},
               {"COMPACTIONS", kRight},
               {"REJECTED", kRight},
               {"VIOLATIONS", kRight}});
  for (const v1::TenantStats& tenant : stats.tenants()) {
    const v1::MemoryCounts& host = tenant.host();
    table.AddRow({EscapeForTerminal(tenant.tenant()), fmt::format("{}", tenant.sessions()),
                  fmt::format("{}", tenant.sequences()), fmt::format("{}", tenant.rows_seen()),
                  fmt::format("{}", tenant.rows_kept()), HumanBytes(host.held_bytes()),
                  HumanBytes(host.charged_bytes()), HumanBytes(host.own_bytes()),
                  HumanBytes(host.limit_bytes()), Share(host.charged_bytes(), host.limit_bytes()),
                  fmt::format("{}", tenant.compactions()),
                  fmt::format("{}", tenant.rejected_calls()),
                  fmt::format("{}", tenant.violations())});
  }
  return table.empty() ? "no tenants\n" : table.Render();
}

std::string RenderSequences(const v1::ListSequencesResponse& sequences) {
  Table table({{"ID", kRight},
               {"TENANT"},
               {"PID", kRight},
               {"MODEL"},
               {"SEEN", kRight},
               {"KEPT", kRight},
               {"SHARE", kRight},
               {"HELD", kRight},
               {"COMPACTIONS", kRight},
               {"RETENTION"},
               {"LABEL"}});
  for (const v1::SequenceInfo& info : sequences.sequences()) {
    table.AddRow({fmt::format("{}", info.sequence_id()), EscapeForTerminal(info.tenant()),
                  fmt::format("{}", info.pid()), EscapeForTerminal(info.model()),
                  fmt::format("{}", info.rows_seen()), fmt::format("{}", info.rows_kept()),
                  Share(info.rows_kept(), info.rows_seen()), HumanBytes(info.held_bytes()),
                  fmt::format("{}", info.compactions()), EscapeForTerminal(info.retention()),
                  EscapeForTerminal(info.label())});
  }
  return table.empty() ? "no open sequences\n" : table.Render();
}

std::string RenderBudget(const std::string& tenant, const std::string& device_pool,
                         const v1::SetTenantBudgetResponse& response) {
  for (const v1::DeviceBudget& device : response.budget().devices()) {
    if (device.pool() != device_pool) continue;
    return fmt::format("{} on {}: {} reserved, weight {}, at most {}\n", EscapeForTerminal(tenant),
                       EscapeForTerminal(device.pool()), HumanBytes(device.reserved_bytes()),
                       device.weight(), HumanBytes(device.limit_bytes()));
  }
  const v1::MemoryCounts& host = response.host();
  return fmt::format("{}: {} reserved, weight {}, at most {}: {} its own, {} charged\n",
                     EscapeForTerminal(tenant), HumanBytes(host.reserved_bytes()), host.weight(),
                     HumanBytes(host.limit_bytes()), HumanBytes(host.own_bytes()),
                     HumanBytes(host.charged_bytes()));
}

std::string RenderResize(const v1::SetPoolSizeResponse& response) {
  if (response.reached_bytes() <= response.asked_bytes()) {
    return fmt::format("the pool has {}\n", HumanBytes(response.asked_bytes()));
  }
  Table table({{"TENANT"},
               {"SESSIONS", kRight},
               {"SEQUENCES", kRight},
               {"HELD", kRight},
               {"CHARGED", kRight}});
  for (const v1::PoolHolder& holder : response.holders()) {
    table.AddRow({EscapeForTerminal(holder.tenant()), fmt::format("{}", holder.sessions()),
                  fmt::format("{}", holder.sequences()), HumanBytes(holder.host().held_bytes()),
                  HumanBytes(holder.host().charged_bytes())});
  }
  return fmt::format(
      "the pool may have {} and has {} still: what sequences use stays, and extents that engines "
      "have mapped; nothing is given out until it fits\n\n{}",
      HumanBytes(response.asked_bytes()), HumanBytes(response.reached_bytes()), table.Render());
}

std::string RenderSnapshots(const v1::ListSnapshotsResponse& snapshots) {
  Table table({{"TENANT"},
               {"MODEL"},
               {"ROWS", kRight},
               {"HELD", kRight},
               {"AGE", kRight},
               {"RETENTION"},
               {"LABEL"}});
  for (const v1::SnapshotInfo& info : snapshots.snapshots()) {
    table.AddRow({EscapeForTerminal(info.tenant()), EscapeForTerminal(info.model()),
                  fmt::format("{}", info.rows()), HumanBytes(info.held_bytes()),
                  Duration(info.age_ms()), EscapeForTerminal(info.retention()),
                  EscapeForTerminal(info.label())});
  }
  return table.empty() ? "no snapshots\n" : table.Render();
}

namespace {

// What the rows of a prefix are, for people.
std::string FormOf(const std::string& retention, const std::string& condensed_from) {
  std::string form = EscapeForTerminal(retention);
  if (!condensed_from.empty()) form += " condensed from " + EscapeForTerminal(condensed_from);
  return form;
}

}  // namespace

std::string RenderPrefixes(const v1::ListPrefixesResponse& prefixes) {
  Table table({{"TENANT"},
               {"MODEL"},
               {"PLACE"},
               {"ROWS", kRight},
               {"HELD", kRight},
               {"HITS", kRight},
               {"LEASES", kRight},
               {"AGE", kRight},
               {"RETENTION"},
               {"LABEL"}});
  for (const v1::PrefixInfo& info : prefixes.prefixes()) {
    table.AddRow({EscapeForTerminal(info.tenant()), EscapeForTerminal(info.model()),
                  EscapeForTerminal(info.place()), fmt::format("{}", info.rows()),
                  HumanBytes(info.held_bytes()), fmt::format("{}", info.hits()),
                  fmt::format("{}", info.leases()), Duration(info.age_ms()),
                  FormOf(info.retention(), info.condensed_from()),
                  EscapeForTerminal(info.label())});
  }
  return table.empty() ? "no prefixes\n" : table.Render();
}

namespace {

// One sentence for people.
std::string WhyOf(const v1::PrefixLookup& lookup) {
  const std::string& cause = lookup.cause();
  const std::string row = fmt::format("{}", lookup.row());
  const std::string nearest = EscapeForTerminal(lookup.nearest());
  if (cause == "hit") return "all that can be shared";
  if (cause == "not stored") return "nothing from row " + row + " on was published";
  if (cause == "token") return "another token at row " + row;
  if (cause == "extra") return "what a token stands for differs behind row " + row;
  if (cause == "salt") return "cached under another salt";
  if (cause == "model") return "cached for another model: " + nearest;
  if (cause == "form") return "cached in another form: " + nearest;
  if (cause == "prompt") return "cached for a prompt of another length";
  if (cause == "border") {
    return fmt::format("cached, but to be gone on from at row {} alone", lookup.nearest_rows());
  }
  if (cause == "evicted") {
    return "evicted " + Duration(lookup.evicted_ms_ago()) + " ago" +
           (nearest.empty() ? "" : ", cached in another form: " + nearest);
  }
  if (cause == "degraded") return "made smaller, found with least_quality: " + nearest;
  if (cause == "engine") return "cached, but the engine cannot read it";
  if (cause == "lease") return "cached, but not for all of its request group";
  return EscapeForTerminal(cause);
}

}  // namespace

std::string RenderLookups(const v1::ListPrefixLookupsResponse& lookups) {
  Table table({{"SEQUENCE", kRight},
               {"TENANT"},
               {"PROMPT", kRight},
               {"CACHED", kRight},
               {"SHARE", kRight},
               {"AGE", kRight},
               {"WHY NO MORE"},
               {"RETENTION"},
               {"LABEL"}});
  for (const v1::PrefixLookup& one : lookups.lookups()) {
    table.AddRow({fmt::format("{}", one.sequence_id()), EscapeForTerminal(one.tenant()),
                  fmt::format("{}", one.rows()), fmt::format("{}", one.rows_hit()),
                  Share(one.rows_hit(), one.rows()), Duration(one.age_ms()), WhyOf(one),
                  EscapeForTerminal(one.retention()), EscapeForTerminal(one.label())});
  }
  return table.empty() ? "no prompts\n" : table.Render();
}

std::string RenderCurves(const v1::GetHitRateCurvesResponse& curves) {
  std::string out;
  for (const v1::HitRateCurve& curve : curves.curves()) {
    if (!out.empty()) out += "\n";
    const std::string tenant = EscapeForTerminal(curve.tenant());
    if (curve.points().empty()) {
      out += fmt::format("tenant {}: no prompt was asked with\n", tenant);
      continue;
    }
    out += fmt::format("tenant {}: {} chunks of {} asked for", tenant, curve.chunks_asked(),
                       HumanBytes(curve.chunk_bytes()));
    if (curve.stands_for() > 1) out += fmt::format(", one in {} followed", curve.stands_for());
    Table table({{"TIMES", kRight},
                 {"MEMORY", kRight},
                 {"CHUNKS", kRight},
                 {"HIT", kRight},
                 {"GAIN", kRight}});
    double before = 0;
    for (const v1::HitRatePoint& point : curve.points()) {
      table.AddRow({fmt::format("{:g}", point.times()), HumanBytes(point.bytes()),
                    fmt::format("{}", point.chunks()),
                    fmt::format("{:.1f}%", 100 * point.hit_ratio()),
                    fmt::format("{:+.1f}", 100 * (point.hit_ratio() - before))});
      before = point.hit_ratio();
    }
    out += "\n" + table.Render();
  }
  return out.empty() ? "no tenants\n" : out;
}

std::string RenderEvent(const v1::PrefixEvent& event) {
  if (event.kind() == v1::PrefixEvent::KIND_LOST) {
    return fmt::format("{} lost: earlier events are not remembered\n", event.number());
  }
  const char* const what = event.kind() == v1::PrefixEvent::KIND_STORED       ? "stored"
                           : event.kind() == v1::PrefixEvent::KIND_SUPERSEDED ? "superseded"
                           : event.kind() == v1::PrefixEvent::KIND_DEGRADED   ? "degraded"
                                                                              : "evicted";
  return fmt::format("{} {} tenant={} prefix={} rows={} chunks={} retention={}\n", event.number(),
                     what, EscapeForTerminal(event.tenant()), event.entry(), event.rows(),
                     event.keys_size(), FormOf(event.retention(), event.condensed_from()));
}

namespace {

std::string RenderPolicy(const v1::PolicyInfo& policy, bool is_rule) {
  std::string out = fmt::format("{}: {}\n", EscapeForTerminal(policy.name()),
                                EscapeForTerminal(policy.summary()));
  if (!policy.source().empty()) {
    out += fmt::format("  paper: {}\n", EscapeForTerminal(policy.source()));
  }
  if (!policy.needs().empty()) {
    out += fmt::format("  needs: {}\n", EscapeForTerminal(policy.needs()));
  }
  if (!is_rule) {
    out +=
        fmt::format("  may be shared under a prefix hash: {}\n", policy.shareable() ? "yes" : "no");
    if (policy.accepts_rules()) out += "  rules may stand before it\n";
  }
  Table table({{"  PARAMETER"}, {"TYPE"}, {"DEFAULT"}, {"BOUNDS"}, {"BY LAYER"}, {"MEANING"}});
  for (const v1::PolicyParameter& parameter : policy.parameters()) {
    table.AddRow({"  " + EscapeForTerminal(parameter.name()), EscapeForTerminal(parameter.type()),
                  EscapeForTerminal(parameter.default_value()),
                  EscapeForTerminal(parameter.bounds()), parameter.per_layer() ? "yes" : "no",
                  EscapeForTerminal(parameter.description())});
  }
  if (!table.empty()) out += table.Render();
  return out;
}

}  // namespace

std::string RenderPolicies(const v1::ListPoliciesResponse& policies) {
  std::string out;
  for (const v1::PolicyInfo& policy : policies.policies()) {
    out += (out.empty() ? "" : "\n") + RenderPolicy(policy, /*is_rule=*/false);
  }
  if (!policies.rules().empty()) {
    out += "\nRules keep rows whatever the policy after them says: 'RULE|RULE|POLICY'\n";
  }
  for (const v1::PolicyInfo& rule : policies.rules()) {
    out += "\n" + RenderPolicy(rule, /*is_rule=*/true);
  }
  if (!policies.encodings().empty()) {
    out += "\nEncodings store the rows that stay: 'POLICY+ENCODING', K and V apart 'POLICY+K/V'\n";
  }
  for (const v1::PolicyInfo& encoding : policies.encodings()) {
    out += "\n" + RenderPolicy(encoding, /*is_rule=*/true);
  }
  return out.empty() ? "no policies\n" : out;
}

}  // namespace kvasir::ctl
