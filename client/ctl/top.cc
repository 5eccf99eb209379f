#include "client/ctl/top.h"

#include <algorithm>
#include <iterator>
#include <numeric>
#include <utility>

#include "base/bytes.h"
#include "client/ctl/render.h"
#include "client/ctl/table.h"
#include "client/ctl/terminal_text.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

namespace kvasir::ctl {
namespace {

constexpr size_t kBarColumns = 10;
constexpr size_t kNameColumnsMin = 8;
constexpr Table::Align kRight = Table::Align::kRight;

constexpr std::string_view kSortNames[] = {"tenant", "share",   "charged",     "held",
                                           "hit",    "lookups", "compactions", "rejected"};

struct ColumnText {
  const char* title;
  Table::Align align;
  int keep;  // columns with less go first where the terminal is narrow
};
constexpr ColumnText kColumns[] = {
    {"TENANT", Table::Align::kLeft, 99},
    {"OF LIMIT", Table::Align::kLeft, 12},
    {"CHARGED", kRight, 13},
    {"HELD", kRight, 11},
    {"LIMIT", kRight, 9},
    {"SESSIONS", kRight, 4},
    {"SEQUENCES", kRight, 5},
    {"SEEN", kRight, 1},
    {"KEPT", kRight, 2},
    {"HIT", kRight, 10},
    {"LOOKUPS/S", kRight, 6},
    {"COMPACTIONS/S", kRight, 3},
    {"REJECTED/S", kRight, 8},
    {"VIOLATIONS", kRight, 7},
};

double ShareOf(const v1::MemoryCounts& host) {
  if (host.limit_bytes() == 0) return 0;
  return static_cast<double>(host.charged_bytes()) / static_cast<double>(host.limit_bytes());
}

// "[######....]  61%"; a tenant may be charged more than a limit that was lowered.
std::string BarOf(const v1::MemoryCounts& host) {
  if (host.limit_bytes() == 0) return "-";
  const double share = ShareOf(host);
  const auto full = static_cast<size_t>(std::clamp(share, 0.0, 1.0) * kBarColumns + 0.5);
  return fmt::format("[{}{}] {:3.0f}%", std::string(full, '#'),
                     std::string(kBarColumns - full, '.'), std::min(share * 100, 9999.0));
}

std::string CutTo(std::string_view text, size_t columns) {
  size_t seen = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    if ((static_cast<unsigned char>(text[i]) & 0xC0) == 0x80) continue;  // goes on with a character
    if (seen++ == columns) return std::string(text.substr(0, i));
  }
  return std::string(text);
}

// Cut names end in "~": two tenants with a long beginning in common are not taken for one.
std::string NameCell(const std::string& tenant, size_t columns) {
  std::string name = EscapeForTerminal(tenant);
  if (columns == 0) return name;
  const size_t most = std::max(kNameColumnsMin, columns / 3);
  return CountColumns(name) <= most ? name : CutTo(name, most - 1) + "~";
}

std::string PerSecond(const std::optional<TenantRates>& rates, double TenantRates::*rate) {
  return rates ? fmt::format("{:.1f}", *rates.*rate) : "-";
}

std::vector<std::string> CellsOf(const v1::TenantStats& tenant,
                                 const std::optional<TenantRates>& rates, size_t columns) {
  const v1::MemoryCounts& host = tenant.host();
  const bool asked = rates && rates->hit_ratio;
  return {NameCell(tenant.tenant(), columns),
          BarOf(host),
          HumanBytes(host.charged_bytes()),
          HumanBytes(host.held_bytes()),
          HumanBytes(host.limit_bytes()),
          fmt::format("{}", tenant.sessions()),
          fmt::format("{}", tenant.sequences()),
          fmt::format("{}", tenant.rows_seen()),
          fmt::format("{}", tenant.rows_kept()),
          asked ? fmt::format("{:.1f}%", *rates->hit_ratio * 100) : "-",
          PerSecond(rates, &TenantRates::lookups),
          PerSecond(rates, &TenantRates::compactions),
          PerSecond(rates, &TenantRates::rejected),
          fmt::format("{}", tenant.violations())};
}

double KeyOf(TopSort sort, const v1::TenantStats& tenant, const std::optional<TenantRates>& rates) {
  const TenantRates known = rates.value_or(TenantRates());
  switch (sort) {
    case TopSort::kTenant:
      return 0;  // all the same: their names decide
    case TopSort::kShare:
      return ShareOf(tenant.host());
    case TopSort::kCharged:
      return static_cast<double>(tenant.host().charged_bytes());
    case TopSort::kHeld:
      return static_cast<double>(tenant.host().held_bytes());
    case TopSort::kHit:
      return known.hit_ratio.value_or(-1);
    case TopSort::kLookups:
      return known.lookups;
    case TopSort::kCompactions:
      return known.compactions;
    case TopSort::kRejected:
      return known.rejected;
  }
  return 0;
}

std::vector<int> OrderOf(const v1::GetStatsResponse& now, const TopInterval& interval,
                         TopSort sort) {
  std::vector<int> order(static_cast<size_t>(now.tenants_size()));
  std::iota(order.begin(), order.end(), 0);
  const auto key = [&](int i) {
    return KeyOf(sort, now.tenants(i), interval.rates[static_cast<size_t>(i)]);
  };
  std::sort(order.begin(), order.end(), [&](int a, int b) {
    const double of_a = key(a), of_b = key(b);
    if (of_a != of_b) return of_a > of_b;
    const int names = now.tenants(a).tenant().compare(now.tenants(b).tenant());
    return names != 0 ? names < 0 : a < b;
  });
  return order;
}

// Which columns fit, in the order of kColumns; the first one always does.
std::vector<size_t> FittingColumns(const std::vector<std::vector<std::string>>& rows,
                                   size_t columns) {
  std::vector<size_t> shown(std::size(kColumns)), widths(std::size(kColumns));
  std::iota(shown.begin(), shown.end(), size_t{0});
  for (const size_t column : shown) {
    widths[column] = CountColumns(kColumns[column].title);
    for (const auto& row : rows) {
      widths[column] = std::max(widths[column], CountColumns(row[column]));
    }
  }
  const auto total = [&] {
    size_t sum = 2 * (shown.size() - 1);
    for (const size_t column : shown) sum += widths[column];
    return sum;
  };
  while (columns > 0 && shown.size() > 1 && total() > columns) {
    shown.erase(std::min_element(shown.begin(), shown.end(), [](size_t a, size_t b) {
      return kColumns[a].keep < kColumns[b].keep;
    }));
  }
  return shown;
}

std::vector<std::string> LinesOf(const std::string& text) {
  std::vector<std::string> lines;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    lines.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return lines;
}

std::vector<std::string> TenantLines(const v1::GetStatsResponse& before,
                                     const v1::GetStatsResponse& now, const TopView& view) {
  if (now.tenants().empty()) return {"no tenants"};
  const TopInterval interval = Between(before, now);
  std::vector<std::vector<std::string>> rows;
  for (const int i : OrderOf(now, interval, view.sort)) {
    rows.push_back(CellsOf(now.tenants(i), interval.rates[static_cast<size_t>(i)], view.columns));
  }
  const std::vector<size_t> shown = FittingColumns(rows, view.columns);
  std::vector<Table::Column> titles;
  for (const size_t column : shown) {
    titles.push_back({kColumns[column].title, kColumns[column].align});
  }
  Table table(std::move(titles));
  for (const auto& row : rows) {
    std::vector<std::string> cells;
    for (const size_t column : shown) cells.push_back(row[column]);
    table.AddRow(std::move(cells));
  }
  return LinesOf(table.Render());
}

std::string KeysLine(const TopView& view) {
  if (!view.trouble.empty()) return "q quit  " + EscapeForTerminal(view.trouble);
  return fmt::format("q quit  s sort: {}  p pause{}", NameOf(view.sort),
                     view.paused ? ": PAUSED" : "");
}

// Nothing for a counter that fell: it is another one's.
std::optional<uint64_t> Rise(uint64_t before, uint64_t now) {
  if (now < before) return std::nullopt;
  return now - before;
}

std::optional<TenantRates> RatesOf(const v1::TenantStats& before, const v1::TenantStats& now,
                                   uint64_t ms) {
  const auto lookups = Rise(before.prefix_lookups(), now.prefix_lookups());
  const auto compactions = Rise(before.compactions(), now.compactions());
  const auto rejected = Rise(before.rejected_calls(), now.rejected_calls());
  const auto rows = Rise(before.prefix_rows(), now.prefix_rows());
  const auto rows_hit = Rise(before.prefix_rows_hit(), now.prefix_rows_hit());
  if (!lookups || !compactions || !rejected || !rows || !rows_hit) return std::nullopt;
  const double seconds = static_cast<double>(ms) / 1000;
  TenantRates rates;
  rates.lookups = static_cast<double>(*lookups) / seconds;
  rates.compactions = static_cast<double>(*compactions) / seconds;
  rates.rejected = static_cast<double>(*rejected) / seconds;
  if (*rows > 0) {
    rates.hit_ratio = std::min(1.0, static_cast<double>(*rows_hit) / static_cast<double>(*rows));
  }
  return rates;
}

}  // namespace

std::string_view NameOf(TopSort sort) { return kSortNames[static_cast<size_t>(sort)]; }

std::optional<TopSort> TopSortOf(std::string_view name) {
  const auto found = std::find(std::begin(kSortNames), std::end(kSortNames), name);
  if (found == std::end(kSortNames)) return std::nullopt;
  return static_cast<TopSort>(found - std::begin(kSortNames));
}

std::vector<std::string> TopSortNames() { return {std::begin(kSortNames), std::end(kSortNames)}; }

TopSort NextSort(TopSort sort) {
  return static_cast<TopSort>((static_cast<size_t>(sort) + 1) % std::size(kSortNames));
}

TopInterval Between(const v1::GetStatsResponse& before, const v1::GetStatsResponse& now) {
  TopInterval interval;
  interval.rates.resize(static_cast<size_t>(now.tenants_size()));
  if (before.boot_epoch() != now.boot_epoch() || before.uptime_ms() >= now.uptime_ms()) {
    return interval;
  }
  interval.ms = now.uptime_ms() - before.uptime_ms();
  for (int i = 0; i < now.tenants_size(); ++i) {
    const v1::TenantStats& tenant = now.tenants(i);
    const auto same = std::find_if(
        before.tenants().begin(), before.tenants().end(),
        [&tenant](const v1::TenantStats& one) { return one.tenant() == tenant.tenant(); });
    if (same == before.tenants().end()) continue;
    interval.rates[static_cast<size_t>(i)] = RatesOf(*same, tenant, interval.ms);
  }
  return interval;
}

std::vector<std::string> RenderTop(const v1::GetStatsResponse& before,
                                   const v1::GetStatsResponse& now, const TopView& view) {
  std::vector<std::string> lines = {
      fmt::format("kvasird {}  up {} s  interval {:.1f} s", EscapeForTerminal(now.version()),
                  now.uptime_ms() / 1000, static_cast<double>(Between(before, now).ms) / 1000)};
  if (now.pool_bytes() > 0) {  // administrators see it
    lines.push_back(fmt::format("pool {}  charged {}  held {}  free {}  ready {}",
                                HumanBytes(now.pool_bytes()), HumanBytes(now.charged_bytes()),
                                HumanBytes(now.held_bytes()), HumanBytes(now.pool_free_bytes()),
                                HumanBytes(now.pool_ready_bytes())));
  }
  lines.emplace_back();
  const std::vector<std::string> tenants = TenantLines(before, now, view);
  lines.insert(lines.end(), tenants.begin(), tenants.end());
  const size_t last_lines = view.keys ? 1 : 0;
  if (view.lines > 0 && lines.size() + last_lines > view.lines) {
    const size_t left = view.lines - std::min(view.lines, last_lines + 1);
    const size_t hidden = std::min(lines.size() - left, tenants.size() - 1);
    lines.resize(left);
    lines.push_back(fmt::format("... {} tenants more", hidden));
  }
  if (view.keys) lines.push_back(KeysLine(view));
  if (view.lines > 0 && lines.size() > view.lines) lines.resize(view.lines);
  if (view.columns > 0) {
    for (std::string& line : lines) line = CutTo(line, view.columns);
  }
  return lines;
}

std::string RenderTopJson(const v1::GetStatsResponse& before, const v1::GetStatsResponse& now) {
  const TopInterval interval = Between(before, now);
  nlohmann::ordered_json out;
  out["interval_ms"] = interval.ms;
  out["stats"] = nlohmann::ordered_json::parse(RenderJson(now));
  out["rates"] = nlohmann::ordered_json::array();
  for (int i = 0; i < now.tenants_size(); ++i) {
    nlohmann::ordered_json one;
    one["tenant"] = out["stats"]["tenants"][static_cast<size_t>(i)]["tenant"];
    const auto& rates = interval.rates[static_cast<size_t>(i)];
    const auto number = [&one](const char* name, std::optional<double> value) {
      if (value) {
        one[name] = *value;
      } else {
        one[name] = nullptr;
      }
    };
    const auto rate = [&rates](double TenantRates::*which) {
      return rates ? std::optional<double>(*rates.*which) : std::nullopt;
    };
    number("prefix_hit_ratio", rates ? rates->hit_ratio : std::nullopt);
    number("lookups_per_s", rate(&TenantRates::lookups));
    number("compactions_per_s", rate(&TenantRates::compactions));
    number("rejected_per_s", rate(&TenantRates::rejected));
    out["rates"].push_back(std::move(one));
  }
  return out.dump() + "\n";
}

}  // namespace kvasir::ctl
