// Checks of what can be done with a text: forgotten, shared, saved.
#include "base/error.h"
#include "base/status_macros.h"
#include "client/conformance/check.h"

namespace kvasir::conformance {
namespace {

constexpr uint32_t kBatch = 16;

}  // namespace

absl::StatusOr<std::string> CheckTruncate(Stand& stand) {
  KVASIR_RETURN_IF_ERROR(stand.StartDaemon());
  KVASIR_ASSIGN_OR_RETURN(const std::unique_ptr<TestedEngine> engine, stand.NewEngine());
  if (!stand.Offers("truncate")) return NotOffered("truncate");
  const uint32_t slots = stand.facts().slots_per_block;
  const Ids ids = stand.MakeIds(2 * slots + 7, 21), others = stand.MakeIds(slots, 22);
  KVASIR_ASSIGN_OR_RETURN(const FeedAnswer wanted, stand.Run(*engine, 1, {}, ids, kBatch));
  const uint64_t left = slots + 3;
  // Back from the text itself, then from other rows, fed one by one and many a step.
  for (const uint32_t batch : {1U, kBatch}) {
    for (const bool other : {false, true}) {
      if (other) KVASIR_RETURN_IF_ERROR(engine->Feed(1, others, batch).status());
      KVASIR_ASSIGN_OR_RETURN(const uint64_t rows, engine->Truncate(1, left));
      if (rows != left) return Internal("other rows are left: wanted={} got={}", left, rows);
    }
    KVASIR_ASSIGN_OR_RETURN(const FeedAnswer again,
                            engine->Feed(1, std::span(ids).subspan(left), kBatch));
    KVASIR_RETURN_IF_ERROR(stand.Same(wanted, again, "after other rows that were forgotten"));
  }
  KVASIR_ASSIGN_OR_RETURN(const std::vector<v1::SequenceInfo> open, stand.daemon().Sequences());
  // It sees the last rows at the next border, and never more than there are.
  if (open.size() != 1 || open[0].rows_seen() > ids.size()) {
    return Internal("the daemon counts other rows: wanted={} rows_seen={}", ids.size(),
                    open.empty() ? 0 : open[0].rows_seen());
  }
  return fmt::format("back from {} to {} rows", ids.size(), left);
}

absl::StatusOr<std::string> CheckPrefix(Stand& stand) {
  KVASIR_RETURN_IF_ERROR(stand.StartDaemon());
  KVASIR_ASSIGN_OR_RETURN(const std::unique_ptr<TestedEngine> first, stand.NewEngine());
  if (!stand.Offers("prefix")) return NotOffered("prefix");
  const uint32_t slots = stand.facts().slots_per_block;
  const Ids prompt = stand.MakeIds(3 * slots + 6, 23);
  const std::span<const uint32_t> all(prompt);
  const OpenRequest request{.prompt = prompt};
  KVASIR_RETURN_IF_ERROR(
      stand.Run(*first, 1, request, all.first(prompt.size() - 1), kBatch).status());
  KVASIR_RETURN_IF_ERROR(first->Publish(1).status());
  KVASIR_ASSIGN_OR_RETURN(const FeedAnswer wanted, first->Feed(1, all.last(1), kBatch));
  KVASIR_RETURN_IF_ERROR(first->Close(1));

  KVASIR_ASSIGN_OR_RETURN(const std::unique_ptr<TestedEngine> second, stand.NewEngine());
  KVASIR_ASSIGN_OR_RETURN(const v1::TenantStats before, stand.daemon().Stats());
  KVASIR_ASSIGN_OR_RETURN(const uint64_t rows, second->Open(1, request));
  KVASIR_ASSIGN_OR_RETURN(const v1::TenantStats after, stand.daemon().Stats());
  if (after.prefix_lookups() == before.prefix_lookups()) {
    return Internal("the second process has not asked for the prompt");
  }
  if (after.prefix_hits() == before.prefix_hits() || rows == 0) {
    return Internal("the second process goes on from nothing: rows={} daemon_hits={}", rows,
                    after.prefix_hits() - before.prefix_hits());
  }
  if (rows != after.prefix_rows_hit() - before.prefix_rows_hit() || rows >= prompt.size()) {
    return Internal("other rows than the daemon has given it: rows={} given={} prompt={}", rows,
                    after.prefix_rows_hit() - before.prefix_rows_hit(), prompt.size());
  }
  KVASIR_ASSIGN_OR_RETURN(const FeedAnswer got, second->Feed(1, all.subspan(rows), kBatch));
  KVASIR_ASSIGN_OR_RETURN(const std::vector<v1::SequenceInfo> open, stand.daemon().Sequences());
  if (open.size() != 1 || open[0].rows_seen() > prompt.size()) {
    return Internal("rows that were there were computed again: prompt={} attached={} rows_seen={}",
                    prompt.size(), rows, open.empty() ? 0 : open[0].rows_seen());
  }
  KVASIR_RETURN_IF_ERROR(stand.Same(wanted, got, "behind an attached prefix"));
  // A prompt that begins otherwise has nothing of it.
  Ids other = prompt;
  other.front() = (other.front() + 1) % stand.facts().vocabulary;
  KVASIR_ASSIGN_OR_RETURN(const uint64_t none, second->Open(2, {.prompt = other}));
  if (none != 0) return Internal("rows of another prompt are attached: rows={}", none);
  return fmt::format("{} of {} rows attached", rows, prompt.size());
}

absl::StatusOr<std::string> CheckSnapshot(Stand& stand) {
  KVASIR_RETURN_IF_ERROR(stand.StartDaemon());
  KVASIR_ASSIGN_OR_RETURN(const std::unique_ptr<TestedEngine> first, stand.NewEngine());
  if (!stand.Offers("snapshot")) return NotOffered("snapshot");
  const uint32_t slots = stand.facts().slots_per_block;
  const Ids ids = stand.MakeIds(2 * slots + 9, 24);
  const std::span<const uint32_t> all(ids);
  const size_t saved = 2 * slots + 1;
  for (const char* retention :
       {"full", "streamingllm:start_size=2,recent_size=5,positions=original"}) {
    const OpenRequest request{.retention = retention};
    KVASIR_RETURN_IF_ERROR(stand.Run(*first, 1, request, all.first(saved), kBatch).status());
    KVASIR_ASSIGN_OR_RETURN(const std::string id, first->Save(1));
    KVASIR_ASSIGN_OR_RETURN(const FeedAnswer wanted, first->Feed(1, all.subspan(saved), 1));
    KVASIR_RETURN_IF_ERROR(first->Close(1));
    KVASIR_ASSIGN_OR_RETURN(const std::unique_ptr<TestedEngine> second, stand.NewEngine());
    KVASIR_ASSIGN_OR_RETURN(const uint64_t rows,
                            second->Open(1, {.retention = retention, .snapshot = id}));
    if (rows != saved) return Internal("other rows were saved: wanted={} got={}", saved, rows);
    KVASIR_ASSIGN_OR_RETURN(const FeedAnswer got, second->Feed(1, all.subspan(saved), 1));
    KVASIR_RETURN_IF_ERROR(stand.Same(wanted, got, "behind what was saved"));
  }
  return fmt::format("{} rows, full and with a window", saved);
}

}  // namespace kvasir::conformance
