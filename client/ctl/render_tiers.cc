#include "base/bytes.h"
#include "client/ctl/render.h"
#include "client/ctl/table.h"
#include "client/ctl/terminal_text.h"

#include <fmt/format.h>

namespace kvasir::ctl {
namespace {

constexpr Table::Align kRight = Table::Align::kRight;

// Blocks that were not read, and why.
std::string MissesOf(const v1::TierInfo& tier) {
  std::string text;
  for (const char* outcome : {"absent", "cut", "corrupt", "foreign_format", "foreign_key",
                              "old_version", "wrong_length", "failed", "timeout"}) {
    const auto found = tier.reads().find(outcome);
    if (found == tier.reads().end()) continue;
    text += fmt::format("{}{} {}", text.empty() ? "" : ", ", found->second, outcome);
  }
  return text.empty() ? "none" : text;
}

}  // namespace

std::string RenderTiers(const v1::ListTiersResponse& tiers) {
  std::string text;
  for (const v1::TierInfo& tier : tiers.tiers()) {
    text += fmt::format("{}: {}", EscapeForTerminal(tier.tier()),
                        tier.left_out() ? "left out, it fails" : "in use");
    if (tier.capacity_bytes() > 0) {
      text += fmt::format(", {} of {} taken", HumanBytes(tier.held_bytes()),
                          HumanBytes(tier.capacity_bytes()));
    }
    text += fmt::format(", written {}, read {}, failed writes {}, blocks not read: {}\n",
                        HumanBytes(tier.written_bytes()), HumanBytes(tier.read_bytes()),
                        tier.write_errors(), MissesOf(tier));
    Table table({{"TENANT"},
                 {"PREFIXES", kRight},
                 {"BYTES", kRight},
                 {"LIMIT", kRight},
                 {"WRITTEN", kRight},
                 {"LOADED", kRight},
                 {"ROWS", kRight},
                 {"MISSED", kRight},
                 {"COMPUTED", kRight}});
    for (const v1::TierTenant& tenant : tier.tenants()) {
      table.AddRow({EscapeForTerminal(tenant.tenant()), fmt::format("{}", tenant.prefixes()),
                    HumanBytes(tenant.stored_bytes()), HumanBytes(tenant.limit_bytes()),
                    fmt::format("{}", tenant.stores()), fmt::format("{}", tenant.loads()),
                    fmt::format("{}", tenant.load_rows()),
                    fmt::format("{}", tenant.load_failures()),
                    fmt::format("{}", tenant.loads_declined())});
    }
    if (!table.empty()) text += table.Render();
  }
  return text.empty() ? "no tiers\n" : text;
}

std::string RenderDrain(const v1::DrainPrefixesResponse& response) {
  return fmt::format(
      "{} prefixes in every tier, {} not in every one, {} in forms that stay in "
      "memory\n",
      response.stored(), response.not_stored(), response.memory_only());
}

}  // namespace kvasir::ctl
