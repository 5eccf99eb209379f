// What a retention policy lets every query see, said by the policies' state machines alone: no
// plans, no daemon, no compaction.
//
// The machines (policies/sep_static.h, policies/sep_stream.h) are the ones that the golden vectors
// test.
#ifndef KVASIR_TESTS_ENGINE_ORACLE_TABLES_H_
#define KVASIR_TESTS_ENGINE_ORACLE_TABLES_H_

#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <unordered_map>
#include <vector>

#include "policies/retention_policy.h"

namespace kvasir::engine::testing {

// A key in front of the run: the query of row q has the distance min(q - offset, query_max) - row.
struct FrontKey {
  uint64_t row = 0;
  int64_t offset = 0;
  uint64_t query_max = kNoRow;
};

// What the queries of rows [from, until) see: the front keys; the rows from run_first to the
// query's own, `window` of them at most (0: all), at their distance; and of the rows from run_first
// on those in `stays`, at their distance.
struct OracleTable {
  uint64_t from = 0;
  uint64_t until = kNoRow;
  std::vector<FrontKey> front;
  uint64_t run_first = 0;
  uint64_t window = 0;
  std::vector<uint64_t> stays;  // ascending
};

// The tables of one layer. Const after construction.
class LayerOracle {
 public:
  // `tables` are in order and cover all rows.
  explicit LayerOracle(std::vector<OracleTable> tables);

  const OracleTable& TableOf(uint64_t query) const;
  // Position of the query minus position of the key, or nothing where it is not seen.
  std::optional<int64_t> Distance(uint64_t query, uint64_t key) const;

 private:
  std::vector<OracleTable> tables_;
  std::vector<std::unordered_map<uint64_t, FrontKey>> front_;  // by row, one map a table
};

using Oracle = std::vector<std::shared_ptr<const LayerOracle>>;  // one a layer; they may be shared

struct StreamSetting {
  bool manager = false;  // else SepCache
  int64_t init = 4;
  int64_t separators = 8;
  int64_t local = 16;
  int64_t cache = 40;
  bool in_cache = false;
};

std::shared_ptr<const LayerOracle> StaticOracle(uint64_t init, uint64_t window,
                                                std::span<const TokenId> separators,
                                                std::span<const TokenId> ids);

// REQUIRES: prompt_rows <= ids.size(); the manager has no prompt.
std::shared_ptr<const LayerOracle> StreamOracle(const StreamSetting& setting, uint64_t prompt_rows,
                                                std::span<const TokenId> separators,
                                                std::span<const TokenId> ids);

std::shared_ptr<const LayerOracle> StreamingLlmOracle(uint64_t start, uint64_t recent,
                                                      bool in_cache);

}  // namespace kvasir::engine::testing

#endif  // KVASIR_TESTS_ENGINE_ORACLE_TABLES_H_
