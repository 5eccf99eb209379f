#include "tests/engine/oracle_tables.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/error.h"
#include "policies/sep_static.h"
#include "policies/sep_stream.h"

namespace kvasir::engine::testing {
namespace {

// The machine's cache as the table of the queries from `from` on.
OracleTable TableOfMachine(const SepStream& machine, uint64_t from, bool in_cache) {
  OracleTable table{.from = from, .front = {}, .run_first = machine.run_first(), .stays = {}};
  const auto front = static_cast<int64_t>(machine.front_size());
  for (int64_t i = 0; i < front; ++i) {
    const uint64_t row = machine.FrontRow(0, static_cast<size_t>(i));
    // Index in the cache of the query of row q: front + q - run_first; of this key: i.
    const int64_t offset =
        static_cast<int64_t>(table.run_first) + i - front - static_cast<int64_t>(row);
    table.front.push_back({.row = row, .offset = in_cache ? offset : 0});
  }
  return table;
}

void AddTable(std::vector<OracleTable>& tables, OracleTable table) {
  if (!tables.empty()) tables.back().until = table.from;
  tables.push_back(std::move(table));
}

}  // namespace

LayerOracle::LayerOracle(std::vector<OracleTable> tables) : tables_(std::move(tables)) {
  for (const OracleTable& table : tables_) {
    auto& by_row = front_.emplace_back();
    for (const FrontKey& key : table.front) by_row[key.row] = key;
  }
}

const OracleTable& LayerOracle::TableOf(uint64_t query) const {
  const auto next =
      std::upper_bound(tables_.begin(), tables_.end(), query,
                       [](uint64_t row, const OracleTable& table) { return row < table.from; });
  return *std::prev(next);
}

std::optional<int64_t> LayerOracle::Distance(uint64_t query, uint64_t key) const {
  const OracleTable& table = TableOf(query);
  const auto distance = static_cast<int64_t>(query - key);
  if (key >= table.run_first) {
    const bool near = table.window == 0 || query - key < table.window;
    const bool seen = near || std::binary_search(table.stays.begin(), table.stays.end(), key);
    return seen ? std::optional(distance) : std::nullopt;
  }
  const auto& by_row = front_[static_cast<size_t>(&table - tables_.data())];
  const auto found = by_row.find(key);
  if (found == by_row.end()) return std::nullopt;
  const auto position =
      std::min(static_cast<uint64_t>(static_cast<int64_t>(query) - found->second.offset),
               found->second.query_max);
  return static_cast<int64_t>(position) - static_cast<int64_t>(key);
}

std::shared_ptr<const LayerOracle> StaticOracle(uint64_t init, uint64_t window,
                                                std::span<const TokenId> separators,
                                                std::span<const TokenId> ids) {
  SepStaticConfig config;
  config.init = init;
  config.window = config.prefill_window = window;
  config.separators = SeparatorSet({separators.begin(), separators.end()});
  const SepStaticRule rule(config, {});
  OracleTable table{.front = {}, .window = window, .stays = {}};
  for (uint64_t row = 0; row < ids.size(); ++row) {
    if (rule.Stays(row, ids[row])) table.stays.push_back(row);
  }
  return std::make_shared<LayerOracle>(std::vector<OracleTable>{std::move(table)});
}

std::shared_ptr<const LayerOracle> StreamOracle(const StreamSetting& setting, uint64_t prompt_rows,
                                                std::span<const TokenId> separators,
                                                std::span<const TokenId> ids) {
  SepStreamConfig config;
  config.variant = setting.manager ? SepStreamVariant::kManager : SepStreamVariant::kSepCache;
  config.a = setting.init;
  config.s = setting.separators;
  config.w = setting.local;
  config.c = setting.cache;
  config.separators = SeparatorSet({separators.begin(), separators.end()});
  SepStream machine(config);
  machine.Feed(0, ids);
  const auto advance = [&machine](uint64_t rows, bool prefill) {
    const absl::Status status = machine.Advance(static_cast<int64_t>(rows), prefill);
    KVASIR_CHECK(status.ok(), "{}", MessageOf(status));
  };
  std::vector<OracleTable> tables(1);  // of the rows before the first compaction
  if (!setting.manager) advance(prompt_rows, true);
  while (machine.seen() < ids.size()) {
    const uint64_t query = machine.seen();
    const uint64_t compactions = machine.compactions();
    advance(1, false);
    if (machine.compactions() == compactions) continue;
    // SepCache compacts before the row's attention, the manager behind it.
    AddTable(tables,
             TableOfMachine(machine, setting.manager ? query + 1 : query, setting.in_cache));
  }
  return std::make_shared<LayerOracle>(std::move(tables));
}

std::shared_ptr<const LayerOracle> StreamingLlmOracle(uint64_t start, uint64_t recent,
                                                      bool in_cache) {
  std::vector<OracleTable> tables(1);
  OracleTable full{
      .from = start + recent, .front = {}, .run_first = start, .window = recent, .stays = {}};
  // In the cache the query stands at its last index for ever.
  const uint64_t last = start + recent - 1;
  for (uint64_t row = 0; row < start; ++row) {
    full.front.push_back({.row = row, .query_max = in_cache ? last : kNoRow});
  }
  AddTable(tables, std::move(full));
  return std::make_shared<LayerOracle>(std::move(tables));
}

}  // namespace kvasir::engine::testing
