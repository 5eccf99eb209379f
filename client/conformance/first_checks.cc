// Checks of what every engine has: a model, rows, steps.
#include <signal.h>

#include <algorithm>

#include "base/error.h"
#include "base/status_macros.h"
#include "client/conformance/check.h"

namespace kvasir::conformance {

absl::StatusOr<std::string> CheckHello(Stand& stand) {
  KVASIR_RETURN_IF_ERROR(stand.StartDaemon());
  KVASIR_ASSIGN_OR_RETURN(const std::unique_ptr<TestedEngine> engine, stand.NewEngine());
  KVASIR_ASSIGN_OR_RETURN(const v1::TenantStats stats, stand.daemon().Stats());
  if (stats.sessions() == 0) return Internal("after its hello the daemon has no session");
  if (stats.models() == 0) return Internal("after its hello the daemon has no model");
  if (stats.violations() + stats.rejected_calls() > 0) {
    return Internal("the daemon has refused what it did: rejected_calls={} violations={}",
                    stats.rejected_calls(), stats.violations());
  }
  const EngineFacts& facts = stand.facts();
  std::string offers;
  for (const std::string& offer : facts.offers) offers += " " + offer;
  return fmt::format("{}: {} layers, {} tokens, {} slots a block; offers{}", facts.name,
                     facts.layers, facts.vocabulary, facts.slots_per_block, offers);
}

absl::StatusOr<std::string> CheckRows(Stand& stand) {
  KVASIR_RETURN_IF_ERROR(stand.StartDaemon());
  KVASIR_ASSIGN_OR_RETURN(const std::unique_ptr<TestedEngine> engine, stand.NewEngine());
  // A block's border by a step, then by the last row of one.
  const uint32_t slots = stand.facts().slots_per_block;
  const Ids ids = stand.MakeIds(3 * slots, 1);
  KVASIR_ASSIGN_OR_RETURN(const FeedAnswer answer, stand.Run(*engine, 1, {}, ids, slots / 2 + 3));
  if (answer.rows != ids.size()) {
    return Internal("the engine counts other rows: fed={} rows={}", ids.size(), answer.rows);
  }
  KVASIR_ASSIGN_OR_RETURN(const uint64_t row_bytes, stand.daemon().RowBytes());
  if (row_bytes == 0 && stand.OnDevice()) {
    return Internal("its rows do not lie on the device, though KVASIR_POOL names a pool: device={}",
                    stand.settings().device);
  }
  KVASIR_ASSIGN_OR_RETURN(const std::vector<v1::SequenceInfo> open, stand.daemon().Sequences());
  if (open.size() != 1) return Internal("not one open sequence: count={}", open.size());
  if (open[0].rows_seen() != ids.size()) {
    return Internal("the daemon counts other rows, so not all were committed: fed={} rows_seen={}",
                    ids.size(), open[0].rows_seen());
  }
  const auto count = static_cast<uint32_t>(ids.size());
  KVASIR_ASSIGN_OR_RETURN(const std::vector<std::optional<uint32_t>> tokens,
                          stand.daemon().Tokens(open[0].sequence_id(), count));
  uint32_t known = 0;
  for (uint32_t row = 0; row < count; ++row) {
    if (!tokens[row]) continue;
    ++known;
    if (*tokens[row] != ids[row]) {
      return Internal("another id was committed: row={} fed={} committed={}", row, ids[row],
                      *tokens[row]);
    }
  }
  if (known == 0) return Internal("the daemon knows the id of no row: rows={}", count);
  return fmt::format("{} rows, {} ids", count, known);
}

absl::StatusOr<std::string> CheckRepeat(Stand& stand) {
  KVASIR_RETURN_IF_ERROR(stand.StartDaemon());
  KVASIR_ASSIGN_OR_RETURN(const std::unique_ptr<TestedEngine> engine, stand.NewEngine());
  const Ids ids = stand.MakeIds(stand.facts().slots_per_block + 9, 2);
  KVASIR_ASSIGN_OR_RETURN(const FeedAnswer first, stand.Run(*engine, 1, {}, ids, 8));
  KVASIR_ASSIGN_OR_RETURN(const FeedAnswer second, stand.Run(*engine, 2, {}, ids, 8));
  KVASIR_RETURN_IF_ERROR(stand.Same(first, second, "the same ids again"));
  Ids other = ids;
  other.front() = (other.front() + 1) % stand.facts().vocabulary;
  KVASIR_ASSIGN_OR_RETURN(const FeedAnswer third, stand.Run(*engine, 3, {}, other, 8));
  if (Difference(first, third) == 0) {
    return Internal("another first id gives the same logits: they do not come from the rows");
  }
  const double difference = Difference(first, second);
  return difference == 0 ? "bit for bit" : fmt::format("up to {:.2g}", difference);
}

absl::StatusOr<std::string> CheckMemory(Stand& stand) {
  KVASIR_RETURN_IF_ERROR(stand.StartDaemon());
  KVASIR_ASSIGN_OR_RETURN(const std::unique_ptr<TestedEngine> engine, stand.NewEngine());
  if (!stand.Offers("private")) return NotOffered("private");
  const Ids ids = stand.MakeIds(2 * stand.facts().slots_per_block + 5, 3);
  KVASIR_ASSIGN_OR_RETURN(const FeedAnswer own,
                          stand.Run(*engine, 1, {.private_memory = true}, ids, 16));
  KVASIR_ASSIGN_OR_RETURN(const FeedAnswer shared, stand.Run(*engine, 2, {}, ids, 16));
  KVASIR_RETURN_IF_ERROR(stand.Same(own, shared, "in the daemon's memory"));
  return fmt::format("{} rows, up to {:.2g}", ids.size(), Difference(own, shared));
}

absl::StatusOr<std::string> CheckBatches(Stand& stand) {
  KVASIR_RETURN_IF_ERROR(stand.StartDaemon());
  KVASIR_ASSIGN_OR_RETURN(const std::unique_ptr<TestedEngine> engine, stand.NewEngine());
  const Ids ids = stand.MakeIds(2 * stand.facts().slots_per_block + 3, 4);
  KVASIR_ASSIGN_OR_RETURN(const FeedAnswer one, stand.Run(*engine, 1, {}, ids, 1));
  for (const uint32_t batch : {7U, 64U}) {
    KVASIR_ASSIGN_OR_RETURN(const FeedAnswer many, stand.Run(*engine, batch, {}, ids, batch));
    KVASIR_RETURN_IF_ERROR(stand.Same(one, many, fmt::format("{} rows a step", batch)));
  }
  return fmt::format("{} rows", ids.size());
}

absl::StatusOr<std::string> CheckDecode(Stand& stand) {
  KVASIR_RETURN_IF_ERROR(stand.StartDaemon());
  KVASIR_ASSIGN_OR_RETURN(const std::unique_ptr<TestedEngine> engine, stand.NewEngine());
  const uint32_t slots = stand.facts().slots_per_block;
  const Ids ids = stand.MakeIds(2 * slots + 4, 5);
  KVASIR_ASSIGN_OR_RETURN(const FeedAnswer wanted, stand.Run(*engine, 1, {}, ids, 1));
  // A block is begun, and then the daemon stands still: who needs it before the border waits.
  const std::span<const uint32_t> all(ids);
  KVASIR_RETURN_IF_ERROR(stand.Run(*engine, 2, {}, all.first(slots + 2), 1).status());
  const auto inside = all.subspan(slots + 2, slots - 4);
  KVASIR_RETURN_IF_ERROR(stand.daemon().Signal(SIGSTOP));
  const absl::StatusOr<FeedAnswer> alone = engine->Feed(2, inside, 1);
  KVASIR_RETURN_IF_ERROR(stand.daemon().Signal(SIGCONT));
  if (!alone.ok()) {
    return Internal("it needs the daemon for rows {} to {}, inside a block of {} slots: {}",
                    slots + 2, 2 * slots - 3, slots, MessageOf(alone.status()));
  }
  KVASIR_ASSIGN_OR_RETURN(const FeedAnswer rest, engine->Feed(2, all.subspan(2 * slots - 2), 1));
  KVASIR_RETURN_IF_ERROR(stand.Same(wanted, rest, "after steps while the daemon stood still"));
  return fmt::format("{} steps while the daemon stood still", inside.size());
}

}  // namespace kvasir::conformance
