#include "client/conformance/check.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <random>
#include <utility>

#include "base/error.h"
#include "base/status_macros.h"

namespace kvasir::conformance {
namespace {

constexpr char kAttention[] = "The attention loop", kStep[] = "A step";
constexpr char kErrors[] = "Deadlines and errors";

constexpr std::array kChecks{
    Check{"hello", "connects and registers its model", "The model spec", CheckHello},
    Check{"rows", "the daemon has the rows and ids that were fed", kStep, CheckRows},
    Check{"repeat", "the same ids give the same logits again", kStep, CheckRepeat},
    Check{"memory", "the daemon's memory is as good as its own", kStep, CheckMemory},
    Check{"batches", "steps of 1, 7 and 64 rows agree", kStep, CheckBatches},
    Check{"decode", "no call between block borders", "Order of calls", CheckDecode},
    Check{"kept", "kept rows are attended as recent ones", kAttention, CheckKept},
    Check{"window", "what no layer sees has no influence", kAttention, CheckWindow},
    Check{"sticky", "rows that stay are seen for ever", kAttention, CheckSticky},
    Check{"layers", "each layer has its own view", kAttention, CheckLayers},
    Check{"covering", "a window over everything is full attention", kAttention, CheckCovering},
    Check{"positions", "queries stand where each run says", kAttention, CheckPositions},
    Check{"unrotated", "keys may lie unrotated", "What a view may ask for", CheckUnrotated},
    Check{"mass", "attention mass does not depend on steps", "What a view may ask for", CheckMass},
    Check{"truncate", "rows that are forgotten are forgotten", "Truncation", CheckTruncate},
    Check{"prefix", "a second process goes on from the first's", "Prompts that begin alike",
          CheckPrefix},
    Check{"snapshot", "a saved text goes on in another process", "Saving and resuming",
          CheckSnapshot},
    Check{"limit", "goes on after the limit", kErrors, CheckLimit},
    Check{"end", "gives everything back", "Order of calls", CheckEnd},
    Check{"kill", "SIGKILL leaves no byte", "Threads", CheckKill},
    Check{"daemon", "outlives the daemon", kErrors, CheckDaemon},
};

}  // namespace

std::span<const Check> AllChecks() { return kChecks; }

absl::Status NotOffered(const std::string& what) {
  return Unimplemented("the engine does not offer it: offer={}", what);
}

absl::Status NotOnADevice(const std::string& what) {
  return Unimplemented("rows that lie on a device have none: what={}", what);
}

double Difference(const FeedAnswer& a, const FeedAnswer& b) {
  if (a.logits.size() != b.logits.size()) return 1;
  double size = 1e-9, difference = 0;
  for (size_t i = 0; i < a.logits.size(); ++i) {
    size = std::max(size, std::abs(a.logits[i]));
    difference = std::max(difference, std::abs(a.logits[i] - b.logits[i]));
  }
  return difference / size;
}

absl::Status Stand::StartDaemon(uint64_t limit_bytes, uint64_t extent_bytes) {
  daemon_.reset();
  KVASIR_ASSIGN_OR_RETURN(daemon_, OwnDaemon::Start({settings_.daemon, settings_.pool_bytes,
                                                     limit_bytes, extent_bytes, settings_.device},
                                                    settings_.patience));
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<TestedEngine>> Stand::NewEngine() {
  KVASIR_ASSIGN_OR_RETURN(
      std::unique_ptr<TestedEngine> engine,
      TestedEngine::Start(settings_.engine, daemon_->EngineEnvironment(),
                          daemon_->FileIn("engine.log"), settings_.deadline, settings_.patience));
  KVASIR_ASSIGN_OR_RETURN(EngineFacts facts, engine->Hello());
  if (!facts_) facts_ = std::move(facts);
  return engine;
}

Ids Stand::MakeIds(size_t count, uint64_t seed, const Ids& without) const {
  std::mt19937_64 random(seed);
  Ids ids;
  while (ids.size() < count) {
    const auto id = static_cast<uint32_t>(random() % facts_->vocabulary);
    if (std::find(without.begin(), without.end(), id) == without.end()) ids.push_back(id);
  }
  return ids;
}

absl::StatusOr<FeedAnswer> Stand::Run(TestedEngine& engine, uint64_t number,
                                      const OpenRequest& request, std::span<const uint32_t> ids,
                                      uint32_t batch) const {
  KVASIR_ASSIGN_OR_RETURN(const uint64_t rows, engine.Open(number, request));
  if (rows != 0) {
    return Internal("a new text has rows already: retention={} rows={}", request.retention, rows);
  }
  return engine.Feed(number, ids, batch);
}

absl::Status Stand::Same(const FeedAnswer& wanted, const FeedAnswer& got,
                         const std::string& what) const {
  if (wanted.rows != got.rows) {
    return Internal("{}: another number of rows: wanted={} got={}", what, wanted.rows, got.rows);
  }
  const double difference = Difference(wanted, got);
  if (difference <= settings_.tolerance) return absl::OkStatus();
  return Internal("{}: other logits: row={} difference={:.2g} tolerance={:.2g}", what,
                  wanted.rows - 1, difference, settings_.tolerance);
}

}  // namespace kvasir::conformance
