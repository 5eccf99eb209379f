// Checks of how a text, an engine and a daemon end.
#include <signal.h>

#include <algorithm>
#include <array>
#include <thread>

#include "base/error.h"
#include "base/status_macros.h"
#include "client/conformance/check.h"

namespace kvasir::conformance {
namespace {

constexpr uint32_t kBatch = 16;
constexpr uint64_t kMiB = uint64_t{1} << 20;
constexpr uint64_t kTextsMax = 250;  // under limits.sequences_per_session_max

// The engine has answered with an error of one of the codes.
absl::Status WantError(const absl::Status& got, std::initializer_list<absl::StatusCode> codes,
                       const std::string& where) {
  std::string wanted;
  for (const absl::StatusCode code : codes) {
    if (got.code() == code) return absl::OkStatus();
    wanted += (wanted.empty() ? "" : " or ") + absl::StatusCodeToString(code);
  }
  if (got.ok()) return Internal("{}: it answers as if nothing were", where);
  return Internal("{}: it should answer with {}: code={} error={}", where, wanted,
                  absl::StatusCodeToString(got.code()), MessageOf(got));
}

}  // namespace

absl::StatusOr<std::string> CheckLimit(Stand& stand) {
  KVASIR_RETURN_IF_ERROR(stand.StartDaemon());
  KVASIR_ASSIGN_OR_RETURN(const std::unique_ptr<TestedEngine> measured, stand.NewEngine());
  const Ids ids = stand.MakeIds(stand.facts().slots_per_block / 2 + 1, 31);
  KVASIR_ASSIGN_OR_RETURN(const FeedAnswer wanted, stand.Run(*measured, 1, {}, ids, kBatch));
  KVASIR_ASSIGN_OR_RETURN(const uint64_t row_bytes, stand.daemon().RowBytes());
  // Room for some texts and not for many, whatever the model.
  const uint64_t text_bytes = std::max<uint64_t>(row_bytes, 4096);
  const uint64_t unit = stand.OnDevice() ? 2 * kMiB : kMiB;  // what a device gives at least
  const uint64_t extent = (text_bytes + unit - 1) / unit * unit;
  KVASIR_RETURN_IF_ERROR(stand.StartDaemon(4 * extent, extent));
  KVASIR_ASSIGN_OR_RETURN(const std::unique_ptr<TestedEngine> engine, stand.NewEngine());
  uint64_t texts = 0;
  absl::Status refused;
  while (refused.ok() && texts < kTextsMax + 4 * extent / text_bytes) {
    ++texts;
    const absl::StatusOr<uint64_t> rows = engine->Open(texts, {});
    refused = rows.status();
    if (!rows.ok()) break;
    refused = engine->Feed(texts, ids, kBatch).status();
    // It has no use for what was refused, and may say so in any way.
    if (!refused.ok()) (void)engine->Close(texts);
  }
  KVASIR_RETURN_IF_ERROR(WantError(refused, {absl::StatusCode::kResourceExhausted},
                                   fmt::format("at the limit, in text {}", texts)));
  for (uint64_t text = 1; text < texts; ++text) KVASIR_RETURN_IF_ERROR(engine->Close(text));
  KVASIR_RETURN_IF_ERROR(stand.daemon().WaitUntilClosed(stand.settings().patience));
  KVASIR_ASSIGN_OR_RETURN(const FeedAnswer got, stand.Run(*engine, texts + 1, {}, ids, kBatch));
  KVASIR_RETURN_IF_ERROR(stand.Same(wanted, got, "after texts were refused and closed"));
  return fmt::format("refused in text {}, and went on", texts);
}

absl::StatusOr<std::string> CheckEnd(Stand& stand) {
  KVASIR_RETURN_IF_ERROR(stand.StartDaemon());
  KVASIR_ASSIGN_OR_RETURN(const std::unique_ptr<TestedEngine> engine, stand.NewEngine());
  const Ids ids = stand.MakeIds(stand.facts().slots_per_block + 3, 32);
  for (uint64_t text = 1; text <= 3; ++text) {
    KVASIR_RETURN_IF_ERROR(stand.Run(*engine, text, {}, ids, kBatch).status());
  }
  for (uint64_t text = 1; text <= 2; ++text) KVASIR_RETURN_IF_ERROR(engine->Close(text));
  KVASIR_ASSIGN_OR_RETURN(const FeedAnswer third, engine->Feed(3, ids, kBatch));
  if (third.rows != 2 * ids.size()) return Internal("a text has lost rows: rows={}", third.rows);
  KVASIR_RETURN_IF_ERROR(engine->Close(3));
  KVASIR_RETURN_IF_ERROR(stand.daemon().WaitUntilClosed(stand.settings().patience));
  // What is open when its input ends, it may leave to the daemon.
  KVASIR_RETURN_IF_ERROR(stand.Run(*engine, 4, {}, ids, kBatch).status());
  KVASIR_RETURN_IF_ERROR(engine->End());
  KVASIR_RETURN_IF_ERROR(stand.daemon().WaitUntilEmpty(stand.settings().patience));
  return "nothing is held after close, nothing charged after the end";
}

absl::StatusOr<std::string> CheckKill(Stand& stand) {
  KVASIR_RETURN_IF_ERROR(stand.StartDaemon());
  const std::array<const char*, 5> places{"after its hello", "with a text open", "between steps",
                                          "during a long feed", "during decoding"};
  for (size_t place = 0; place < places.size(); ++place) {
    KVASIR_ASSIGN_OR_RETURN(const std::unique_ptr<TestedEngine> engine, stand.NewEngine());
    const Ids ids = stand.MakeIds(6 * size_t{stand.facts().slots_per_block}, 33);
    if (place >= 1) KVASIR_RETURN_IF_ERROR(engine->Open(1, {}).status());
    if (place >= 2) {
      KVASIR_RETURN_IF_ERROR(engine->Feed(1, std::span(ids).first(9), kBatch).status());
    }
    if (place >= 3) {
      KVASIR_RETURN_IF_ERROR(engine->FeedAndLeave(1, ids, place == 3 ? 64 : 1));
      std::this_thread::sleep_for(Milliseconds(2 * place));  // somewhere in it
    }
    engine->Kill();
    const absl::Status empty = stand.daemon().WaitUntilEmpty(stand.settings().patience);
    if (!empty.ok()) return Internal("killed {}: {}", places[place], MessageOf(empty));
  }
  return fmt::format("killed at {} places", places.size());
}

absl::StatusOr<std::string> CheckDaemon(Stand& stand) {
  for (const int number : {SIGKILL, SIGTERM, SIGSTOP}) {
    const std::string where = number == SIGSTOP   ? "while the daemon stands still"
                              : number == SIGKILL ? "after the daemon was killed"
                                                  : "after the daemon has stopped";
    KVASIR_RETURN_IF_ERROR(stand.StartDaemon());
    KVASIR_ASSIGN_OR_RETURN(const std::unique_ptr<TestedEngine> engine, stand.NewEngine());
    const uint32_t slots = stand.facts().slots_per_block;
    const Ids ids = stand.MakeIds(3 * slots, 34);
    const std::span<const uint32_t> all(ids);
    KVASIR_ASSIGN_OR_RETURN(const FeedAnswer wanted,
                            stand.Run(*engine, 1, {}, all.first(slots + 4), kBatch));
    KVASIR_RETURN_IF_ERROR(stand.daemon().Signal(number));
    // Over a border: there it has to ask.
    absl::Status answer = engine->Feed(1, all.subspan(slots + 4), 1).status();
    if (number == SIGSTOP) {
      KVASIR_RETURN_IF_ERROR(stand.daemon().Signal(SIGCONT));
      KVASIR_RETURN_IF_ERROR(WantError(
          answer, {absl::StatusCode::kDeadlineExceeded, absl::StatusCode::kUnavailable}, where));
    } else {
      KVASIR_RETURN_IF_ERROR(WantError(answer, {absl::StatusCode::kUnavailable}, where));
      // Nor does a new text find anybody.
      answer = engine->Open(2, {}).status();
      if (answer.ok() || absl::IsInternal(answer)) {
        return Internal("{}: a new text should be an error: {}", where, MessageOf(answer));
      }
      if (stand.Offers("reconnect")) {
        KVASIR_RETURN_IF_ERROR(stand.daemon().StartAgain());
        KVASIR_ASSIGN_OR_RETURN(const FeedAnswer got,
                                stand.Run(*engine, 3, {}, all.first(slots + 4), kBatch));
        KVASIR_RETURN_IF_ERROR(stand.Same(wanted, got, where + ", on the next one"));
      }
    }
    if (const absl::Status end = engine->End(); !end.ok()) {
      return Internal("{}: {}", where, MessageOf(end));
    }
  }
  return std::string("killed, stopped and standing still") +
         (stand.Offers("reconnect") ? ", and found the next one" : "");
}

}  // namespace kvasir::conformance
